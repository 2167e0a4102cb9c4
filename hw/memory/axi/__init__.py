"""Memory behind AXI4 masters: the bus, a master's two halves, and the memory port in front."""
