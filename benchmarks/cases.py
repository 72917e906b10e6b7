"""All cases: what is explained, in which ways and by which rules."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from benchmarks import subjects
from benchmarks.case import BASE_OF_LXT, Case, Row, Subject

PARTS: Mapping[str, str] = {
    "digits": "one digit, by the tutorial's networks",
    "pictures": "networks of pictures",
    "decoders": "decoders of the shape of LLaMA",
    "recurrent": "recurrent networks",
    "batch": "more and more samples at once",
    "depth": "more and more layers",
    "size": "larger and larger pictures",
    "length": "longer and longer texts",
}

Plan = Mapping[str, Sequence[str]]

ONCE = ("",)
"""Of ways without rules."""

PICTURE_RULES = ("epsilon", "w2-epsilon", "z+", "gamma", "alpha2-beta1")
COMPILED_RULES = ("epsilon", "gamma", "epsilon-gamma-flat")
PICTURE_PRESETS = ("epsilon-gamma-flat", "epsilon-gamma-box")

CONVOLUTIONS: Plan = {
    "gradient": ONCE,
    "relprop": (*PICTURE_RULES, *PICTURE_PRESETS),
    "plan": ("epsilon", "z+", "gamma", "alpha2-beta1", "epsilon-gamma-flat"),
    "graph": ("epsilon", "z+", "epsilon-gamma-flat"),
    "autolrp": ("epsilon", "gamma"),
}

WITH_ALL_PEERS: Plan = {
    **CONVOLUTIONS,
    "zennit": ("epsilon", "z+", "gamma", "alpha2-beta1", "epsilon-gamma-box"),
    "captum": ("epsilon", "z+", "gamma"),
}

VIT: Plan = {
    "gradient": ONCE,
    "relprop": (
        *("epsilon", "z+", "gamma", "alpha2-beta1"),
        *("epsilon-gamma-flat", "attnlrp", "cp-lrp", "attnlrp-vit"),
    ),
    "plan": ("epsilon", "epsilon-gamma-flat", "attnlrp", "cp-lrp"),
    "graph": ("epsilon", "epsilon-gamma-flat", "attnlrp", "cp-lrp"),
    "autolrp": ("epsilon", "attnlrp", "cp-lrp"),
    BASE_OF_LXT.way: ONCE,
    "LXT": ("cp-lrp",),
}

DECODER: Plan = {
    "gradient": ONCE,
    "relprop": ("attnlrp", "cp-lrp", "epsilon"),
    "plan": ("attnlrp", "cp-lrp", "epsilon"),
    "graph": ("attnlrp", "cp-lrp", "epsilon"),
    "autolrp": ("attnlrp", "cp-lrp"),
    BASE_OF_LXT.way: ONCE,
    "LXT": ("attnlrp", "cp-lrp"),
}

DIGIT: Plan = {
    "gradient": ONCE,
    "relprop": ("deep-taylor", "alpha2-beta1", "epsilon", "epsilon-gamma-flat"),
    "plan": ("deep-taylor", "alpha2-beta1", "epsilon", "epsilon-gamma-flat"),
    "graph": ("deep-taylor", "alpha2-beta1", "epsilon", "epsilon-gamma-flat"),
}

MANY_DIGITS: Plan = {
    "gradient": ONCE,
    "relprop": ("deep-taylor", "alpha2-beta1"),
    "plan": ("deep-taylor", "alpha2-beta1"),
    "graph": ("deep-taylor", "alpha2-beta1"),
    "NumPy": ("deep-taylor",),
    "NumPy of 2017": ("deep-taylor",),
}

WRITTEN: Plan = {
    "gradient": ONCE,
    "relprop": ("epsilon", "epsilon-gamma-flat", "cp-lrp"),
    "plan": ("epsilon", "epsilon-gamma-flat", "cp-lrp"),
    "graph": ("epsilon", "epsilon-gamma-flat", "cp-lrp"),
}
LAYER: Plan = {"gradient": ONCE, "relprop": ("epsilon", "epsilon-gamma-flat", "cp-lrp", "attnlrp")}

SERIES: Plan = {
    "gradient": ONCE,
    "relprop": ("epsilon", "epsilon-gamma-flat"),
    "plan": ("epsilon",),
    "graph": ("epsilon",),
}
DECODER_SERIES: Plan = {
    "gradient": ONCE,
    "relprop": ("attnlrp", "cp-lrp"),
    "plan": ("attnlrp", "cp-lrp"),
    "graph": ("attnlrp", "cp-lrp"),
}
LENGTHS: Plan = {
    **DECODER_SERIES,
    "checkpointed gradient": ONCE,
    "checkpointed relprop": ("attnlrp",),
    "autolrp": ("attnlrp",),
    BASE_OF_LXT.way: ONCE,
    "LXT": ("attnlrp",),
}

COMPILED_GRADIENT = Row("compiled gradient")


def _compiled(*rules: str) -> list[Row]:
    return [COMPILED_GRADIENT, *(Row("inductor", each) for each in rules)]


def _pictures(name: str, title: str, plan: Plan, *compiled: str, canonizer: str = "") -> Case:
    make = partial(subjects.picture, name, canonizer=canonizer)
    return Case(name, title, "pictures", make, plan, _compiled(*compiled))


def _digits() -> list[Case]:
    rules = _compiled("deep-taylor")
    cnn, mlp = (partial(subjects.digits, f"mnist-{kind}") for kind in ("cnn", "mlp"))
    return [
        Case("digit-cnn", "one digit, CNN", "digits", partial(cnn, 1), DIGIT, rules),
        Case("digit-mlp", "one digit, MLP", "digits", partial(mlp, 1), DIGIT),
        Case("digits-cnn", "100 digits, CNN", "digits", partial(cnn, 100), MANY_DIGITS),
    ]


def _decoders() -> list[Case]:
    rules = _compiled("attnlrp", "cp-lrp", "epsilon")
    return [
        Case(
            f"llama-{width}",
            f"LLaMA, {width} wide, {tokens} tokens",
            "decoders",
            partial(subjects.llama, width, tokens),
            DECODER,
            rules,
        )
        for width, tokens in ((64, 32), (512, 128))
    ]


def _recurrent() -> list[Case]:
    written = Case("lstm-written", "LSTM written out, 32 units", "recurrent", subjects.written_lstm, WRITTEN)
    return [
        written,
        *(
            Case(
                f"{kind.__name__.lower()}-{batch}",
                f"nn.{kind.__name__}, 256 units, {batch} {'sample' if batch == 1 else 'samples'}",
                "recurrent",
                partial(subjects.layer, kind, batch),
                LAYER,
            )
            for kind in (nn.LSTM, nn.GRU, nn.RNN)
            for batch in (1, 8)
        ),
    ]


def _one_series(
    part: str, title: str, make: Callable[[int], Subject], plan: Plan, numbers: Sequence[int]
) -> list[Case]:
    """Cases that differ in one number, which stands in their title."""
    return [Case(f"{part}/{n}", title.format(n), part, partial(make, n), plan, at=n) for n in numbers]


def _series() -> list[Case]:
    def batch(n: int) -> Subject:
        return subjects.picture("resnet50", n, 96)

    def depth(n: int) -> Subject:
        return subjects.llama(64, 32, n)

    def size(n: int) -> Subject:
        return subjects.picture("resnet50", 1, n)

    length = partial(subjects.llama, 256)
    return [
        *_one_series("batch", "ResNet-50, 96 pixels, batch {}", batch, SERIES, (1, 2, 4, 8, 16)),
        *_one_series("depth", "LLaMA, 64 wide, 32 tokens, {} layers", depth, DECODER_SERIES, (2, 4, 8, 16)),
        *_one_series("size", "ResNet-50, one picture, {} pixels", size, SERIES, (64, 112, 224, 320, 448)),
        *_one_series("length", "LLaMA, 8 layers, 256 wide, {} tokens", length, LENGTHS, (32, 128, 512, 1024)),
    ]


CASES: Sequence[Case] = (
    *_digits(),
    _pictures("vgg16", "VGG-16", WITH_ALL_PEERS, *COMPILED_RULES, canonizer="VGGCanonizer"),
    _pictures("resnet50", "ResNet-50", WITH_ALL_PEERS, *COMPILED_RULES, canonizer="ResNetCanonizer"),
    _pictures("efficientnet_b0", "EfficientNet-B0", CONVOLUTIONS, *COMPILED_RULES),
    _pictures("densenet121", "DenseNet-121", CONVOLUTIONS, *COMPILED_RULES),
    _pictures("convnext_tiny", "ConvNeXt-T", CONVOLUTIONS, *COMPILED_RULES),
    _pictures("vit_b_16", "ViT-B/16", VIT, "epsilon", "attnlrp", "cp-lrp"),
    *_decoders(),
    *_recurrent(),
    *_series(),
)
"""In the order in which they are measured and shown."""
