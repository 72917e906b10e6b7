"""The explained inputs: the arguments that are explained, the tensors in their place, and their relevance."""
