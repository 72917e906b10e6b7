"""A linear operation as a value: its map and the transpose, weights, and one call of it as a rule sees it."""
