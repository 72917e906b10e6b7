"""The composites of the literature, by name. Plain lists; the first match wins."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from relprop.composites import Composite, Depth, convolution
from relprop.errors import RuleError
from relprop.input_rules import Flat, ZBox
from relprop.nonlinear_rules import AveragePooling
from relprop.rules import AlphaBeta, Epsilon, Gamma, ZPlus

PRESETS: Mapping[str, Composite] = MappingProxyType(
    {
        # Montavon et al. 2017; the tutorial
        "deep-taylor": Composite([("first", ZBox()), ("*", ZPlus())]),
        "alpha2-beta1": Composite([("first", ZBox()), ("*", AlphaBeta(2, 1))]),
        # Bach et al. 2015
        "epsilon": Composite([("*", Epsilon(1e-6))]),
        # Kohlbrenner et al. 2020
        "epsilon-plus": Composite([(convolution, ZPlus()), ("*", Epsilon(1e-6))]),
        "epsilon-plus-flat": Composite(
            [(("first", convolution), Flat()), (convolution, ZPlus()), ("*", Epsilon(1e-6))]
        ),
        # Lapuschkin et al. 2019
        "epsilon-alpha2-beta1": Composite([(convolution, AlphaBeta(2, 1)), ("*", Epsilon(1e-6))]),
        "epsilon-alpha2-beta1-flat": Composite(
            [(("first", convolution), Flat()), (convolution, AlphaBeta(2, 1)), ("*", Epsilon(1e-6))]
        ),
        # Montavon et al. 2019
        "epsilon-gamma-box": Composite([("first", ZBox()), (convolution, Gamma(0.25)), ("*", Epsilon(1e-6))]),
        # Montavon et al. 2019, as their tutorial has it for VGG-16: layers 1-16, 17-30, from 31
        "vgg-2019": Composite(
            [
                ("first", ZBox()),
                (Depth(1, 6), Gamma(0.25)),
                (Depth(7, 12), Epsilon(0.25, of="rms")),
                ("*", Epsilon(0)),
                ("*", AveragePooling()),
            ]
        ),
        # Zhang et al. 2016
        "excitation": Composite([("*", ZPlus())], start="one"),
    }
)
"""The composites of the literature, by name."""

DEFAULT = "epsilon-gamma-box"
DEFAULT_WITHOUT_BOUNDS = "epsilon-plus-flat"


def preset(name: str) -> Composite:
    """Return a preset by name.

    Raises:
        RuleError: there is none of this name; near matches are offered.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise RuleError(
        f"there is no preset {name!r}.{hint} The presets are: {', '.join(PRESETS)}. "
        "A single rule is an object, such as rules=relprop.Gamma(0.25)."
    )
