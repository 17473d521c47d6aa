"""The floor of the step: what it consists of, found once and kept as long as it is true."""
