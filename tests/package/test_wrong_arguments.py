"""Wrong arguments and hostile files: a message of relprop each, no traceback of another kind, no code run."""

import inspect
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.errors import FileError, InputError, RelpropError, RuleError
from relprop.models import load_checkpoint
from relprop.places import Depth, First
from relprop.places import Path as AtPath
from relprop.rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, Uniform, ZBox
from relprop.rules.files import read_rules, rule_from_text
from relprop.targets import At, Contrastive, Difference, Logit, LogOdds, Part, Region, RunnerUp
from relprop.view.picture import read_picture
from relprop.zoo import load

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
X = torch.randn(2, 3, 8, 8)
EXPLANATION = relprop.explain(MODEL, X, target=1, rules="epsilon", record="0", per_operation=True)


class _Thing:
    def __repr__(self) -> str:  # without an address, as tests are named by it
        return "thing"


HUGE, THING = 10**5000, _Thing()


def explain(**options: Any) -> Callable[[], object]:
    return lambda: relprop.explain(MODEL, X, **{"target": 1, "rules": "epsilon", **options})


Case = tuple[str, Callable[[], object], type[RelpropError], str]
CASES: list[Case] = []


def add(call: str, function: Callable[[], object], error: type[RelpropError], told: str) -> None:
    CASES.append((call, function, error, told))


for value in (None, "a", True, -1, float("nan"), float("inf"), HUGE, 1j, [1], {}, THING, torch.ones(2)):
    name = "10**5000" if value is HUGE else repr(value)[:20]
    for rule, parameter in ((Gamma, "gamma"), (Epsilon, "epsilon")):
        add(
            f"{rule.__name__}({parameter}={name})",
            lambda rule=rule, parameter=parameter, value=value: rule(**{parameter: value}),
            RuleError,
            f"{parameter} must be a finite number, 0 or larger.",
        )
    if type(value) is not int or value is HUGE:
        told = "alpha and beta must be finite numbers."
        add(f"AlphaBeta({name}, 1)", lambda value=value: AlphaBeta(value, 1), RuleError, told)
        add(f"AlphaBeta(2, {name})", lambda value=value: AlphaBeta(2, value), RuleError, told)
for value in ("a", THING, 1j, [[0]], {}, [], [HUGE], [None]):
    told = "give a number, a sequence with a number for each channel, or a tensor"
    name = "[10**5000]" if value == [HUGE] else repr(value)[:20]
    if value != [HUGE]:
        add(f"ZBox({name}, 1)", lambda value=value: ZBox(value, 1), RuleError, f"ZBox(low={value!r}): {told}")
        add(
            f"ZBox(0, {name})", lambda value=value: ZBox(0, value), RuleError, f"ZBox(high={value!r}): {told}"
        )
for value in (None, 1, True, 1.5, THING, MODEL, len):
    told = f"Composite({value!r}): give a list of pairs (where, rule), such as [(First(), Flat()),"
    if value is not MODEL:
        add(f"Composite({value!r})"[:40], lambda value=value: Composite(value), RuleError, told)
for entry in (None, 1, "a", (), ("*",), ("*", Flat(), 1), ["*", Flat()], {"*": Flat()}):
    told = "a composite's entry is a pair (where, rule), such as (First(), Flat()); got"
    add(f"Composite([{entry!r}])", lambda entry=entry: Composite([entry]), RuleError, told)
for rule in (None, 1, "Gamma", Gamma, THING, len, [Flat()]):
    add(
        f"('*', {rule!r})"[:40],
        lambda rule=rule: Composite([("*", rule)]),
        RuleError,
        "in a composite is no rule",
    )
for low, high in ((5, 1), (-1, 2), (1.5, 2), ("a", 2), (None, 2), (True, 2), (1, "b"), (1, 2.5)):
    told = (
        f"Depth({low!r}, {high!r}): give the smallest number of linear operations before it, 0 or more, and"
    )
    add(f"Depth({low!r}, {high!r})", lambda low=low, high=high: Depth(low, high), RuleError, told)
