"""Channels that behave and misbehave like the originals: real HTTP on loopback, from a seed."""
