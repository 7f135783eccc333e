"""Meters and networks that misbehave, as named scenarios; an auditor knows what is true."""
