"""From what a user gives for `rules` to the composite, or baseline, of a run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from relprop.calls.site import every_module
from relprop.errors import RuleError
from relprop.rules.bounds import Bounds, checked_bounds
from relprop.rules.composite import Composite, PlaceLike, lacks_of
from relprop.rules.elsewhere import told_of
from relprop.rules.files import is_rule_file, read_rules, rule_from_text
from relprop.rules.first_layer import ZBox
from relprop.rules.gradients import BASELINES, Baseline
from relprop.rules.other import NonlinearRule
from relprop.rules.presets import DEFAULT, DEFAULT_FOR_TOKENS, DEFAULT_WITHOUT_BOUNDS, PRESETS, preset
from relprop.rules.rule import PrintedRule, Rule

Rules = str | Path | Composite | Baseline | Iterable[tuple[PlaceLike, Rule | NonlinearRule]] | Rule | None
"""A preset's or baseline's name, a rule as text, a TOML or JSON file, a composite or its list of entries, one
rule for everything, or None for the default."""


def resolve(
    rules: Rules, bounds: Bounds | None = None, *, of_tokens: bool = False
) -> tuple[str, Composite | Baseline]:
    """Return the rules' name and the composite, with bounds where it needs them.

    Args:
        rules: what the user gave.
        bounds: likewise.
        of_tokens: whether integers are explained, and nothing else.

    Raises:
        InputError: the bounds are no pair.
        RuleError: there are no such rules, a box rule has no bounds, or the bounds have no meaning.
    """
    if bounds is not None:
        bounds = checked_bounds(bounds)
        try:  # bounds without meaning are an error whether or not the rules need them
            ZBox(*bounds)
        except RuleError as error:
            raise RuleError(f"bounds=(low, high): {error}") from None
    rules = str(rules) if isinstance(rules, Path) else rules
    if rules is None:
        rules = DEFAULT_WITHOUT_BOUNDS if bounds is None else DEFAULT
        rules = DEFAULT_FOR_TOKENS if of_tokens else rules
    name = rules if isinstance(rules, str) else str(rules) if isinstance(rules, Rule) else "composite"
    if isinstance(rules, Baseline):
        return next((known for known, b in BASELINES.items() if b == rules), repr(rules)), rules
    if isinstance(rules, str) and rules in BASELINES:
        return rules, BASELINES[rules]
    composite = _composite(rules)
    if isinstance(rules, Composite):
        name = next((known for known, preset in PRESETS.items() if preset is rules), name)
    if composite.needs_bounds:
        if bounds is None:
            whose = f"rules={name!r} has" if isinstance(rules, str) else "the rules have"
            raise RuleError(
                f"{whose} a box rule, which needs the smallest and largest value of the input: "
                "explain(..., bounds=(low, high))."
            )
        composite = composite.with_bounds(*bounds)
    return name, composite


def may_have_bounds(rules: Rules) -> bool:
    """Whether bounds have an effect on rules, or the rules are a name or a single rule.

    A loop over names or rules gives all of them the same bounds, and only some need them.
    """
    if rules is None or isinstance(rules, (str, Path, Baseline, Rule)):
        return True
    composite = _composite(rules)
    return composite.needs_bounds or any(composite is preset for preset in PRESETS.values())


def require_no_rule_on(model: Any) -> None:
    """Refuse a model of which a module has a rule as its attribute `rule`, which captum looks at.

    Raises:
        RuleError: a module has one.
    """
    left: list[tuple[str, Any]] = []
    if not isinstance(model, nn.Module) or all(
        ["rule" not in module.__dict__ for module in every_module(model)]
    ):
        return
    for path, module in model.named_modules():
        rule = vars(module).get("rule")
        if isinstance(rule, PrintedRule) or told_of(rule):
            left.append((path, rule))
    if left:
        path, rule = left[0]
        own = [f"({path!r}, relprop.rules.{rule})" for path, rule in left if isinstance(rule, PrintedRule)]
        listed = ", ".join([*own, '("*", relprop.rules.Epsilon())'])
        raise RuleError(
            f"the rule of module {path!r}, its attribute `rule`, has no effect: relprop does not look at "
            f"attributes of modules. Delete it, and give rules=[{listed}].{told_of(rule)}"
        )


def _composite(rules: Rules) -> Composite:
    if isinstance(rules, Composite):
        return rules
    if isinstance(rules, str):
        if is_rule_file(rules):
            return read_rules(rules)
        if rules not in PRESETS and (rules.endswith(")") or rules[:1].isupper()):
            return _everywhere(rule_from_text(rules))
        return preset(rules)
    if isinstance(rules, (Rule, NonlinearRule)):
        return _everywhere(rules)
    if isinstance(rules, Iterable) and not isinstance(rules, Mapping):
        return Composite(rules)
    if isinstance(rules, nn.Module):
        raise RuleError(f"rules is a {type(rules).__name__}, a module: give rules there, such as 'epsilon'.")
    if isinstance(rules, Mapping):
        raise RuleError(
            f"rules={rules!r}: the order of a composite matters, so give a list of (where, rule), as in "
            'rules=[*rules.items(), ("*", relprop.rules.Epsilon())].'
        )
    raise RuleError(
        f"rules={rules!r}: give a preset's name, a composite, a list of (where, rule), or a rule."
        + (told_of(rules) or lacks_of(rules))
    )


def _everywhere(rule: Any) -> Composite:
    if isinstance(rule, NonlinearRule):
        raise RuleError(f"{rule} is no rule for linear operations; put it in a composite beside one.")
    return Composite([("*", rule)])
