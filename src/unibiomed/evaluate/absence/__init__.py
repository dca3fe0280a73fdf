"""Evaluation of absent targets: false masks over all pairs of image and target, and findings in normal images."""
