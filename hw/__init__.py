"""Gateware of the Sterna accelerator, in the order in which the data flows."""
