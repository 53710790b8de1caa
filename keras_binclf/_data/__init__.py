"""Readers of models and rows: heads, inputs, tables and scored rows."""
