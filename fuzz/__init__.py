"""Every decoder on bytes that nobody meant to send. See fuzz/run.py."""
