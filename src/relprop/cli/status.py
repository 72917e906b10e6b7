"""How the command line ends, as a shell sees it."""

FAILED = 2
"""What a shell reports where something cannot be done."""

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended: 128 + SIGINT."""
