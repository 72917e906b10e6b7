"""What help texts name: said here again, since the modules that know it take long to import.

A test compares these words with those of `relprop.models` and `relprop.rules`.
"""

FORMS = "mnist-mlp, mnist-cnn, efficientnet-lite0, torchvision:NAME, timm:NAME, path.py:function"
"""What a model can be called."""

RANDOM = "random"
"""In place of a file of weights."""

DEFAULT = "epsilon-gamma-box"
DEFAULT_FOR_TOKENS = "cp-lrp"
"""The presets that are taken without --rules."""

VIEWS = ("heatmap", "overlay")
"""What `relprop explain --view` takes."""

TEXT = "Where does this come from?"
"""What `relprop coverage` runs a language model on."""
