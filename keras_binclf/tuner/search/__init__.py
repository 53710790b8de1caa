"""The search around the trials: checks before it, its folder, its results."""
