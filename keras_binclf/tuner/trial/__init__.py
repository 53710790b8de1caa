"""One trial: its rows, its model, its training."""
