"""The search space: the table of hyperparameters, and the values of one trial."""
