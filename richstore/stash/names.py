"""Keys as the names of files, and back: no key leads out of the directory or to another's file.

Lower-case letters, digits, `-`, `_` and dots inside stand for themselves, and everything else is
written as the bytes of UTF-8, `%` and two digits each. So keys that differ have names that differ,
on file systems too that ignore case or write accents in their own way. A name that is too long for
a file is cut into pieces: all but the last are directories, whose names end with `%`.
"""

from __future__ import annotations

import os
import re
from typing import Any

from richstore.errors import KeyTypeError

__all__ = ["Escaped", "Verbatim"]

# the byte that stands for an empty key follows no `%` otherwise
_EMPTY = "%-"
_PIECE = 120
_LONGEST = 255
_ESCAPED = re.compile(r"%([0-9a-f]{2})")


class Escaped:
    """Any str as a name: the rule of new directories."""

    def name(self, key: Any) -> str:
        """Return the name of a key, with slashes if it is long.

        Raises:
            KeyTypeError: the key is no str.
        """
        if not isinstance(key, str):
            raise KeyTypeError(
                f"a key of a directory is a str, and {key!r} is a {type(key).__name__}; use "
                f"str(…) of it, or a Store, which takes keys of many types"
            )
        # halves of surrogate pairs are strings, too
        data = key.encode("utf-8", "surrogatepass")
        text = "".join(map(_escape, data)) or _EMPTY
        if text[0] == ".":
            text = "%2e" + text[1:]
        pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
        return "%/".join(pieces)

    def key(self, name: str) -> str | None:
        """Return the key of a name; None: no key has it."""
        if name == _EMPTY:
            return ""
        text = name.replace("%/", "")
        try:
            data = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1")
            key = data.decode("utf-8", "surrogatepass")
        except ValueError:
            return None
        # what somebody else has put there may read like a key, and be found under none
        return key if self.name(key) == name else None


class Verbatim:
    """Keys that are names already: the rule of directories that others have made."""

    def name(self, key: Any) -> str:
        """Return the name of a key.

        Raises:
            KeyTypeError: the key is no str.
            ValueError: it cannot be a name.
        """
        if not isinstance(key, str):
            raise KeyTypeError(f"a key of a directory is a str, and {key!r} is not")
        if self.key(key) is None or len(os.fsencode(key)) > _LONGEST:
            raise ValueError(
                f"{key!r} cannot be the name of a file as it is: it is empty or too long, begins "
                f"with a dot, or has a slash or a NUL in it; leave out escape=False"
            )
        return key

    def key(self, name: str) -> str | None:
        """Return the key of a name; None: no key has it."""
        return None if not name or name[0] == "." or "/" in name or "\0" in name else name


def _escape(byte: int) -> str:
    letter = chr(byte)
    return letter if letter in _PLAIN else f"%{byte:02x}"


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
