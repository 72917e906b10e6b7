"""Merging the tokens of a text into words, sentences or turns of a chat, and summing their relevance."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import index
from typing import Any, TypeVar

import torch

from relprop.errors import InputError
from relprop.text.answers import TokenRelevance
from relprop.text.tokens import Token, merged

Explained = TypeVar("Explained", bound=TokenRelevance)


def word_places(explanation: TokenRelevance) -> list[int]:
    """Return the number of its word for each token.

    Raises:
        InputError: tokens are merged into something larger.
    """
    _require_finer(explanation, "word", ("sentence", "turn"))
    pieces = explanation.pieces
    return numbered(
        number == 0 or piece.word != pieces[number - 1].word for number, piece in enumerate(pieces)
    )


def sentence_places(explanation: TokenRelevance) -> list[int]:
    """Return the number of its sentence for each token. Special tokens are alone.

    Raises:
        InputError: tokens are merged into something larger.
    """
    _require_finer(explanation, "sentence", ("turn",))
    return _places_by_text(explanation.pieces, _sentence_starts, special_alone=True)


def _require_finer(explanation: TokenRelevance, unit: str, larger: Sequence[str]) -> None:
    if explanation.unit in larger:
        raise InputError(
            f"explanation.{unit}s(): tokens are merged into {explanation.unit}s already, which are larger. "
            f"Take {unit}s of the explanation of tokens, as explain_text returns it."
        )


def turn_places(explanation: TokenRelevance) -> list[int]:
    """Return the number of its turn of a chat for each token.

    Raises:
        InputError: there is no sign of a turn.
    """
    places = _places_by_text(explanation.pieces, _turn_starts, special_alone=False)
    if not _turn_starts("".join(piece.text for piece in explanation.pieces)):
        raise InputError(
            "explanation.turns(): no turn of a chat was found, by special tokens such as <|im_start|> or "
            "[INST], or by lines that begin with a role, such as User: or Assistant:. Explain the text that "
            "tokenizer.apply_chat_template(..., tokenize=False) gives, or merge tokens by "
            "explanation.merge(spans)."
        )
    return places


def span_places(spans: Any, count: int) -> list[int]:
    """Return the number of its span for each of so many tokens. Tokens between spans stay by themselves.

    Args:
        spans: pairs (start, end) of numbers of tokens, in their order.
        count: the number of tokens.

    Raises:
        InputError: they are no such pairs, overlap, or are beyond the text.
    """
    starts = [True] * count
    last = 0
    try:
        pairs = [(index(start), index(end)) for start, end in spans]
    except (TypeError, ValueError):
        raise InputError(
            f"explanation.merge({spans!r}): give pairs of numbers of tokens, [(start, end), ...]."
        ) from None
    for start, end in pairs:
        if not last <= start < end <= count:
            raise InputError(
                f"explanation.merge: the span {(start, end)} is no part of {count} tokens, or begins before "
                "the end of the one before it. Give spans in their order, 0 <= start < end."
            )
        starts[start + 1 : end] = [False] * (end - start - 1)
        if end < count:
            starts[end] = True
        last = end
    return numbered(starts)


def numbered(starts: Iterable[bool]) -> list[int]:
    """Return the number of its group for each token, by whether a group starts there."""
    places: list[int] = []
    for first in starts:
        places.append(places[-1] + first if places else 0)
    return places


def merge(explanation: Explained, places: Sequence[int], unit: str) -> Explained:
    """Return the explanation with tokens merged, and their relevance summed.

    Generated tokens are not merged, since each has an answer of its own. A group ends with the prompt.

    Args:
        explanation: the explanation.
        places: the number of its group for each token, from 0, never falling.
        unit: what a group is, such as "word".
    """
    pieces, prompt = explanation.pieces, explanation.prompt
    apart = prompt if explanation.relevance.dim() == 2 else len(pieces)
    places = numbered(
        place != places[number - 1] or number == prompt or number >= apart
        for number, place in enumerate(places)
    )
    grouped: list[list[Token]] = [[] for _ in range(places[-1] + 1)]
    for place, piece in zip(places, pieces, strict=True):
        grouped[place].append(piece)
    R = explanation.relevance
    summed = torch.zeros(*R.shape[:-1], len(grouped), dtype=R.dtype, device=R.device)
    summed = summed.index_add(-1, torch.tensor(places, device=R.device), R)
    answers = [
        replace(answer, place=None if answer.place is None else places[answer.place])
        for answer in explanation.answers
    ]
    joined = tuple(_joined(group) for group in grouped)
    return replace(
        explanation,
        pieces=joined,
        prompt=places[prompt] if prompt < len(places) else len(grouped),
        relevance=summed,
        answers=tuple(answers),
        unit=unit,
    )


def _joined(group: Sequence[Token]) -> Token:
    """Join the tokens of a group. A special token among others does not make all of them special."""
    return replace(merged(group), special=all(token.special for token in group))


def _places_by_text(pieces: Sequence[Token], starts_of: Any, *, special_alone: bool) -> list[int]:
    """Return the number of its group for each token.

    A group starts with the token in which the first letter of the group is. White space before it belongs to
    the token. So it is the first letter that is no white space, at or after the start, which decides.

    Args:
        pieces: the tokens.
        starts_of: the places in a text where groups start.
        special_alone: whether each special token is a group, and does not belong to the text.
    """
    # Special tokens end a sentence, as a line break does.
    texts = ["\n" if special_alone and piece.special else piece.text for piece in pieces]
    text = "".join(texts)
    starts = set()
    for start in starts_of(text):
        rest = text[start:]
        starts.add(start + len(rest) - len(rest.lstrip()))
    found, end = [], 0
    for number, (piece, own) in enumerate(zip(pieces, texts, strict=True)):
        begin, end = end, end + len(own)
        alone = special_alone and (piece.special or (number > 0 and pieces[number - 1].special))
        found.append(alone or any(begin <= start < end for start in starts))
    return numbered(found)


_ABBREVIATED = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Fig|Figs|Eq|Eqs|Sec|vs|cf|al|etc|approx|e\.g|i\.e|z\.B|d\.h)\.)$"
)
"""What ends with a full stop and is no end of a sentence."""

_NUMBER = re.compile(r"\bNo\.$")
"""What is none before a number."""

_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）”]*|\n+)")
"""The end of a sentence, if what follows does not tell otherwise."""


def _sentence_starts(text: str) -> list[int]:
    starts = []
    for found in _END.finditer(text):
        following = text[found.end() :].lstrip()[:1]
        stop = found[0].rstrip("\"'”’»)]")
        before = text[: found.start() + 1]
        short = _ABBREVIATED.search(before) or (_NUMBER.search(before) and following.isdigit())
        if (stop == "." and short) or (set(stop) <= set(".…") and following.islower()):
            continue
        starts.append(found.end())
    return starts


_ROLES = "system|user|human|assistant|model|tool|developer|ai|bot"

_TURN = re.compile(
    "|".join(
        [
            r"<\|im_start\|>",
            r"<\|start_header_id\|>",
            r"<\|header_start\|>",
            r"<\|start_of_role\|>",
            r"<\|START_OF_TURN_TOKEN\|>",
            r"<start_of_turn>",
            r"<\|start\|>",
            r"<\|turn>",
            rf"<[|｜](?:{_ROLES})[|｜]>",
            r"\[INST\]",
            r"(?<=\[/INST\])",
            rf"^[ \t]*(?:{_ROLES})[ \t]*:",
        ]
    ),
    re.IGNORECASE | re.MULTILINE,
)
"""What begins a turn in the templates of chats, or in a text with the names of roles."""


def _turn_starts(text: str) -> list[int]:
    return [found.start() for found in _TURN.finditer(text)]
