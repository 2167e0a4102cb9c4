"""Several engines of one accelerator: each has a memory, a fetch engine and an array (docs/scaling.md)."""
