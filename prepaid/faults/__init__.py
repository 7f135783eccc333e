"""Faults by the hundred: the whole system under load, a fault a round, and its laws after each."""
