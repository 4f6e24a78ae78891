"""Texts that somebody else has made, on a terminal: they must not steer it."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: str) -> str:
    """Return a text with its control characters written out, those but of lines and columns."""
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)
