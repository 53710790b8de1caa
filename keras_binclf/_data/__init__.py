"""How rows and models are read: heads, inputs, tables and scored rows."""
