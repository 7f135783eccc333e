"""Meters that behave and misbehave, on a real broker."""
