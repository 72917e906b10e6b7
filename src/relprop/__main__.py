"""`python -m relprop`: the command line."""

from relprop.cli import main

main()
