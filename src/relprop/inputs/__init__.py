"""What is explained: which arguments of a model, what it gets in their place, and what came to them."""
