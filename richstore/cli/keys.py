"""The arguments that are paths into a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from richstore.cli.paths import Path, PathError, read_path

__all__ = ["path_argument"]

F = TypeVar("F", bound=Callable[..., Any])


def path_argument(name: str = "path", **options: Any) -> Callable[[F], F]:
    """Give a command an argument that is a path into the store, or several."""

    def read(ctx: click.Context, parameter: click.Parameter, given: Any) -> Any:
        try:
            return tuple(map(read_path, given)) if parameter.nargs == -1 else _path(given)
        except PathError as error:
            raise click.UsageError(str(error), ctx) from None

    return click.argument(name, callback=read, **options)


def _path(text: str | None) -> Path | None:
    return None if text is None else read_path(text)
