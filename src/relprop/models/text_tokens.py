"""Text as tokens, and tokens as text: which characters each one stands for, and which belong to one word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from relprop.errors import InputError
from relprop.models.language import LanguageModel

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

"""How vocabularies that fall back on bytes name them."""

_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


@dataclass(frozen=True)
class Token:
    """A token, or a word of several.

    Attributes:
        text: what it stands for, with the white space before it; of a special token its name, and of one that
            is not a whole character its bytes, as "<0xF0>".
        id: in the vocabulary, or None of a word.
        word: number of the word that it is part of.
        special: whether it is none of the text, such as "[CLS]".
        span: first and last + 1 of its characters in the text, or None.
    """

    text: str
    id: int | None
    word: int
    special: bool = False
    span: tuple[int, int] | None = None


def tokens_of(model: LanguageModel, text: str, what: str = "the text") -> list[Token]:
    """Split a text into tokens, the special ones of the model included.

    Raises:
        InputError: the text is empty, no text, or longer than the model can read.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is {type(text).__name__}: give a str.")
    if not text:
        raise InputError(f"{what} is empty: there is nothing to explain. Give some.")
    _require_unicode(text, what)
    found = _encoded(model.tokenizer, text)
    if all(token.special and token.span is None for token in found):
        raise InputError(f"{what} {text!r} has no tokens for {model.name}: give some words.")
    require_positions(model, len(found), what)
    rows = vocabulary_size(model)
    beyond = [token for token in found if token.id is not None and token.id >= rows]
    if beyond:
        raise InputError(
            f"the tokenizer of {model.name} gives {beyond[0].text!r} the number {beyond[0].id}, but the "
            f"model knows {rows} tokens only. Give the tokenizer that it was trained with."
        )
    return found


def require_positions(model: LanguageModel, count: int, what: str) -> None:
    """Require that a model can read so many tokens.

    Raises:
        InputError: it cannot.
    """
    if model.positions is not None and count > model.positions:
        raise InputError(
            f"{what} has {count} tokens, but {model.name} has {model.positions} positions. Shorten it by "
            f"{count - model.positions} or more."
        )


def vocabulary_size(model: LanguageModel) -> int:
    """How many tokens a model knows."""
    module: Any = model.module
    return int(module.get_input_embeddings().num_embeddings)


def following(model: LanguageModel, before: str, text: str) -> list[Token]:
    """Split a text that follows another one into tokens, as they are where both are one.

    Raises:
        InputError: it has no tokens.
    """
    first = _ids(model.tokenizer, before)
    both = _ids(model.tokenizer, before + text)
    if both[: len(first)] == first and len(both) > len(first):
        return decoded(model, both[len(first) :], first)
    # The end of the one and the start of the other make a token together.
    alone = _ids(model.tokenizer, text)
    if not alone:
        raise InputError(f"{text!r} has no tokens for {model.name}: give some words.")
    return decoded(model, alone, first)


def decoded(model: LanguageModel, ids: Sequence[int], before: Sequence[int] = ()) -> list[Token]:
    """Make tokens of ids that follow others: what each adds to the text."""
    return _decoded(model.tokenizer, ids, before)


def _decoded(tokenizer: Any, ids: Sequence[int], before: Sequence[int] = ()) -> list[Token]:
    special = _special_ids(tokenizer)
    found: list[Token] = []
    done, within = _text(tokenizer, before), False
    for number, index in enumerate(ids, 1):
        whole = _text(tokenizer, [*before, *ids[:number]])
        added = whole[len(done) :] if whole.startswith(done) else ""
        name = tokenizer.convert_ids_to_tokens(index)
        # Bytes of a character that is not complete are decoded as U+FFFD, or not at all.
        part = within or not added or "\ufffd" in whole[len(done) - 1 :]
        within = whole == done and whole[-1:] != "\ufffd" and not _is_space(name)
        text = name if index in special else part_of_a_character(name) if part else added
        found.append(Token(text, index, 0, index in special))
        done = whole
    return _in_words(found, [None] * len(found))


def token_named(model: LanguageModel, word: str, before: str | None, call: str) -> int:
    """Find the token that a user means by its text: by itself, or as it follows `before`, or by its name.

    Raises:
        InputError: there is none, or the text is several tokens.
    """
    unknown = model.tokenizer.unk_token_id
    alone = _ids(model.tokenizer, word)
    readings = [alone]
    if before is not None and alone:
        readings.append([token.id for token in following(model, before, word) if token.id is not None])
    for ids in readings:
        if len(ids) == 1 and ids[0] != unknown:
            return ids[0]
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    if word in vocabulary:
        return vocabulary[word]
    if not alone or unknown in alone:
        raise InputError(f"{call} {word!r} is no token of {model.name}. Give a word of its vocabulary.")
    pieces = [repr(token.text) for token in decoded(model, readings[-1], _ids(model.tokenizer, before or ""))]
    raise InputError(
        f"{call} {word!r} is {len(pieces)} tokens of {model.name}: {', '.join(pieces[:12])}"
        f"{', ...' if len(pieces) > 12 else ''}. Give one of them, with its white space: {call} {pieces[0]}."
        + (f" Or explain all of them, one after the other: --continuation {word!r}." if before else "")
    )


