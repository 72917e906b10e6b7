"""What the commands do. Nothing here is imported before a command runs, since torch comes with it."""
