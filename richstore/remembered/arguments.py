"""Calls as keys: what tells a call of a remembered function from every other one.

The key of a call is a tuple: the *form* of each argument in the order of the signature, defaults
filled in, and last the version. Forms are None, int, str, bytes and tuples of these, so that they
are keys of a store and read well there. Two arguments have one form if they are equal and of the
same type: `1`, `1.0` and `True` are three.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from numbers import Number
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from richstore.errors import KeyTypeError

__all__ = ["Arguments", "KeysOf", "name_of"]

Key = tuple[Any, ...]
KeyOf = Callable[[Any], Any]
# What can be given as `key`.
KeysOf = KeyOf | Mapping[str, KeyOf | None] | None

_AS_THEY_ARE = (type(None), int, str, bytes)
_BY_REPR = (bool, float, complex, date, datetime, time, timedelta, UUID, range)

# Parameters that stand for any number of arguments.
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def name_of(thing: Any) -> str:
    """Return the name of a function or class by which another process finds it: `jobs.Report.load`.

    In a script it begins with the name of the script, as it does where the script is imported.
    """
    module = thing.__module__
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name
        elif file is not None:
            module = Path(file).stem
    return f"{module}.{thing.__qualname__}"


class _NoFormError(Exception):
    """A value has no form."""


def form_of(value: Any) -> Any:
    """Return the form of an argument.

    Raises:
        _NoFormError: nothing tells two values of this type apart in every process.
    """
    # what a value from a store says it is
    kind = value.__class__
    if kind in _AS_THEY_ARE:
        return value
    if kind in _BY_REPR:
        return kind.__name__, repr(value)
    if kind is list or kind is tuple:
        return kind.__name__, *map(form_of, value)
    if kind is dict:
        pairs = [(form_of(key), form_of(item)) for key, item in value.items()]
        return "dict", *sorted(pairs, key=repr)
    if kind is set or kind is frozenset:
        return kind.__name__, *sorted(map(form_of, value), key=repr)
    return _form_of_object(value, kind)


def _form_of_object(value: Any, kind: type) -> Any:
    if isinstance(value, type):
        return "class", name_of(value)
    name = name_of(kind)
    if isinstance(value, Enum):
        # not every combination of flags has a name
        return name, form_of(value.value) if value.name is None else value.name
    if isinstance(value, PurePath):
        return "path", str(value)
    for base in (int, float, complex, str):
        # a subclass may show as little of itself as it likes
        if isinstance(value, base):
            return name, base.__repr__(value)
    if isinstance(value, Number) and repr(value) != object.__repr__(value):
        # Decimal, Fraction, numpy's scalars
        return name, repr(value)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return name, *map(form_of, value)
    if dataclasses.is_dataclass(value) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return name, *(form_of(getattr(value, one.name)) for one in dataclasses.fields(value))
    raise _NoFormError(name)


class Arguments:
    """The parameters of a remembered function, and how a call becomes a key.

    Args:
        function: the function, whose first parameter is the instance if it is a method.
        name: what it is called in messages.
        key: what stands for arguments: a function of the first one, or functions by the names of
            parameters; None in place of a function leaves the argument out.
        version: the end of each key.
        of_instance: whether results are kept with the first argument, which is no part of the key.

    Raises:
        TypeError: `key` does not fit the function, or `version` cannot be part of a key.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        key: KeysOf,
        version: Any,
        *,
        of_instance: bool,
    ) -> None:
        self.signature = inspect.signature(function)
        self.name = name
        try:
            self.version = form_of(version)
        except _NoFormError:
            raise KeyTypeError(
                f"version must be a number, a str or the like, not {version!r}"
            ) from None
        names = list(self.signature.parameters)
        first = next(iter(self.signature.parameters.values()), None)
        if (of_instance or callable(key)) and (first is None or first.kind in _MANY):
            raise TypeError(
                f"{name}{self.signature} has no first parameter that could be an instance, or have "
                f"a key; give it one"
            )
        if of_instance and callable(key):
            raise TypeError(
                f"key of {name}() stands for the instance, which level='instance' needs no key "
                f"for; for other arguments give it as {{'name': function}}"
            )
        if callable(key):
            self.keys: dict[str, KeyOf | None] = {names[0]: key}
        elif key is None or isinstance(key, Mapping):
            self.keys = dict(key or {})
        else:
            raise TypeError(f"key must be a function, or a dict of functions, not {key!r}")
        for one in self.keys:
            if one not in names:
                raise TypeError(f"key names {one!r}, and {name}{self.signature} has no such one")
        self.instance = names[0] if of_instance else None
        self.first = names[0] if names else None

    def key_of(self, positional: tuple[Any, ...], named: dict[str, Any]) -> Key:
        """Return the key of a call.

        Raises:
            TypeError: the function cannot be called so.
            KeyTypeError: an argument has no form.
        """
        try:
            bound = self.signature.bind(*positional, **named)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        bound.apply_defaults()
        forms = [
            self._form(parameter, value)
            for parameter, value in bound.arguments.items()
            if parameter != self.instance and self.keys.get(parameter, self) is not None
        ]
        return *forms, self.version

    def form_of_first(self, value: Any) -> Key:
        """Return what the keys of all calls on an instance begin with."""
        if (
            self.first is None
            or self.first == self.instance
            or self.keys.get(self.first, 0) is None
        ):
            return ()
        return (self._form(self.first, value),)

    def _form(self, parameter: str, value: Any) -> Any:
        key = self.keys.get(parameter)
        try:
            if key is not None:
                # instances of two classes may have the same key
                return name_of(value.__class__), form_of(key(value))
            return form_of(value)
        except _NoFormError as error:
            raise KeyTypeError(self._advice(parameter, str(error))) from None

    def _advice(self, parameter: str, kind: str) -> str:
        start = f"the results of {self.name}() are found by its arguments, and"
        if parameter in self.keys:
            return (
                f"{start} key gives a {kind} for {parameter!r}; it must give a str, int, bytes, a "
                f"tuple of these, or another plain value"
            )
        if parameter == self.first:
            return (
                f"{start} {parameter!r} is a {kind}, which cannot be told from others of its kind "
                f"later; say what stands for it, key=lambda {parameter}: …, or keep the results "
                f"with the instance itself, level='instance'"
            )
        return (
            f"{start} {parameter!r} is a {kind}; say what stands for it, "
            f"key={{{parameter!r}: lambda {parameter}: …}}, or None to leave it out"
        )
