"""Operations that only move elements: every element of a result is an element of an operand.

Relevance, the positions of tokens and the notes about constants all follow these operations. So they are
listed once, by their names in aten.
"""

BY_SHAPE = ("view", "_unsafe_view", "_reshape_alias", "reshape", "flatten", "unflatten")
"""Operations that only change the shape. On a stand-in for the tensor, such as a slot, `reshape` is called
instead, because a stand-in may have other strides."""

MOVING = (
    *BY_SHAPE,
    # shape
    *("squeeze", "unsqueeze", "expand", "alias"),
    # order
    *("permute", "transpose", "swapaxes", "movedim", "t", "flip", "roll", "rot90"),
    *("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
    # parts and copies
    *("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk"),
    *("unbind", "slice", "narrow", "narrow_copy", "select", "diagonal", "repeat"),
    *("gather", "index_select", "index", "_unsafe_index", "masked_select", "take", "embedding"),
    # type and device
    "_to_copy",
)
"""Operations that move elements of their first argument."""

COPYING = ("clone", "contiguous", "to", "detach")
"""Operations that return their first argument, or a copy of it, with every element in its place."""

WRITTEN_OUT = (
    *("expand_as", "broadcast_to", "view_as", "reshape_as", "tensor_split", "tile", "repeat_interleave"),
    "numpy_T",
)
"""Composite operations that only move elements. They arrive undecomposed if no operand is relevant."""
