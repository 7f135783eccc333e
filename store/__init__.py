"""The only package that knows SQL: migrations, named queries, one function per query."""
