"""Universal training: stages of a recipe, their losses, and checkpoints."""
