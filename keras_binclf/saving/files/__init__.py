"""Saved files described without loading them."""
