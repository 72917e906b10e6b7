"""How relevance crosses an operation: by the plain gradient, a rule, a secant, or folded into another one."""
