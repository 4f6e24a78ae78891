"""Which store a command works on: the options `-s` and `-g`, and the key from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import richstore
from richstore.errors import WrongKeyError
from richstore.passphrase import Passphrase

__all__ = ["Target", "on_store"]

F = TypeVar("F", bound=Callable[..., Any])

_KEY = "RICHSTORE_KEY"
_PASSPHRASE = "RICHSTORE_PASSPHRASE"


class Target:
    """The store that a command works on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key(self) -> bytes | Passphrase | None:
        """Return the key of the store; None: it has none."""
        return _key()

    def open(self, flag: str) -> richstore.Store:
        """Open the store."""
        return richstore.open(self.path, flag, key=self.key())


def _key() -> bytes | Passphrase | None:
    """Return the key that the environment gives.

    Raises:
        WrongKeyError: it is not hexadecimal.
    """
    if _KEY in os.environ:
        try:
            return bytes.fromhex(os.environ[_KEY])
        except ValueError:
            raise WrongKeyError(f"{_KEY} must have 64 hexadecimal digits") from None
    return Passphrase(os.environ[_PASSPHRASE]) if os.environ.get(_PASSPHRASE) else None


def on_store(function: F) -> F:
    """Give a command the option `-s`, and its function a `Target` called `target`."""

    def made(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Target:
        if path is None:
            raise click.UsageError("name the store with -s", ctx)
        return Target(path)

    option = click.option(
        "-s",
        "--store",
        "target",
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=made,
        help="The file of the store; else that of the project.",
    )
    return option(function)
