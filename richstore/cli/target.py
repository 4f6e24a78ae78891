"""Which store a command works on, and which group in it: the options `-s` and `-g`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

import richstore
from richstore.cli.failures import Absent
from richstore.errors import WrongKeyError
from richstore.passphrase import Passphrase

__all__ = ["Target", "on_group", "on_store"]

F = TypeVar("F", bound=Callable[..., Any])

_KEY = "RICHSTORE_KEY"
_PASSPHRASE = "RICHSTORE_PASSPHRASE"


class Target:
    """The store that a command works on, and the group in it.

    Args:
        path: the file.
        group: the names of the group and of those it is in, from the outermost; none for the store.
    """

    def __init__(self, path: Path, group: tuple[str, ...] = ()) -> None:
        self.path = path
        self.group = group

    def key(self) -> bytes | Passphrase | None:
        """Return the key of the store; None: it has none."""
        return _key()

    def open(self, flag: str, **options: Any) -> richstore.Store:
        """Open the store."""
        return richstore.open(self.path, flag, key=self.key(), **options)

    @contextmanager
    def reading(self, **options: Any) -> Iterator[Any]:
        """Give a snapshot of the store, or of the group.

        Raises:
            Absent: there is no such group.
        """
        with self.open("r", **options) as store, store.snapshot() as view:
            yield self.group_in(view)

    @contextmanager
    def changing(self, flag: str) -> Iterator[MutableMapping[Any, Any]]:
        """Give the store, or the group, in a transaction that is committed at the end."""
        with self.open(flag) as store, store.transaction():
            place: Any = store
            for name in self.group:
                place = place.group(name)
            yield place

    def group_in(self, store: Any) -> Any:
        """Return the group in a store or snapshot of it.

        Raises:
            Absent: there is none.
        """
        for at, name in enumerate(self.group):
            if name not in store.groups():
                raise Absent(f"there is no group {'/'.join(self.group[: at + 1])} in {self.path}")
            store = store.group(name)
        return store


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
        return Target(path, ctx.params.pop("group", ()))

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


def on_group(function: F) -> F:
    """Give a command the options `-s` and `-g`, and its function a `Target` called `target`."""

    def names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
        found = () if text is None else tuple(text.split("/"))
        if not all(found):
            raise click.BadParameter("the names of groups in each other have a / between", ctx)
        return found

    option = click.option(
        "-g",
        "--group",
        metavar="NAME",
        callback=names,
        is_eager=True,
        help="The group in the store; one inside another: users/alice.",
    )
    return on_store(option(function))
