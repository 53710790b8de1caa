"""Hyperparameters: their values, their defaults, what each depends on."""
