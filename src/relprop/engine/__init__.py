"""Interception: every call of a model seen once, as an aten operation. It knows no rule and no operation."""
