"""The checks of ``sterna doctor``, from the port to the tokens: a new board on the desk, or a simulated one."""