for glob in (None, 1, [], MODEL, THING):
    add(f"Path({glob!r})"[:40], lambda glob=glob: AtPath(glob), RuleError, "give a glob on module paths")
for name in (None, "", 1, "a.b", [], THING):
    told = f"register({name!r}, ...): give the name of an operation as errors print it"
    add(f"register({name!r}, f)"[:40], lambda name=name: relprop.register(name, len), InputError, told)
for entry in (None, 1, [], Flat):
    told = f"register('cumsum', {entry!r}): an entry is called as entry(run, call, *arguments)"
    add(
        f"register('cumsum', {entry!r})"[:40], lambda e=entry: relprop.register("cumsum", e), InputError, told
    )
for name, entry, told in (
    ("xyz", len, "torch has no operation of this name"),
    ("cumsum", "y", "say 'pointwise'"),
):
    add(
        f"register({name!r}, {entry!r})",
        lambda name=name, entry=entry: relprop.register(name, entry),
        InputError,
        told,
    )
for path in (None, 1, b"a.png", "", [], 1.5, True, THING, Path):
    for call, save in (
        ("explanation.save", EXPLANATION.save),
        ("load", relprop.load_explanation),
        ("read_picture", read_picture),
        ("save", EXPLANATION.plot().save),
    ):
        told = f"{call}({path!r}): give the name of a file, as a text or a pathlib.Path."
        add(f"{call}({path!r})"[:40], lambda save=save, path=path: save(path), InputError, told)
for call, save in (("explanation.save", EXPLANATION.save), ("load", relprop.load_explanation)):
    told = f"{call}('a\\x00.png'): the name of a file has no zero bytes. Give another name."
    add(f"{call} of a zero byte", lambda save=save: save("a\0.png"), InputError, told)
    # Nothing is at so long a name, and nothing can be.
    long = "a" * 300 + (".png" if save == EXPLANATION.save else "")
    add(f"{call} of a long name", lambda save=save, long=long: save(long), FileError, "File name too long")
add("read_picture of a long name", lambda: read_picture("a" * 300), FileError, "File name too long")
for name in (None, 1, [], THING, "mnist"):
    add(
        f"load({name!r})"[:40],
        lambda name=name: load(name) if not isinstance(name, list) else load(str(name)),
        RelpropError,
        "no bundled model is called",
    )
for value in (None, "a", 0, -1, 101, float("nan"), [], THING):
    told = f"percentile={value!r}: give a number above 0, and 100 at most."
    add(f"plot(percentile={value!r})"[:40], lambda v=value: EXPLANATION.plot(percentile=v), InputError, told)
for value in ("a", 2, -3, 0.5, [], THING):
    told = f"ledger.table(sample={value!r}): give a number from 0 to 1, or leave it out"
    add(f"table({value!r})"[:40], lambda v=value: EXPLANATION.ledger.table(v), InputError, told)
for value in ("a", None, [], THING):
    told = f"ledger.table(above={value!r}): give the share of the largest amount"
    add(f"table(above={value!r})"[:40], lambda v=value: EXPLANATION.ledger.table(above=v), InputError, told)
    told = f"ledger.plot(rows={value!r}): give the largest number of rows, 1 or more."
    add(
        f"ledger.plot(rows={value!r})"[:40], lambda v=value: EXPLANATION.ledger.plot(rows=v), InputError, told
    )
for value in (["0"], "0", 1, ("0", [1]), {"0"}):
    told = f"conditions={value!r}: give a dictionary from modules, or their paths, to conditions."
    add(f"conditions={value!r}", explain(conditions=value), InputError, told)
for made in (None, "a", THING, ["a"], {}):
    told = (
        f"conditions['0']: the function returned {made!r}. It must return a mask that broadcasts to relevance"
    )
    add(
        f"a condition that returns {made!r}"[:40],
        explain(conditions={"0": lambda R, m=made: m}),
        InputError,
        told,
    )
for mask in (float("nan"), float("inf"), [1.0, float("nan")]):
    told = "conditions['0']: the mask has elements that are no finite real numbers. Give the share"
    tensor = torch.tensor(mask)[..., None, None] if isinstance(mask, list) else torch.tensor(mask)
    add(f"a mask of {mask}", explain(conditions={"0": tensor}), InputError, told)
    add(f"a function to {mask}", explain(conditions={"0": lambda R, t=tensor: t}), InputError, told)
