"""Composition root: settings, runtime, wiring, command line."""
