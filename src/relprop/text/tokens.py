"""Splitting text into tokens, decoding tokens to text, and finding the tokens of a word."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from relprop.errors import InputError
from relprop.models.language import LanguageModel
from relprop.text.token_names import (
    byte_of_letter,
    is_part,
    is_space,
    joined,
    names_bytes,
    text_of_bytes,
    text_of_name,
)


@dataclass(frozen=True)
class Token:
    """A token, or a word of several tokens.

    Attributes:
        text: its text, with the white space before it; for a special token its name, for a part of a
            character its bytes, such as "<0xF0>".
        id: its number in the vocabulary, or None for a word of several tokens.
        word: number of the word that it is part of.
        special: whether it is not part of the text, such as "[CLS]".
        span: number of its first character in the text and of the character after its last one, or None.
            For tokenizers without offsets, number of the token and of the next one.
    """

    text: str
    id: int | None
    word: int
    special: bool = False
    span: tuple[int, int] | None = None


def tokens_of(model: LanguageModel, text: str, what: str = "the text") -> list[Token]:
    """Split a text into tokens, with the special tokens of the model.

    Args:
        model: the model.
        text: the text.
        what: name of the text, for errors.

    Raises:
        InputError: the text is empty, is not a str, is not valid Unicode, or is longer than the model can
            read; or the tokenizer is not that of the model.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is {type(text).__name__}: give a str.")
    if not text:
        raise InputError(f"{what} is empty: there is nothing to explain. Give some text.")
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
            f"model has only {rows} tokens. Give the tokenizer that it was trained with."
        )
    return found


def require_positions(model: LanguageModel, count: int, what: str) -> None:
    """Check that a model can read this number of tokens. `what` is the name of the text, for errors.

    Raises:
        InputError: the model has fewer positions.
    """
    if model.positions is not None and count > model.positions:
        raise InputError(
            f"{what} has {count} tokens, but {model.name} has {model.positions} positions. Shorten it by "
            f"{count - model.positions} or more."
        )


def vocabulary_size(model: LanguageModel) -> int:
    """Return the number of tokens in a model's vocabulary."""
    module: Any = model.module
    if hasattr(module, "get_input_embeddings"):
        return int(module.get_input_embeddings().num_embeddings)
    # In a module of the user's own, the tokens usually have the largest embedding.
    sizes = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    return max(sizes, default=len(model.tokenizer))


def following(model: LanguageModel, before: str, text: str) -> list[Token]:
    """Split a text that follows another one into tokens, as in the whole of both.

    If a token would have the end of the one and the beginning of the other, the text is split alone.

    Raises:
        InputError: the text has no tokens.
    """
    first = _ids(model.tokenizer, before)
    both = _ids(model.tokenizer, before + text)
    if both[: len(first)] == first and len(both) > len(first):
        return decoded(model, both[len(first) :], first)
    # A token has the end of the one and the beginning of the other.
    alone = _ids(model.tokenizer, text)
    if not alone:
        raise InputError(f"{text!r} has no tokens for {model.name}: give some words.")
    return decoded(model, alone, first)


def decoded(model: LanguageModel, ids: Sequence[int], before: Sequence[int] = ()) -> list[Token]:
    """Return the tokens of ids that follow other ids. Each has the text that its id adds."""
    return _decoded(model.tokenizer, ids, before)


def _decoded(tokenizer: Any, ids: Sequence[int], before: Sequence[int] = ()) -> list[Token]:
    special, added = _special_ids(tokenizer), getattr(tokenizer, "added_tokens_decoder", {})
    of_bytes = names_bytes(tokenizer)
    found: list[Token] = []
    done, within = _text(tokenizer, before), False
    for number, index in enumerate(ids, 1):
        name = tokenizer.convert_ids_to_tokens(index)
        whole = _text(tokenizer, [*before, *ids[:number]])
        more = whole[len(done) :] if whole.startswith(done) else ""
        if index in special or index in added:
            text = name
        elif of_bytes:
            text = text_of_bytes(name)
        elif is_part(name) or is_space(name):
            text = text_of_name(name)
        else:
            text = byte_of_letter(name) if within or not more or "\ufffd" in more else more
        # Bytes of an incomplete character are decoded as U+FFFD, or not at all.
        within = whole == done and not is_space(name)
        found.append(Token(text, index, 0, index in special))
        done = whole
    return _in_words(found, [None] * len(found))


