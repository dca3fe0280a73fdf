"""The model: configuration, modeling, processing, generation, weights; nothing of image files, tasks or data sets."""
