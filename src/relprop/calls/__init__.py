"""One aten call as a value: its operation, its arguments by name, and its place in the model."""
