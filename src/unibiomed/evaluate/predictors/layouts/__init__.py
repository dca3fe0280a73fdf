"""Readers of what other programs write, one file for each kind: mask images, volumes, tables of answers."""
