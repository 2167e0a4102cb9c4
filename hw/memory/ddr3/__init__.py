"""DDR3 SDRAM behind the memory port: controller, levelling and cells at the pins."""
