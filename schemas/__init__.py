"""What crosses a boundary: quantities, identities, wire forms, topics, errors. Pure."""
