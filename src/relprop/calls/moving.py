"""Operations that only move elements: what holds of an element holds of it in its new place.

Relevance, the positions of tokens and what is known of constants all follow these operations, so that they
are listed once, by their names in aten.
"""

BY_SHAPE = ("view", "_unsafe_view", "_reshape_alias", "reshape", "flatten", "unflatten")
"""Views that a shape decides: the memory of what stands for a tensor may lie otherwise than the tensor's."""

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
"""Operations that leave every element of their first argument where it is, in a copy or in itself."""

WRITTEN_OUT = (
    *("expand_as", "broadcast_to", "view_as", "reshape_as", "tensor_split", "tile", "repeat_interleave"),
    "numpy_T",
)
"""Composite operations that only move elements: they arrive as themselves where nothing is relevant."""
