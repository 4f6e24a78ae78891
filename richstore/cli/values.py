"""Values given on the command line: JSON, else a Python literal, else a text as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from richstore.cli.literals import LiteralError, read_literal

__all__ = ["given_value", "value_options"]

F = TypeVar("F", bound=Callable[..., Any])


def value_options(function: F) -> F:
    """Give a command the argument VALUE, and the options that say how it is read."""
    function = click.argument("value")(function)
    function = click.option(
        "--str", "as_str", is_flag=True, help="VALUE is a text, whatever it is like."
    )(function)
    return click.option("--json", "as_json", is_flag=True, help="VALUE is JSON and nothing else.")(
        function
    )


def given_value(value: str, as_str: bool, as_json: bool) -> Any:
    """Return the value that was given; `-` takes it from standard input.

    Raises:
        UsageError: it is not what it was said to be, or is half of a container.
    """
    if as_str and as_json:
        raise click.UsageError("--str and --json exclude each other")
    if value == "-":
        # the end of the last line belongs to the line
        value = sys.stdin.read().removesuffix("\n")
    if as_str:
        return value
    try:
        return json.loads(value, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        if as_json:
            raise click.UsageError(f"VALUE is no JSON: {error}") from None
    if value.strip().isidentifier() and value.strip() not in ("True", "False", "None"):
        return value
    try:
        made = read_literal(value)
        # 1,5 is no tuple that anybody means
        return value if isinstance(made, tuple) and value.lstrip()[:1] != "(" else made
    except LiteralError as error:
        if value.lstrip()[:1] in ("{", "[", "(", '"', "'"):
            # rather than a text that nobody meant
            raise click.UsageError(
                f"VALUE begins like a literal, and is none ({error}); --str takes it as a text"
            ) from None
        return value


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is not in JSON")
