"""STS numbers, keys and tokens (IEC 62055-41). Pure."""