for option in ("record", "conditions"):
    for value in (1, None, 1.5, ("0", "3")):
        given = [value] if option == "record" else {value: [0]}
        told = f"{option}={value!r}: give a module of the model, or its path."
        add(f"{option}: {value!r}", explain(**{option: given}), InputError, told)
for value in (1, ("0",), ("0", "b"), ["0"], 1.5, {}):
    told = f"start={value!r}: give a module of the model, or its path, or (module, call)."
    add(f"start={value!r}", explain(start=value), InputError, told)
for value in (10**30, -(10**30), [10**30, 1], HUGE, Contrastive(10**30), Difference(1, 10**30)):
    number = "a number of thousands of digits" if value is HUGE else "0" * 30
    told = f"{number} is out of range: the output has 3 classes, 0 to 2."
    name = "target=10**5000" if value is HUGE else f"target={value!r}"
    add(name, explain(target=value), InputError, told)
for goal in (Contrastive, Logit, LogOdds, RunnerUp, Difference):
    for value in ("cat", 1.5, True, {}, [], (), [1, "a"], [None], 1j, torch.tensor(1.5), THING, [[1, 2]]):
        told = f"target {goal.__name__}({value!r}): {value!r} is no class index; give an integer, or one for"
        add(f"{goal.__name__}({value!r})", lambda g=goal, v=value: g(v), InputError, told)
add("Difference(1, 1)", lambda: Difference(1, 1), InputError, "the difference of a class and itself is 0")
for name, made, told in (
    ("complex numbers", lambda y: torch.complex(y, y), "such as target=lambda output: output.abs()[:, 0]."),
    ("comparisons", lambda y: y > 0, "let the model return the scores that they are made of"),
    ("integers", lambda y: y.argsort(1), "the output has the type torch.int64, and scores of classes are"),
):
    for target in (None, 1, RunnerUp()):
        add(
            f"{name} as the output, {target}",
            lambda made=made, target=target: relprop.explain(lambda x: made(MODEL(x)), X, target=target),
            InputError,
            told,
        )
add(
    "complex scores",
    explain(target=lambda y: torch.complex(y, y)[:, 0]),
    InputError,
    "gave complex numbers, and scores are real; take .abs(), .real or .imag.",
)
add("Difference(1, 'dog')", lambda: Difference(1, "dog"), InputError, "names.index('dog')")
add("target='cat'", explain(target="cat"), InputError, "names, the index is names.index('cat').")
told = "names, they are [names.index(name) for name in ['cat', 'dog']]."
add("target=['cat', 'dog']", explain(target=["cat", "dog"]), InputError, told)
for value in ([], (), b"cat", {}, [1.5], [[1]], THING, 1j, 3.5):
    told = f"target={value!r} is not a target. Give a class index, one index per sample"
    add(f"target={value!r}"[:40], explain(target=value), InputError, told)
for function in (lambda: 1, lambda a, b: a, lambda *, output: output):
    told = "is called with the model's output alone, and does not take it: "
    add(f"a target of {inspect.signature(function)}", explain(target=function), InputError, told)
for rule, written in (
    (Epsilon(), "relprop.rules.Epsilon(epsilon=1e-06)"),
    (Epsilon, "relprop.rules.Epsilon()"),
    (Uniform(), "[('*', relprop.rules.Uniform()), ('*', relprop.rules.Epsilon())]"),
):
    told = f"target={rule!r} is a rule, and no score to explain. Write rules={written}."
    add(f"target={rule!r}", explain(target=rule), InputError, told)
told = "target=First() is a place in a composite. Write rules=[(First(), relprop.rules.Epsilon()), ('*',"
add("target=First()", explain(target=First()), InputError, told)
for goal in (None, 0, Contrastive(), LogOdds(0)):
    told = "the output has shape (2, 0), and so no classes. Give the model's last layer one output or more."
    add(
        f"no classes, target={goal!r}",
        lambda goal=goal: relprop.explain(lambda x: MODEL(x)[:, :0], X, target=goal, rules="epsilon"),
        InputError,
        told,
    )
