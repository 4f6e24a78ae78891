"""Paths into a store, as people write them: `config.theme.dark`, `users[3].name`, `["a b"].x`.

A path is a tuple of keys, of which the first is one of the store. A word is a str; everything else
stands in brackets, as a literal. Whether a key is one of a dict, a position in a list or the name
of an attribute is told by the value it is used on.
"""

from __future__ import annotations

from typing import Any

from richstore.cli.literals import LiteralError, read_literal, write_key

__all__ = ["Path", "PathError", "read_path", "write_path"]

Path = tuple[Any, ...]

# What no word has: these say where one ends.
_SPECIAL = frozenset(".[](){}\"'`\\")
_OPENING = {"[": "]", "(": ")", "{": "}"}


class PathError(ValueError):
    """A text is no path."""


def read_path(text: str) -> Path:
    """Return the keys of a path.

    Raises:
        PathError: it is none; the message says where and what would be.
    """
    keys: list[Any] = []
    at = 0
    while at < len(text):
        if text[at] == "[":
            end = _closing(text, at)
            keys.append(_key(text[at + 1 : end], text))
            at = end + 1
            continue
        if keys and text[at] != ".":
            raise PathError(f"{text}: after a key comes '.' or '[', not {text[at:]!r}")
        begin = at + bool(keys)
        at = begin
        while at < len(text) and _is_plain(text[at]):
            at += 1
        if at == begin:
            raise PathError(_no_word(text, at))
        keys.append(text[begin:at])
    if not keys:
        raise PathError('a path begins with a key; the empty one is [""]')
    return tuple(keys)


def _no_word(text: str, at: int) -> str:
    if at == len(text):
        return f"{text}: a name is missing at the end"
    return f'{text}: a name cannot have {text[at]!r} in it; write it in brackets: ["a b"]'


def _closing(text: str, begin: int) -> int:
    """Return where the bracket that opens at `begin` is closed."""
    expected: list[str] = []
    quote = ""
    at = begin
    while at < len(text):
        letter = text[at]
        if quote:
            if letter == "\\":
                at += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in _OPENING:
            expected.append(_OPENING[letter])
        elif expected and letter == expected[-1]:
            expected.pop()
            if not expected:
                return at
        at += 1
    missing = f"a closing {quote}" if quote else f"{expected[-1]!r}"
    raise PathError(f"{text}: {missing} is missing")


def _key(text: str, path: str) -> Any:
    try:
        key = read_literal(text)
    except LiteralError:
        raise PathError(
            f"{path}: [{text}] is no key; a text stands in quotes, which the shell takes away "
            f"unless the path is in others: '[\"a b\"].x'"
        ) from None
    if not _is_key(key):
        raise PathError(f"{path}: a {type(key).__name__} is no key")
    return key


def _is_key(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _is_plain(letter: str) -> bool:
    return letter not in _SPECIAL and letter.isprintable() and not letter.isspace()


def write_path(path: Path) -> str:
    """Return a path as `read_path` reads it."""
    return "".join(_step(key, is_first=not at) for at, key in enumerate(path))


def _step(key: Any, *, is_first: bool) -> str:
    # a word with a dash before it would be an option
    if type(key) is str and key and all(map(_is_plain, key)) and key[0] != "-":
        return key if is_first else f".{key}"
    if type(key) is tuple and len(key) > 1:
        return f"[{write_key(key)[1:-1]}]"
    return f"[{write_key(key)}]"
