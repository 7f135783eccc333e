"""Faults by the hundred: the whole system under load, one fault a round, and its laws after each."""
