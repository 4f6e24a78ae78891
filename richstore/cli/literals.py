"""Values as people write them: Python literals, and `date("2026-01-01")` and its kind.

Nothing is called but the constructors of the standard types that are listed here.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["LiteralError", "read_literal", "write_key"]


class LiteralError(ValueError):
    """A text is no literal."""


_MADE_OF_STR: dict[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "UUID": UUID,
    "Decimal": Decimal,
}
_NUMBERS = {"inf": math.inf, "nan": math.nan}


def read_literal(text: str) -> Any:
    """Return the value that a text stands for.

    Raises:
        LiteralError: it is no literal.
    """
    try:
        with warnings.catch_warnings():
            # a \d in quotes is what it looks like
            warnings.simplefilter("ignore")
            return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError) as error:
        raise LiteralError(f"{text!r} is no Python literal: {error}") from None
    except (RecursionError, MemoryError):
        raise LiteralError("the literal is nested too deeply") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Tuple(items):
            return tuple(map(_value, items))
        case ast.List(items):
            return list(map(_value, items))
        case ast.Set(items):
            return set(map(_value, items))
        case ast.Dict(keys, items):
            return {_value(_key(key)): _value(item) for key, item in zip(keys, items, strict=True)}
        case ast.Name("inf" | "nan" as name):
            return _NUMBERS[name]
        case ast.UnaryOp(ast.USub(), ast.Name("inf")):
            return -math.inf
        case ast.Call(ast.Name("set"), [], []):
            return set()
        case ast.Call(ast.Name("frozenset"), [*items], []) if len(items) < 2:
            return frozenset(*map(_value, items))
        case ast.Call(ast.Name(name), [ast.Constant(str(text))], []) if name in _MADE_OF_STR:
            return _MADE_OF_STR[name](text)
        case ast.Constant(value) if value is not ...:
            return value
        case ast.UnaryOp() | ast.BinOp():
            # signs, and complex numbers
            return ast.literal_eval(node)
    raise LiteralError(f"{ast.unparse(node)} is no literal")


def _key(node: ast.expr | None) -> ast.expr:
    if node is None:
        raise LiteralError("a dict is written out: without **")
    return node


def write_key(key: Any) -> str:
    """Return a text that `read_literal` reads as the key of a store or dict.

    Of a key of another type it is the `repr`, which says what it is and cannot be read.
    """
    kind = type(key)
    if kind is str:
        return _quoted(key)
    if kind is tuple:
        items = [write_key(item) for item in key]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if kind is frozenset:
        return f"frozenset({{{', '.join(map(write_key, key))}}})" if key else "frozenset()"
    if kind is date or kind is datetime:
        return f'{kind.__name__}("{key.isoformat()}")'
    if kind is UUID or kind is Decimal:
        return f'{kind.__name__}("{key}")'
    return repr(key)


def _quoted(text: str) -> str:
    """Return the literal in double quotes if it can be: others are in the way in a shell."""
    if '"' in text:
        return repr(text)
    # a single quote in it makes Python choose double ones
    return '"' + repr("'" + text)[2:]
