"""Names for help texts. They are repeated here because the modules that define them take long to import.

A test compares them with those of `relprop.models` and `relprop.rules`.
"""

FORMS = "mnist-mlp, mnist-cnn, efficientnet-lite0, torchvision:NAME, timm:NAME, path.py:function"
"""The forms of a model's name."""

RANDOM = "random"
"""In place of a file of weights."""

DEFAULT = "epsilon-gamma-box"
DEFAULT_FOR_TOKENS = "cp-lrp"
"""The presets that are used without --rules."""

VIEWS = ("heatmap", "overlay")
"""The values of `relprop explain --view`."""

TEXT = "Where does this come from?"
"""The text on which `relprop coverage` runs a language model."""
