"""The interpreter of the instruction set: runs programs of the firmware with the arithmetic of the golden model."""
