"""Presence over all pairs of image and target: false masks by kind, and false findings on normal images."""
