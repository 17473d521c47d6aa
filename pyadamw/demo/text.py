"""Owns where the text comes from: the user's file or the standard library. It must not know what is done with it."""

from __future__ import annotations

import codecs
import os

# A run sees under half a million characters; a larger file would only cost memory.
MAX_BYTES = 16 << 20

# 10% of the text must hold a few validation windows of the model's context.
MIN_CHARACTERS = 5_000


class DemoError(Exception):
    """Something the user can put right. Its text is one line."""


def load_text(path: str | None) -> tuple[str, str]:
    """The text to train on and what to call it, from the UTF-8 file `path`, or from the standard library if None."""
    if path is None:
        return _library_text(), "pydoc_data.topics"
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DemoError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from None
    return _decode(data, path), repr(os.path.basename(path))


def _decode(data: bytes, path: str) -> str:
    if b"\0" in data:
        raise DemoError(f"{path!r} is a binary file (it has NUL bytes); the demo reads UTF-8 text")
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        # A file that was cut at MAX_BYTES may end inside a character; a whole file may not.
        text = decoder.decode(data[:MAX_BYTES], final=len(data) <= MAX_BYTES)
    except UnicodeDecodeError as error:
        raise DemoError(f"{path!r} is not UTF-8 text (byte {error.start}: {error.reason})") from None
    text = text.replace("\r\n", "\n")
    if not text.strip():
        raise DemoError(f"{path!r} is empty")
    if len(text) < MIN_CHARACTERS:
        raise DemoError(f"{path!r} is too short: {len(text):,} characters, the demo needs {MIN_CHARACTERS:,}")
    return text


def _library_text() -> str:
    """The help texts of the language reference: about half a million characters of English in every CPython."""
    try:
        from pydoc_data import topics
    except ImportError:
        raise DemoError("this Python comes without pydoc_data.topics; pass a text with --text FILE") from None
    # Sorted, because the order of the dictionary has changed between Python versions.
    text = "\n\n".join(value for _, value in sorted(topics.topics.items()) if isinstance(value, str))
    if len(text) < MIN_CHARACTERS:
        raise DemoError("pydoc_data.topics of this Python holds no text; pass one with --text FILE")
    return text