for output, told in (
    ("text", "the model returns str and not a tensor. Explain a function that returns one, such as"),
    (None, "the model returns NoneType and not a tensor. Explain a function that returns one, such as"),
    (
        [1, X.flatten(1)],
        "the model returns list and not a tensor. Give a target, for instance target=lambda ",
    ),
    ([1, X.flatten(1)], "output: output[1][:, 0]."),
    ({"a": 1, "b": X.flatten(1)}, "output: output['b'][:, 0]."),
    (SimpleNamespace(a=1, b=X.flatten(1)), "output: output.b[:, 0]."),
):
    add(
        f"an output {type(output).__name__}: {told[-12:]}",
        lambda output=output: relprop.explain(lambda x: output, X, target=1),
        InputError,
        told,
    )
for value in ("cat", 1.5, None, True, [1], torch.ones(2, dtype=torch.int64), THING):
    told = f"target Region({value!r}): {value!r} is no class index; give an integer."
    add(f"Region({value!r})"[:40], lambda value=value: Region(value), InputError, told)
for mask in ("x", [[1]], torch.ones(8, 8).numpy(), THING):
    told = f"target Region(1, mask): the mask is a {type(mask).__name__}. Give a tensor of the pixels"
    add(f"Region(1, {type(mask).__name__})", lambda mask=mask: Region(1, mask), InputError, told)
for name in ("x", [], None, 10**30, 5, -5):
    told = "the model's output has no such part; it is one tensor, of shape (2, 3). Give the target of this"
    add(f"Part({name!r}) of a tensor", explain(target=Part(name)), InputError, told)
add("At(10**5000)", lambda: At(HUGE), InputError, "target At: a position has more than 64 bits. Give the")
add("Region(10**5000)", lambda: Region(HUGE), InputError, "target Region: the index has more than 64 bits.")
for mask in (torch.tensor([torch.nan]), torch.tensor([torch.inf]), torch.tensor([1j])):
    told = (
        "target Region(1, mask): the mask has elements that are no finite real numbers. Give True and False"
    )
    add(f"Region(1, {mask!r})", lambda mask=mask: Region(1, mask), InputError, told)
for value in (1, None, 1.5, THING, nn.ReLU):
    told = f"checkpoint={type(value).__name__} is no module of the model. Give paths, such as 'layers.*', or"
    add(f"checkpoint=[{value!r}]", explain(checkpoint=[value]), InputError, told)
for value in (1, {1: 2}, ["x"], THING):
    told = f"kwargs={value!r}: give the model's arguments by name, as a dictionary."
    add(f"kwargs={value!r}", explain(kwargs=value), InputError, told)
for value in (1, "print", [], THING):
    told = f"progress={value!r}: give a function that takes the number of targets that are done, and that of"
    add(
        f"progress={value!r}",
        lambda v=value: relprop.explain_each(MODEL, X, targets=[1], progress=v),
        InputError,
        told,
    )
for value in (3, "cat", b"ab", {1}, None, THING):
    told = f"targets={value!r}: give a list of targets; a single one is explain(..., target=...)."
    add(f"targets={value!r}", lambda v=value: relprop.explain_each(MODEL, X, targets=v), InputError, told)
for value in (None, 1, [], [1], THING, "ab"):
    told = "Explanation.concatenate: give a list of at least one explanation."
    add(f"concatenate({value!r})", lambda v=value: relprop.Explanation.concatenate(v), InputError, told)
for value in (None, 1, 1.5, b"relu", True):
    add(f"accept={value!r}", explain(accept=value), InputError, f"accept={value!r}: give a name, or a list")
for value in (None, 1, "", [], nn.ReLU, THING):
    told = f"accept={value!r}: give the name of an operation as errors print it, or a function of torch"
    add(f"accept=[{value!r}]", explain(accept=[value]), InputError, told)
