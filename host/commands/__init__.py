"""The commands of ``sterna``, one module per group."""
