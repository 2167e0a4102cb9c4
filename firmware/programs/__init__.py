"""Programs of a token, one module per kind."""
