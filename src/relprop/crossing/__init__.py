"""How relevance crosses an operation: by the plain gradient, a rule or a secant, or as part of another."""
