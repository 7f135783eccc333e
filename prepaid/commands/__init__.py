"""One module per command of `prepaid`."""
