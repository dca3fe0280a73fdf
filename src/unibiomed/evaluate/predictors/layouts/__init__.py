"""Readers of files that other programs write: mask images, volumes and tables of answers."""
