"""Energy and money in, postings and decisions out. Pure: no I/O, no clock, integers only."""
