"""Whose code runs: which classes and functions a record may name, and how they are found."""

from __future__ import annotations

from typing import Any

from richstore.codec import classes

__all__ = ["ANY", "ClassPolicy"]


class ClassPolicy:
    """Finds what records name: everything that can be imported."""

    __slots__ = ()

    def find(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name, or a stand-in if there is none."""
        return classes.resolve(module, qualname)

    def class_of(self, stored: bytes) -> type:
        """Return the class whose stored form this is, or a stand-in if it cannot be had."""
        return classes.class_from_bytes(stored)


ANY = ClassPolicy()
