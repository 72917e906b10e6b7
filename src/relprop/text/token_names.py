"""The text of a token from its name in the vocabulary: bytes, white space, and pieces of words."""

import re
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte as vocabularies with byte fallback name it. relprop writes all bytes like this."""

_BYTES = re.compile(f"(?:{_BYTE.pattern})+")

_SPACE = "▁"
"""The sign of SentencePiece for a space. SentencePiece puts a space before every text."""


def names_bytes(tokenizer: Any) -> bool:
    """Whether each letter of a name stands for a byte, as in GPT-2's vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return bool(getattr(tokenizer, "byte_decoder", None))
    newline: str = backend.decoder.decode(["Ċ"])
    return newline == "\n"


def text_of_bytes(name: str) -> str:
    """Return the text of a name whose letters are bytes. Bytes of incomplete characters become "<0xF0>"."""
    known = _bytes_of_letters()
    if any(letter not in known for letter in name):
        return name  # a token that was added to the vocabulary by its text
    return _decoded(bytes(known[letter] for letter in name))


def text_of_name(name: str) -> str:
    """Return the text of a name in other vocabularies. A byte that is no whole character stays "<0xF0>"."""
    if byte := _BYTE.fullmatch(name):
        return _decoded(bytes([int(byte[1], 16)]))
    return name.replace(_SPACE, " ").removeprefix("##")


def byte_of_letter(name: str) -> str:
    """Return the text of a name, with "<0xF0>" for a single letter from U+0080 to U+00FF, which is a byte."""
    return f"<0x{ord(name):02X}>" if len(name) == 1 and "\x80" <= name <= "\xff" else text_of_name(name)


def is_part(name: str) -> bool:
    """Whether a name is that of a byte that is not a whole character."""
    byte = _BYTE.fullmatch(name)
    return byte is not None and int(byte[1], 16) >= 0x80


def is_space(name: str) -> bool:
    """Whether a name is that of a token of spaces only."""
    return bool(name) and (set(name) == {_SPACE} or set(name) == {"Ġ"})


def joined(text: str) -> str:
    """Decode bytes that are written as "<0xF0><0x9F>...". Bytes of incomplete characters stay as they are."""
    return _BYTES.sub(lambda found: _decoded(bytes.fromhex(re.sub("<0x|>", "", found[0]))), text)


def _decoded(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda lone: f"<0x{ord(lone[0]) - 0xDC00:02X}>", text)


@cache
def _bytes_of_letters() -> dict[str, int]:
    """Return the byte of each letter in byte-level vocabularies.

    A byte that is a printable character has this character. The other bytes have the characters from 256 on.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters = set(ByteLevel.alphabet())
    hidden = [byte for byte in range(256) if chr(byte) not in letters]
    return {chr(byte): byte for byte in range(256) if chr(byte) in letters} | {
        chr(256 + number): byte for number, byte in enumerate(hidden)
    }
