"""The UniBiomed model: configuration, architecture, preprocessing, generation and weights."""
