"""Several engines of one accelerator: each has a memory, a fetch engine, an array."""
