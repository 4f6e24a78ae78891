"""Classes that a user allows, with all that an attacker would like to reach through them."""

from __future__ import annotations

import os
from os import system
from typing import Any

__all__ = ["Allowed", "Slotted", "Unlisted", "dangerous", "os", "system"]


def touch() -> None:
    """Show that code was run."""
    with open(os.environ["CANARY"], "w") as file:
        file.write("called")


class Allowed:
    """What is allowed; only its methods do harm."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    @classmethod
    def explode(cls, *_: Any) -> None:
        touch()

    def method(self, *_: Any) -> None:
        touch()


class Slotted:
    __slots__ = ("name",)


class Bytes(bytes):
    pass


class Unlisted:
    """Not allowed by a list of classes."""

    def __init__(self, *_: Any) -> None:
        touch()

    def __setstate__(self, _: Any) -> None:
        touch()


def dangerous(*_: Any) -> None:
    """Not allowed by a list of classes."""
    touch()
