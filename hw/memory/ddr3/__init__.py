"""DDR3 SDRAM: controller, levelling, the ECP5's cells at the pins, and all of it behind the port."""