add(
    "accept=MODEL", explain(accept=MODEL), InputError, "accept=Sequential(...): give the name of an operation"
)
for rules in ("epsilon", None, "gradient-times-input", Epsilon()):
    for value, told in (
        ((1, 0), "ZBox(low=1, high=0): low is above high; exchange them."),
        (((1, 2, 3), 0), "ZBox(low=(1.0, 2.0, 3.0), high=0): low is above high; exchange them."),
        (("a", "b"), "ZBox(low='a'): give a number, a sequence with a number for each channel"),
        ((0, float("inf")), "ZBox(low=0, high=inf): the bounds must be finite."),
    ):
        call = f"bounds={value!r}, rules={rules!r}"
        add(call, explain(bounds=value, rules=rules), RuleError, f"bounds=(low, high): {told}")
    for value in ((None, None), (0, None), 5, (), (1, 2, 3), False, "01", b"01", THING):
        told = f"bounds={value!r}: give a pair, bounds=(low, high)."
        add(f"bounds={value!r}, rules={rules!r}", explain(bounds=value, rules=rules), InputError, told)
for text in ("Gamma(" + "-" * 5000 + "1)", "Gamma(" + "1+" * 3000 + "1)", "Gamma(" * 2000):
    add(f"the rule {text[:12]}...", lambda text=text: rule_from_text(text), RuleError, "is no rule: it has")
for text in ("Gamma(" + "-" * 900 + "1)", "Gamma(__import__('os'))", "Gamma(open('x'))", "Gamma(lambda: 1)"):
    add(f"the rule {text[:30]}", lambda text=text: rule_from_text(text), RuleError, text[:20])
for text in ("", "1", "()", "Gamma(", "Gamma.x()", "a b", "Gamma(0.25) or 1", "[Gamma()]"):
    add(f"the rule {text!r}", lambda text=text: rule_from_text(text), RuleError, "is no rule")


