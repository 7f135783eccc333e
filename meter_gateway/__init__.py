"""Loops between broker, store and engine: ingest, clockwork, dispatch."""
