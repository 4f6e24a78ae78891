"""Which store a command works on, and which group in it: the options `-s` and `-g`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

import richstore
from richstore.cli.failures import Absent, Failure
from richstore.passphrase import Passphrase
from richstore.projects import Place, project_place

__all__ = ["Target", "on_classes", "on_files", "on_group", "on_store"]

F = TypeVar("F", bound=Callable[..., Any])

# Under which `on_files` leaves the store for `on_store`: no parameter of a command is called so.
_FILE = "file of the store"


class Target:
    """The store that a command works on, and the group in it.

    Args:
        place: where it is.
        group: the names of the group and of those it is in, from the outermost; none for the store.
        words: the options that name the store for another process; none for that of the project.
        names: what is given as --classes.
    """

    def __init__(
        self,
        place: Place,
        group: tuple[str, ...] = (),
        words: tuple[str, ...] = (),
        names: str | None = None,
    ) -> None:
        self.place = place
        self.group = group
        self.words = words if names is None else (*words, "--classes", names)
        self.classes = None if names is None else _allowed(names)

    @property
    def path(self) -> Path:
        """The file of the store."""
        return Path(self.place.path)

    def key(self) -> bytes | Passphrase | None:
        """Return the key of the store; None: it has none."""
        return self.place.key()

    def open(self, flag: str, **options: Any) -> richstore.Store:
        """Open the store.

        Raises:
            Failure: it would be gone when the command ends.
        """
        if self.place.path == "memory:":
            raise Failure("memory: keeps nothing when the command has ended; name a file")
        self.place.prepare(flag)
        options = {"classes": self.classes, **options}
        return richstore.open(self.place.path, flag, key=self.key(), **options)

    @contextmanager
    def reading(self, **options: Any) -> Iterator[Any]:
        """Give a snapshot of the store, or of the group.

        Raises:
            Absent: there is no such group.
        """
        with self.open("r", **options) as store, store.snapshot() as view:
            yield self.group_in(view)

    @contextmanager
    def walking(self) -> Iterator[Any]:
        """Give the store, or the group, for reading all of it.

        A snapshot would keep in memory all that is read, and each value is read once.

        Raises:
            Absent: there is no such group.
        """
        with self.open("r", cache_size=1024 * 1024) as store:
            yield self.group_in(store)

    @contextmanager
    def changing(self, flag: str, timeout: float | None) -> Iterator[MutableMapping[Any, Any]]:
        """Give the store, or the group, in a transaction that is committed at the end.

        Args:
            flag: as for `richstore.open`.
            timeout: seconds to wait for another writer; None: until it has ended.
        """
        with self.open(flag, timeout=timeout) as store, store.transaction():
            yield self.group_of(store)

    def group_of(self, store: Any) -> Any:
        """Return the group in a store or snapshot, which need not be there yet.

        Raises:
            UsageError: there can be no group of that name.
        """
        try:
            for name in self.group:
                store = store.group(name)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        return store

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


def _allowed(text: str) -> str | Callable[[str], bool]:
    """Return the `classes` of `richstore.open` that a text of an option stands for."""
    if text in ("any", "none"):
        return text
    names = {name.strip() for name in text.split(",")}
    within = tuple(f"{name}." for name in names)
    return lambda name: name in names or name.startswith(within)


def on_store(function: F) -> F:
    """Give a command the option `-s`, and its function a `Target` called `target`."""

    def made(ctx: click.Context, parameter: click.Parameter, path: str | None) -> Target:
        # a program's own folder says nothing about what its user means
        group, classes = ctx.params.pop("group", ()), ctx.params.pop("classes", None)
        file = ctx.params.pop(_FILE, None)
        if path is not None and file is not None:
            raise click.UsageError(f"the store is given twice: {file}, and -s {path}", ctx)
        path = file if path is None else path
        if path is None:
            return Target(project_place(Path.cwd()), group, (), classes)
        return Target(Place(path), group, ("-s", path), classes)

    option = click.option(
        "-s",
        "--store",
        "target",
        metavar="FILE",
        callback=made,
        help="The file of the store; else it is that of the project.",
    )
    return option(function)


def on_files(*names: str) -> Callable[[F], F]:
    """Give a command its files as arguments, of which that of the store, FILE, may be left out.

    Args:
        names: what they are called, in their order; the function of the command gets those of the
            others, in small letters.
    """
    wanted = [name for name in names if name != "FILE"]

    def split(ctx: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> None:
        if not len(wanted) <= len(files) <= len(names):
            raise click.UsageError(f"give these files: {shown}", ctx)
        for name, file in zip(names if len(files) == len(names) else wanted, files, strict=True):
            if name == "FILE":
                ctx.params[_FILE] = file
            else:
                ctx.params[name.lower()] = Path(file)

    shown = " ".join("[FILE]" if name == "FILE" else name for name in names)
    return click.argument(
        "files", nargs=-1, metavar=shown, callback=split, is_eager=True, expose_value=False
    )


def on_classes(function: F) -> F:
    """Give a command the options `-s` and `--classes`, and its function a `Target`."""
    option = click.option(
        "--classes",
        metavar="NAMES",
        is_eager=True,
        help="Whose code may run that the file names: any, none, or modules and classes with commas"
        " between. Else any of a file that only you may write, and none of others.",
    )
    return on_store(option(function))


def on_group(function: F) -> F:
    """Give a command the options `-s`, `-g` and `--classes`, and its function a `Target`."""

    def names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
        # `ls` writes a / behind names
        found = () if text is None else tuple(text.removesuffix("/").split("/"))
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
    return on_classes(option(function))
