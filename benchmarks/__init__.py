"""Measurements of the production code beside floors of the same run: `prepaid bench`."""
