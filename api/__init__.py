"""The HTTP edge: customers, partners, operators, health."""
