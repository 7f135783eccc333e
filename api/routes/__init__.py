"""Routes by who calls them: parse, call, return."""
