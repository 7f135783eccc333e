"""`python -m prepaid`, the same as `prepaid`."""

from prepaid.cli import main

main()
