"""The demonstration that `prepaid up` runs: a centre, its meters, and customers who pay."""