@pytest.mark.parametrize(("function", "error", "told"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_wrong_argument_is_told(
    function: Callable[[], object], error: type[RelpropError], told: str
) -> None:
    with pytest.raises(error) as raised:
        function()
    assert told in str(raised.value)


def test_the_table_is_long() -> None:
    assert len(CASES) >= 200


# What the messages advise


def test_what_the_messages_advise_works() -> None:
    assert Composite([("*", Flat())]).entries
    for low, high in ((0, 1), ([0, 0, 0], [1, 1, 1]), (torch.zeros(3, 8, 8), torch.ones(3, 8, 8))):
        ZBox(low, high)
    explain(conditions={"0": lambda R: R > 0})()
    explain(conditions={"0": torch.full((), 0.5)})()
    explain(record="0", start="3")()
    EXPLANATION.ledger.table(above=1e-6)
    EXPLANATION.ledger.table(torch.tensor(1).numpy()[()])


def test_a_recorded_path_may_have_letters_of_globs() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"[x]*": nn.Linear(192, 3)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.parts["[x]*"](x.flatten(1))

    found = relprop.explain(Named().eval(), X, target=0, rules=Epsilon(), record="parts.[x]*")
    assert list(found.inner) == ["parts.[x]*"]


# Files of rules


HOSTILE_RULES = {
    "deep.toml": ("a=" + "[" * 5000 + "]" * 5000, "its lists are too deep within each other."),
    "deep.json": ("[" * 100_000, "its lists are too deep within each other."),
    "long.json": ("[" + "1," * 600_000 + "1]", "more than the 1,000,000 that are read."),
    "big.toml": (
        '[[rules]]\nrule="Gamma"\ngamma=' + "9" * 4000,
        "gamma must be a finite number, 0 or larger.",
    ),
    "big.json": (
        '{"rules":[{"rule":"Gamma","gamma":' + "9" * 4000 + "}]}",
        "gamma must be a finite number, 0 or larger.",
    ),
    "huge.json": ('{"rules":[{"rule":"Gamma","gamma":' + "9" * 9000 + "}]}", "is no JSON file"),
    "nan.json": ('{"rules":[{"rule":"Gamma","gamma":NaN}]}', "gamma must be a finite number, 0 or larger."),
    "true.toml": ('[[rules]]\nrule="Gamma"\ngamma=true', "gamma must be a finite number, 0 or larger."),
    "date.toml": ('[[rules]]\nrule="Gamma"\ngamma=2020-01-01', "gamma must be a finite number, 0 or larger."),
    "text.json": ('"Gamma"', "write a list of [[rules]]"),
    "null.json": ("null", "write a list of [[rules]]"),
    "empty.toml": ("", "has no rules. Add [[rules]]"),
    "entries.json": ('{"rules":[null, 1, "a"]}', "has no rule: add rule ="),
    "rule.json": ('{"rules":[{"rule":{"a":1}}]}', "has no rule: add rule ="),
    "code.toml": ("[[rules]]\nrule=\"Gamma(__import__('os').getcwd())\"", "give plain numbers and words"),
    "start.json": ('{"start":[1],"rules":[{"rule":"Epsilon"}]}', "start"),
    "preset.json": ('{"preset":["epsilon"]}', "give a preset's name."),
    "layer.json": ('{"rules":[{"rule":"Epsilon","layer":"functional"}]}', "is no class of torch.nn"),
    "kind.json": ('{"rules":[{"rule":"Epsilon","kind":["dense"]}]}', "kind"),
    "depth.json": ('{"rules":[{"rule":"Epsilon","depth":[5,1]}]}', "Depth(5, 1): give the smallest number"),
    "box.json": ('{"rules":[{"rule":"ZBox","low":{},"high":1}]}', "ZBox(low={}): give a number"),
}


@pytest.mark.parametrize("name", HOSTILE_RULES)
def test_a_hostile_file_of_rules_is_told(name: str, tmp_path: Path) -> None:
    content, told = HOSTILE_RULES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(RelpropError) as raised:
        read_rules(tmp_path / name)
    assert told in str(raised.value)


# Files of weights


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda t: t.to_sparse(), "0.weight is sparse_coo. Store dense tensors with their values"),
        (lambda t: t.to("meta"), "0.weight is without values, on the device meta."),
        (lambda t: t.to(torch.int32), "should be torch.float32"),
        (lambda t: t * float("nan"), "contains values that are not finite"),
    ],
)
def test_weights_without_plain_values_are_told(
    made: Callable[[torch.Tensor], torch.Tensor], told: str, tmp_path: Path
) -> None:
    torch.save({name: made(t) for name, t in MODEL.state_dict().items()}, tmp_path / "weights.pt")
    with pytest.raises(FileError) as raised:
        load_checkpoint(nn.Sequential(*MODEL), tmp_path / "weights.pt")
    assert told in str(raised.value)


def test_sparse_weights_are_read_once_they_are_stored_as_the_message_says(tmp_path: Path) -> None:
    sparse = {name: t.to_sparse() for name, t in MODEL.state_dict().items()}
    torch.save({name: t.to_dense() for name, t in sparse.items()}, tmp_path / "weights.pt")
    load_checkpoint(nn.Sequential(*MODEL), tmp_path / "weights.pt")


# Files of explanations


VALUES = [None, -1, 10**30, True, "x", [], {}, {"tensor": "score"}, {"list": [1]}, {"float": "nan"}, {"a": 1}]


def mutated(book: Any, generator: random.Random) -> None:
    """Replace one value anywhere in nested lists and objects by another one."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(book["fields"])
    where, key = generator.choice(places)
    where[key] = generator.choice(VALUES)


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_explanation_is_refused_or_prints(seed: int, tmp_path: Path) -> None:
    EXPLANATION.save(tmp_path / "e.safetensors")
    raw = (tmp_path / "e.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    book = json.loads(header["__metadata__"]["explanation"])
    mutated(book, random.Random(seed))
    header["__metadata__"]["explanation"] = json.dumps(book)
    written = json.dumps(header).encode()
    (tmp_path / "e.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])
    found, told = None, ""
    try:
        found = relprop.load_explanation(tmp_path / "e.safetensors")
    except FileError as error:
        told = str(error)
    if found is None:
        assert "Save the explanation again, with explanation.save." in told
        return
    for use in (repr, lambda e: str(e.ledger), lambda e: e.described(), lambda e: [str(r) for r in e.rules]):
        assert use(found)
