"""The security module in a process of its own, behind a Unix domain socket."""
