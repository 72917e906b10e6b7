"""The composites of the literature, by name: plain lists; the first match wins."""

from collections.abc import Mapping
from types import MappingProxyType

from relprop.errors import RuleError, did_you_mean
from relprop.places import Depth, FeedForward, First, Kind, Operation, Path, Perceptron
from relprop.rules.composite import Composite
from relprop.rules.elsewhere import plainly, told
from relprop.rules.first_layer import Flat, ZBox
from relprop.rules.linear import AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.rules.other import AveragePooling, SignalTakesAll, Uniform

CONVOLUTION = Kind("convolution")

_LITERATURE: Mapping[str, tuple[str, Composite]] = MappingProxyType(
    {
        "deep-taylor": (
            "Montavon et al. 2017, and the tutorial of heatmapping.org",
            Composite([(First(), ZBox()), ("*", ZPlus())]),
        ),
        "alpha2-beta1": (
            "Bach et al. 2015, and the tutorial of heatmapping.org",
            Composite([(First(), ZBox()), ("*", AlphaBeta(2, 1))]),
        ),
        "epsilon": (
            "Bach et al. 2015",
            Composite([("*", Epsilon(1e-6))]),
        ),
        "epsilon-plus": (
            "Kohlbrenner et al. 2020",
            Composite([(CONVOLUTION, ZPlus("absorb")), ("*", Epsilon(1e-6))]),
        ),
        "epsilon-plus-flat": (
            "Kohlbrenner et al. 2020",
            Composite(
                [(First() & CONVOLUTION, Flat()), (CONVOLUTION, ZPlus("absorb")), ("*", Epsilon(1e-6))]
            ),
        ),
        "epsilon-alpha2-beta1": (
            "Lapuschkin et al. 2019",
            Composite([(CONVOLUTION, AlphaBeta(2, 1, "absorb")), ("*", Epsilon(1e-6))]),
        ),
        "epsilon-alpha2-beta1-flat": (
            "Lapuschkin et al. 2019",
            Composite(
                [
                    (First() & CONVOLUTION, Flat()),
                    (CONVOLUTION, AlphaBeta(2, 1, "absorb")),
                    ("*", Epsilon(1e-6)),
                ]
            ),
        ),
        "epsilon-gamma-box": (
            "Montavon et al. 2019",
            Composite([(First(), ZBox()), (CONVOLUTION, Gamma(0.25)), ("*", Epsilon(1e-6))]),
        ),
        # The flat rule needs no bounds. In a multilayer perceptron, which has no convolution, γ is for all
        # layers. Measured in benchmarks/picture_faithfulness.py.
        "epsilon-gamma-flat": (
            "after Montavon et al. 2019 and Kohlbrenner et al. 2020",
            Composite(
                [
                    (First() & CONVOLUTION, Flat()),
                    (CONVOLUTION, Gamma(0.25)),
                    (Perceptron(), Gamma(0.25)),
                    ("*", Epsilon(1e-6)),
                ]
            ),
        ),
        # The tutorial counts modules, 1-16, 17-30 and from 31; here it is linear operations that count.
        "vgg-2019": (
            "Montavon et al. 2019, as their tutorial has it for VGG-16",
            Composite(
                [
                    (First(), ZBox()),
                    (Depth(1, 6), Gamma(0.25)),
                    (Depth(7, 12), Epsilon(0.25, of="rms")),
                    ("*", Epsilon(0)),
                    ("*", AveragePooling()),
                ]
            ),
        ),
        "excitation": (
            "Zhang et al. 2016",
            Composite([("*", ZPlus())], start="one"),
        ),
        # ε is 0: coefficients divide by nothing, so that there is nothing to stabilise.
        "attnlrp": (
            "Achtibat et al. 2024",
            Composite([("*", Uniform()), ("*", Epsilon(0))]),
        ),
        "cp-lrp": (
            "Ali et al. 2022",
            Composite([("*", SignalTakesAll(activations=True)), ("*", Epsilon(0))]),
        ),
        # Step sizes, inputs and outputs of the states are gates: x_proj makes them in Mamba. In Mamba-2 they
        # are parts of what in_proj and the convolution make. A SiLU shares with what it gates.
        "mamba-lrp": (
            "Jafari et al. 2024",
            Composite(
                [
                    ("*.x_proj", Epsilon(0, gates=True)),
                    (Path("*.mixer.in_proj") | Path("*.mamba.in_proj"), Epsilon(0, gates=(2,))),
                    (Path("*.mixer.conv1d") | Path("*.mamba.conv1d"), Epsilon(0, gates=(1, 2))),
                    ((Path("*.mixer") | Path("*.mamba")) & Operation("conv1d"), Epsilon(0, gates=(1, 2))),
                    ("*", SignalTakesAll()),
                    ("*", Epsilon(0)),
                ]
            ),
        ),
        "attnlrp-vit": (
            "Achtibat et al. 2024, table B.5",
            Composite(
                [
                    (CONVOLUTION, Gamma(0.25)),
                    (FeedForward(), Gamma(0.05)),
                    ("*", Uniform()),
                    ("*", Epsilon(0)),
                ]
            ),
        ),
    }
)
"""The source of each preset, and its list."""

PRESETS: Mapping[str, Composite] = MappingProxyType(
    {name: composite for name, (_, composite) in _LITERATURE.items()}
)
"""The composites of the literature, by name."""

PLACES_OF_PRESETS = tuple(where for preset in PRESETS.values() for where, _ in preset.entries)
"""The places in them, which are meant for any model."""

PRESET_SOURCES: Mapping[str, str] = MappingProxyType(
    {name: whose for name, (whose, _) in _LITERATURE.items()}
)
"""The sources of the presets."""

DEEPEST: Mapping[str, int] = MappingProxyType({"vgg-2019": 16})
"""The number of linear operations of the network that a preset is for, if it counts them."""

DEFAULT = "epsilon-gamma-box"
DEFAULT_WITHOUT_BOUNDS = "epsilon-gamma-flat"
DEFAULT_FOR_TOKENS = "cp-lrp"
"""It agreed better with leaving words out than "attnlrp" did: docs/minilm.md has the figures."""


def preset(name: str) -> Composite:
    """Return a preset by name.

    Raises:
        RuleError: no preset has this name. The error offers near matches, or the preset that another
            library's name means.
    """
    if name in PRESETS:
        return PRESETS[name]
    respelled = name.islower() and any(plainly(known) == plainly(name) for known in PRESETS)
    said = "" if respelled else told(name)
    if said:
        raise RuleError(f"there is no preset {name!r}.{said}")
    raise RuleError(
        f"there is no preset {name!r}.{did_you_mean(name, PRESETS)} The presets are: {', '.join(PRESETS)}. "
        "A single rule is an object, such as rules=relprop.rules.Gamma(0.25), or its text, 'Gamma(0.25)'."
    )
