"""What a saved file holds, read without loading it."""
