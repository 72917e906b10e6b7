"""How the command line ends, as a shell sees it."""

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended: 128 + SIGINT."""
