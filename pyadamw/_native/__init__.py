"""The floor of the library: loading it, calling it, its constants, and tensors as it sees them."""
