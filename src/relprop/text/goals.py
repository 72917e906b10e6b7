"""Targets of language models from the labels, tokens and positions that users name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relprop.errors import InputError, did_you_mean, quoted
from relprop.models.language import LanguageModel
from relprop.targets.classes import Difference
from relprop.targets.given import TargetLike
from relprop.text.generation import decoder_start
from relprop.text.tokens import Token, decoded, token_named, vocabulary_size

TextTarget = str | TargetLike
"""What to explain: a label or a token by its text, or whatever `relprop.explain` takes."""


@dataclass(frozen=True)
class Goal:
    """The target that a user means, with a description.

    Attributes:
        target: the target, as for `relprop.explain`.
        index: the label or token that it is about, or None for the model's best one.
        words: the description, where "{}" stands for the label or token.
        plain: whether it is a score of the model itself.
        against: the label or token whose score is subtracted, or None.
    """

    target: TargetLike
    index: int | None
    words: str = "{}"
    plain: bool = True
    against: int | None = None

    def require_two(self, model: LanguageModel, index: int) -> None:
        """Refuse to explain a label or token against itself.

        Args:
            model: the model.
            index: the label or token that the user names, or that has the model's highest score.

        Raises:
            InputError: it is the label or token whose score is subtracted.
        """
        if index != self.against:
            return
        told = named(model, index)
        if self.index is None:
            raise InputError(
                f"against {told}: that is the answer of {model.name} itself. Give a target to compare with."
            )
        raise InputError(f"target and against are both {told}: there is no difference. Give two.")


def goal_of(model: LanguageModel, target: TextTarget, against: str | int | None, before: str | None) -> Goal:
    """Return the target that a user means by target and against.

    Args:
        model: the model that has the labels or tokens.
        target: see `explain_text`.
        against: see `explain_text`.
        before: the text before the token, or None.

    Raises:
        InputError: the model has no such label or token.
    """
    if isinstance(target, str) or (isinstance(target, int) and not isinstance(target, bool)):
        index = _index(model, target, before, "target")
    elif target is None:
        index = None
    elif against is not None:
        raise InputError(
            f"target={target!r} and against={against!r}: with against, give one label or token as target."
        )
    else:
        return Goal(target, getattr(target, "index", None), _told(target), plain=False)
    if against is None:
        return Goal(index, index)
    other = _index(model, against, before, "against")
    words = f"{{}} and not {_escaped(named(model, other))}"
    if index is not None:
        Goal(None, index, against=other).require_two(model, index)
    return Goal(Difference(index, other), index, words, plain=False, against=other)


def _index(model: LanguageModel, named: str | int, before: str | None, call: str) -> int:
    """Return the number of a label or token that is given by its text or number.

    Raises:
        InputError: the model has no such label or token.
    """
    labels = model.labels
    count = len(labels) if labels is not None else vocabulary_size(model)
    if isinstance(named, str) and labels is None:
        return token_named(model, named, before, call)
    if isinstance(named, str) and labels is not None:
        wanted = named.strip().casefold()
        same = [named] if named in labels else [label for label in labels if label.casefold() == wanted]
        if len(same) == 1:
            return labels.index(same[0])
        if not wanted.isdecimal():
            hint = did_you_mean(named, labels)
            few = ", ".join(map(repr, labels[:12])) + (", ..." if count > 12 else "")
            raise InputError(f"{call} {named!r}: {model.name} has no such label.{hint} There are: {few}.")
        named = int(wanted)
    if not 0 <= int(named) < count:
        what = "labels" if labels is not None else "tokens"
        raise InputError(f"{call} {named}: the {what} of {model.name} are numbered 0 to {count - 1}.")
    return int(named)


def named(model: LanguageModel, index: int) -> str:
    """Return the name of a label, or a token in quotation marks, which show its white space."""
    return model.labels[index] if model.labels is not None else quoted(decoded(model, [index])[0].text)


def _escaped(words: str) -> str:
    return words.replace("{", "{{").replace("}", "}}")


def _told(target: Any) -> str:
    """Return the description of a target that is not one of the model's labels or tokens."""
    name = type(target).__name__ if hasattr(target, "index") else ""
    return f"{name} of {{}}" if name else _escaped(getattr(target, "__name__", repr(target)))


def position_of(model: LanguageModel, tokens: Sequence[Token], at: int | None) -> int | None:
    """Return the number of the token whose output is explained, from 0; None for the whole text.

    Raises:
        InputError: the position is out of range, is needed and missing, or the model classifies whole texts.
    """
    if model.task == "classification":
        if at is not None:
            raise InputError(f"at={at}: {model.name} classifies the whole text. Leave it out.")
        return None
    if at is None and model.task in ("causal", "seq2seq"):
        return len(tokens) - 1
    if at is None and model.task == "masked":
        mask = model.tokenizer.mask_token
        found = [number for number, token in enumerate(tokens) if token.id == model.tokenizer.mask_token_id]
        if len(found) == 1:
            return found[0]
        there = f"{len(found)} {mask}, at {', '.join(map(str, found))}" if found else f"no {mask}"
        raise InputError(
            f"the text has {there}. Write {mask} once, in the place of the word to explain, or give the "
            "number of a token by at (--at)."
        )
    if at is None:
        raise InputError(
            f"{model.name} has labels for each token. Give the number of the token to explain by at (--at)."
        )
    if not -len(tokens) <= at < len(tokens):
        raise InputError(
            f"at {at} is out of range: there are {len(tokens)} tokens, 0 to {len(tokens) - 1}, or -1 for the "
            "last one."
        )
    return at % len(tokens)


def start_of_decoder(model: LanguageModel) -> list[Token]:
    """Return the token with which a decoder's answer begins, as a list; [] for models without an encoder."""
    if model.task != "seq2seq":
        return []
    start = decoder_start(model.module)
    assert start is not None, "a model for this task has a decoder"
    return [Token(model.tokenizer.convert_ids_to_tokens(start), start, 0, True)]
