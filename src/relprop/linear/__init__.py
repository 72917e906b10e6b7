"""A linear operation as a value: its map, its modified weights, and one call of it as a rule gets it."""
