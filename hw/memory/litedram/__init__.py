"""LiteDRAM's controller and cells for DDR3 behind the memory port, in place of the own ones."""
