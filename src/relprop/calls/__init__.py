"""An aten call as a value: what it is, how its arguments are called, where it stands in the model."""