def token_named(model: LanguageModel, word: str, before: str | None, call: str) -> int:
    """Return the id of the token that a user means by its text.

    It is the token of the text alone, or of the text after `before`, or the token with this name in the
    vocabulary.

    Args:
        model: the model.
        word: the text.
        before: the text before it, or None.
        call: name of the argument, for errors.

    Raises:
        InputError: the vocabulary has no such token, or the text is several tokens.
    """
    alone = _ids(model.tokenizer, word)
    found = _only_token(model, word, before)
    if found is not None:
        return found
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    if word in vocabulary:
        return vocabulary[word]
    if not alone or model.tokenizer.unk_token_id in alone:
        raise InputError(f"{call} {word!r} is not a token of {model.name}. Give a word of its vocabulary.")
    spaced = f" {word}"
    if not word[:1].isspace() and _only_token(model, spaced, before) is not None:
        raise InputError(
            f"{call} {word!r} is {len(alone)} tokens of {model.name}; {spaced!r}, with the space, is one "
            f"token. Give that: {call} {spaced!r}."
        )
    whole = alone if before is None else [t.id for t in following(model, before, word) if t.id is not None]
    pieces = [token.text for token in decoded(model, whole, _ids(model.tokenizer, before or ""))]
    told = ", ".join(map(repr, pieces[:12])) + (", ..." if len(pieces) > 12 else "")
    # The model predicts the first piece. If that is only a space, it is not offered.
    offered = [piece for piece in (pieces if before is None else pieces[:1]) if piece.strip()][:1]
    advice = [f"Give one of them, with its white space: {call} {piece!r}." for piece in offered]
    if before is not None:
        explain = "Or explain" if offered else "Explain"
        advice.append(f"{explain} all of them, one after the other: --continuation {word!r}.")
    raise InputError(f"{call} {word!r} is {len(pieces)} tokens of {model.name}: {told}. {' '.join(advice)}")


def _only_token(model: LanguageModel, word: str, before: str | None) -> int | None:
    """Return the token of a text that is one token, alone or after another text; None if it is several."""
    readings = [_ids(model.tokenizer, word)]
    if before is not None and readings[0]:
        readings.append([token.id for token in following(model, before, word) if token.id is not None])
    known = [ids[0] for ids in readings if len(ids) == 1 and ids[0] != model.tokenizer.unk_token_id]
    return known[0] if known else None


def merged(tokens: Sequence[Token]) -> Token:
    """Join the tokens of a word into one, and decode the bytes of its characters."""
    first, *rest = tokens
    if not rest:
        return first
    text = "".join(token.text for token in tokens)
    spans = [token.span for token in tokens if token.span is not None]
    span = (spans[0][0], spans[-1][1]) if spans else None
    return replace(first, text=joined(text), id=None, span=span)


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
    known, of_bytes = _special_ids(tokenizer), names_bytes(tokenizer)
    names, added, spans = (
        tokenizer.convert_ids_to_tokens(told.input_ids),
        told.special_tokens_mask,
        told.offset_mapping,
    )
    found: list[Token] = []
    end = 0
    for number, (index, name, (start, stop)) in enumerate(zip(told.input_ids, names, spans, strict=True)):
        if added[number]:
            found.append(Token(name, index, 0, True))
            continue
        if is_space(name) and text[start:stop] != name:
            # The tokenizer put a space before a text or word. Its offsets are those of the token after it.
            reach = text[end : max(stop, end + len(name))]
            begin, stop = end, end + len(reach) - len(reach.lstrip())
            piece = text[begin:stop] or " " * len(name)
        else:
            # Offsets leave out white space. It belongs to the token after it.
            # Parts of a character all have its offsets. Their text is in their names.
            overlaps = bool(text[start : min(end, stop)].strip()) or _next_start(spans, added, number) < stop
            shared = start < stop and overlaps and index != tokenizer.unk_token_id
            begin = min(start, end) if shared else end
            piece = text[end : max(stop, end)]
            if shared:
                white = piece[: len(piece) - len(piece.lstrip())]
                piece = white + (text_of_bytes(name) if of_bytes else text_of_name(name)).lstrip()
        found.append(Token(piece, index, 0, index in known, (begin, max(stop, end))))
        end = max(end, stop)
    return _in_words(_with_rest(found, text, end), told.word_ids())


def _next_start(spans: Sequence[tuple[int, int]], added: Sequence[int], number: int) -> int:
    following = number + 1
    known = following < len(spans) and not added[following]
    return spans[following][0] if known else spans[number][1]


def _with_rest(tokens: list[Token], text: str, end: int) -> list[Token]:
    """Add white space at the end of the text to the last token that is part of the text."""
    for number in range(len(tokens) - 1, -1, -1):
        token = tokens[number]
        if token.span is not None:
            longer = replace(token, text=token.text + text[end:], span=(token.span[0], len(text)))
            return [*tokens[:number], longer, *tokens[number + 1 :]]
    return tokens


def _without_offsets(tokenizer: Any, text: str) -> list[Token]:
    """Split a text by a tokenizer without offsets. Spans are then numbers of tokens."""
    found = _decoded(tokenizer, tokenizer(text, padding=False, truncation=False).input_ids)
    return [token if token.special else replace(token, span=(i, i + 1)) for i, token in enumerate(found)]


def _in_words(tokens: list[Token], told: Sequence[int | None]) -> list[Token]:
    """Number the words. A word begins at white space, and where a word of the tokenizer begins."""
    numbered: list[Token] = []
    word = -1
    for number, token in enumerate(tokens):
        word += number == 0 or _begins_word(tokens[number - 1], token, told[number] != told[number - 1])
        numbered.append(replace(token, word=word))
    return numbered


def _begins_word(before: Token, token: Token, told: bool) -> bool:
    if before.special or token.special:
        return True
    if before.span is not None and token.span is not None and token.span[0] < before.span[1]:
        return False  # parts of a character
    if before.text and not before.text.strip(" "):
        return False  # spaces that are a token of their own
    return told or token.text[:1].isspace() or before.text[-1:].isspace()


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
    # The unknown token is not special here, since it is part of the text.
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