def part_of_a_character(name: str) -> str:
    """Name a token that is no whole character by its bytes, as "<0xF0>", given its name in the vocabulary."""
    known = _bytes_of_letters()
    if _is_space(name):
        return " " * len(name)
    if not _BYTE.fullmatch(name) and all(letter in known for letter in name):
        return "".join(f"<0x{known[letter]:02X}>" for letter in name)
    return name


def _is_space(name: str) -> bool:
    """Whether a token is nothing but spaces, of which some vocabularies put one before every text."""
    return set(name) == {"▁"}


def merged(tokens: Sequence[Token]) -> Token:
    """Join the tokens of a word into one, and bytes to the characters that they are."""
    first, *rest = tokens
    if not rest:
        return first
    text = "".join(token.text for token in tokens)
    spans = [token.span for token in tokens if token.span is not None]
    span = (spans[0][0], spans[-1][1]) if spans else None
    return replace(first, text=_BYTES.sub(_characters, text), id=None, span=span)


def _characters(found: re.Match[str]) -> str:
    """Decode bytes that are written as "<0xF0><0x9F>..."; those that are none stay as they are."""
    return bytes.fromhex(re.sub("<0x|>", "", found[0])).decode("utf-8", "backslashreplace")


def _require_unicode(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid Unicode: {error.reason}. Give it in UTF-8.") from error


def _encoded(tokenizer: Any, text: str) -> list[Token]:
    if not tokenizer.is_fast:
        return _without_offsets(tokenizer, text)
    told = tokenizer(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        padding=False,
        truncation=False,
        verbose=False,
    )
    names, known = tokenizer.convert_ids_to_tokens(told.input_ids), _special_ids(tokenizer)
    added = told.special_tokens_mask
    spans = told.offset_mapping
    found: list[Token] = []
    end = 0
    for number, (index, (start, stop)) in enumerate(zip(told.input_ids, spans, strict=True)):
        if added[number]:
            found.append(Token(names[number], index, 0, True))
            continue
        # Offsets leave out white space, which belongs to the token after it. Parts of a character share it.
        shared = start < stop and (start < end or _next_start(spans, added, number) < stop)
        begin = min(start, end) if shared else end
        piece = part_of_a_character(names[number]) if shared else text[end : max(stop, end)]
        if shared and end < start:
            piece = text[end:start] + piece
        found.append(Token(piece, index, 0, index in known, (begin, max(stop, end))))
        end = max(end, stop)
    return _in_words(_with_rest(found, text, end), told.word_ids())


def _next_start(spans: Sequence[tuple[int, int]], added: Sequence[int], number: int) -> int:
    following = number + 1
    known = following < len(spans) and not added[following]
    return spans[following][0] if known else spans[number][1]


def _with_rest(tokens: list[Token], text: str, end: int) -> list[Token]:
    """Add white space at the end of a text to the last token that is of the text."""
    for number in range(len(tokens) - 1, -1, -1):
        token = tokens[number]
        if token.span is not None:
            longer = replace(token, text=token.text + text[end:], span=(token.span[0], len(text)))
            return [*tokens[:number], longer, *tokens[number + 1 :]]
    return tokens


def _without_offsets(tokenizer: Any, text: str) -> list[Token]:
    """Split a text by a tokenizer that does not tell where its tokens are."""
    found = _decoded(tokenizer, tokenizer(text, padding=False, truncation=False).input_ids)
    return [token if token.special else replace(token, span=(i, i + 1)) for i, token in enumerate(found)]


def _in_words(tokens: list[Token], told: Sequence[int | None]) -> list[Token]:
    """Number the words: one begins after white space, and where the tokenizer itself sees another one."""
    numbered: list[Token] = []
    word = -1
    for number, token in enumerate(tokens):
        before = tokens[number - 1] if number else None
        begins = (
            before is None
            or token.special
            or before.special
            or token.text[:1].isspace()
            or before.text[-1:].isspace()
            or (told[number] != told[number - 1])
        )
        shares = before is not None and token.span is not None and before.span is not None
        if shares and before is not None and token.span is not None and before.span is not None:
            begins = begins and token.span[0] >= before.span[1]
        word += begins
        numbered.append(replace(token, word=word))
    return numbered


def _ids(tokenizer: Any, text: str) -> list[int]:
    _require_unicode(text, repr(text))
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, padding=False, truncation=False, verbose=False
    ).input_ids
    return ids


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _special_ids(tokenizer: Any) -> set[int]:
    # What is unknown stands for a part of the text.
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


@cache
def _bytes_of_letters() -> dict[str, int]:
    """The letters that stand for bytes in byte-level vocabularies.

    Printable ones stand for themselves; the others are numbered from 256 on.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters = set(ByteLevel.alphabet())
    hidden = [byte for byte in range(256) if chr(byte) not in letters]
    return {chr(byte): byte for byte in range(256)} | {
        chr(256 + number): byte for number, byte in enumerate(hidden)
    }
