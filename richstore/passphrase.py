"""Passphrases: a type of their own, so that they are not taken for keys, nor shown by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, Union

__all__ = ["KeySource", "Passphrase"]


class Passphrase:
    """A passphrase to open a store or document with; its `repr` does not show it.

    The key is derived from it with Argon2id (64 MiB, three passes), whose parameters are stored.

    Args:
        text: the passphrase, which must not be empty.

    Example:
        >>> import richstore
        >>> richstore.Passphrase("correct horse battery staple")
        Passphrase('…')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a passphrase is a str, not {type(text).__name__}")
        if not text:
            raise ValueError("a passphrase must not be empty")
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Passphrase('…')"

    def __reduce__(self) -> str:
        raise TypeError("a Passphrase is not stored nor pickled; keep it in a keyring")


KeySource: TypeAlias = Union[bytes, Passphrase, Callable[[], Union[bytes, Passphrase]]]  # noqa: UP007
"""What a user gives as a key: 32 bytes, a passphrase, or a function that returns one of these."""
