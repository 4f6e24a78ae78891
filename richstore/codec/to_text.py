"""Values as JSON with their types kept: what `from_text` reads.

What JSON has is written as it is: None, bool, int, float, str, lists, and dicts with keys of str.
All else is an object with a key that begins with `$`, a *tag*. Values of common types are readable
(`{"$date": "2024-02-29"}`); the rest is said as pickle says it: a class or function by name, what
it is called with, and the state that it is given then. What occurs twice in a value has an `$id`,
and is a `$ref` from there on.
"""

from __future__ import annotations

import base64
import copyreg
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from richstore.codec import classes, containers, members
from richstore.codec.missing import MissingType
from richstore.codec.sealed import Sealed
from richstore.errors import EncodingError

__all__ = ["to_text"]

# How many digits Python reads at once: see sys.set_int_max_str_digits.
_LARGE = 10**600


def to_text(value: Any) -> Any:
    """Return what `json.dumps` is to write for a plain value.

    Raises:
        EncodingError: it cannot be kept exactly; `path` leads to what cannot.
    """
    encoder = _Encoder()
    try:
        made = encoder.encode(value)
        return encoder.with_ids(made) if encoder.numbers else made
    except RecursionError:
        raise EncodingError(
            "it is nested too deep to be written as text; keep it flatter, or copy the store with "
            "backup()"
        ) from None


class _Encoder:
    """Writes one value."""

    def __init__(self) -> None:
        # what was met, with the form it has got; kept, so that no id comes again
        self.seen: dict[int, tuple[Any, Any]] = {}
        # forms that are referred to, by id
        self.numbers: dict[int, int] = {}

    def encode(self, value: Any) -> Any:
        """Return the form of a value."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return value if _is_text(value) else {"$str": [ord(one) for one in value]}
        if kind is int:
            return value if -_LARGE < value < _LARGE else {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        atom = _ATOMS.get(kind)
        if atom is not None:
            made = atom(self, value)
            if made is not None:
                return made
        known = self.seen.get(id(value))
        if known is not None:
            number = self.numbers.setdefault(id(known[1]), len(self.numbers) + 1)
            return {"$ref": number}
        if kind is tuple or kind is frozenset:
            return self._immutable(kind, value)
        form: Any
        if kind is list:
            form = self._new(value, [])
            form += self._items(value)
        elif kind is dict:
            form = self._new(value, {})
            self._fill_dict(form, value)
        elif kind is set:
            form = self._new(value, {})
            form["$set"] = self._members(value)
        elif kind is bytearray:
            form = self._new(value, {})
            form["$bytearray"] = _base64(value)
        else:
            form = self._object(value)
        return form

    def _new(self, value: Any, form: Any) -> Any:
        self.seen[id(value)] = value, form
        return form

    def _immutable(self, kind: type, value: Any) -> Any:
        # a cycle leads through something mutable, so this comes to an end
        if kind is tuple:
            form = {"$tuple": self._items(value)}
        else:
            form = {"$frozenset": self._members(value)}
        if not _ATOMIC.issuperset(map(type, value)):
            self._new(value, form)
        return form

    def _items(self, value: Any) -> list[Any]:
        made = []
        for at, item in enumerate(value):
            try:
                made.append(self.encode(item))
            except EncodingError as error:
                raise error.inside(f"[{at}]") from error.__cause__
        return made

    def _members(self, value: Any) -> list[Any]:
        try:
            return [self.encode(item) for item in value]
        except EncodingError as error:
            raise error.inside("{…}") from error.__cause__

    def _fill_dict(self, form: dict[str, Any], value: dict[Any, Any]) -> None:
        simple = all(type(key) is str and key[:1] != "$" and _is_text(key) for key in value)
        if simple:
            for key, item in value.items():
                form[key] = self._inside(f"[{key!r}]", item)
        else:
            form["$dict"] = pairs = []
            for key, item in value.items():
                step = f"[{_short(key)}]"
                pairs.append([self._inside(step, key), self._inside(step, item)])

    def _inside(self, step: str, value: Any) -> Any:
        try:
            return self.encode(value)
        except EncodingError as error:
            raise error.inside(step) from error.__cause__

    # --- what has a class

    def _object(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        if type(kind) is MissingType or isinstance(value, MissingType):
            raise EncodingError(
                f"it is a placeholder: {value!r}; let its class be found, or delete the value"
            )
        if kind is Sealed:
            raise EncodingError(
                "a Sealed is not written in the clear; leave it out, or export what it reveals"
            )
        if isinstance(value, enum.Enum):
            by_name = members.by_name(value)
            if by_name is not None:
                return {"$enum": _name(kind), "name": by_name[1][1]}
        if _is_named(value):
            return {"$name": _name(value)}
        if containers.base_of(kind) is not None:
            return self._container(value)
        return self._reduced(value)

    def _container(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        form: dict[str, Any] = self._new(value, {"$container": _name(kind)})
        extra, inside = containers.extra(value), containers.items(value)
        if extra is not None:
            form["of"] = self.encode(extra)
        if inside is not None:
            step = ".args" if isinstance(value, BaseException) else ""
            form["content"] = self._inside(step, inside)
        named = containers.attributes(value)
        if named:
            form["attributes"] = self._attributes(named)
        if classes.version_of(kind):
            form["version"] = classes.version_of(kind)
        return form

    def _attributes(self, named: dict[str, Any]) -> Any:
        form: dict[str, Any] = {}
        if any(name[:1] == "$" or not _is_text(name) for name in named):
            return self.encode(named)
        for name, item in named.items():
            form[name] = self._inside(f".{name}", item)
        return form

    def _reduced(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        try:
            reduce = copyreg.dispatch_table.get(kind)
            found = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except EncodingError:
            raise
        except Exception as error:
            raise EncodingError(
                f"a value of type {kind.__module__}.{kind.__qualname__} cannot be written "
                f"({type(error).__name__}: {error}); leave it out, or give its class a "
                f"__getstate__ or __reduce__ that can be"
            ) from error
        if isinstance(found, str):
            return {
                "$name": f"{kind.__module__}:{found}" if "." in found else _global(value, found)
            }
        function, arguments, state, items, pairs, setter = (*found, *(None,) * 4)[:6]
        if setter is not None:
            raise EncodingError(
                f"an instance of {kind.__qualname__} is given its state by a function of its own, "
                f"which cannot be written; give the class a __setstate__"
            )
        form: dict[str, Any] = self._new(value, {})
        named = None
        if function is _NEWOBJ:
            cls, *arguments = arguments
            form["$object"] = _name(cls)
        elif function is _NEWOBJ_EX:
            cls, arguments, named = arguments
            form["$object"] = _name(cls)
        else:
            # a method is got from its object
            form["$call"] = _name(function) if _is_named(function) else self.encode(function)
        if arguments:
            form["args"] = self._items(arguments)
        if named:
            form["named"] = self.encode(named)
        if state is not None:
            form["state"] = self._state(state)
        if items is not None:
            form["items"] = self._items(items)
        if pairs is not None:
            form["pairs"] = [
                [self._inside(f"[{_short(key)}]", one) for one in (key, item)]
                for key, item in pairs
            ]
        if classes.version_of(kind):
            form["version"] = classes.version_of(kind)
        return form

    def _state(self, state: Any) -> Any:
        if type(state) is dict and all(type(name) is str for name in state):
            # of its own: nothing else refers to it
            return self._attributes(state)
        return self.encode(state)

    # --- what occurs twice

    def with_ids(self, form: Any) -> Any:
        """Return a form in which everything that is referred to has its number."""
        number = self.numbers.get(id(form))
        if type(form) is list:
            made: Any = [self.with_ids(one) for one in form]
            return made if number is None else {"$list": made, "$id": number}
        if type(form) is not dict:
            return form
        made = {key: self.with_ids(one) for key, one in form.items()}
        if number is None:
            return made
        if not any(key[:1] == "$" for key in made):
            made = {"$dict": [[key, one] for key, one in made.items()]}
        return {**made, "$id": number}


def _is_text(value: str) -> bool:
    """Tell whether a str can be written in UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_named(value: Any) -> bool:
    """Tell whether something is a class, or a function and not the method of an object."""
    if isinstance(value, (type, types.FunctionType)):
        return value not in _NAMELESS
    owner = getattr(value, "__self__", None)
    return type(value) is types.BuiltinFunctionType and isinstance(owner, types.ModuleType)


def _name(thing: Any) -> str:
    """Return the name by which a class or function is found again.

    Raises:
        EncodingError: there is none.
    """
    if thing in _NAMELESS:
        raise EncodingError(f"{thing!r} has no name by which it could be found again")
    if isinstance(thing, type):
        thing = classes.original_class(thing)
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not classes.is_importable(thing):
        raise EncodingError(
            f"{module}.{qualname} can be found by no import, and code is not written; move it to "
            f"a module, outside of functions"
        )
    return f"{module}:{qualname}"


def _global(value: Any, name: str) -> str:
    module = getattr(value, "__module__", None) or "builtins"
    return f"{module}:{name}"


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) < 60 else text[:57] + "..."


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


# --- atoms: a form, or None where the general one is needed

_Atom = Callable[[_Encoder, Any], Any]


def _zone(zone: Any) -> dict[str, Any] | None:
    """Return the parts that say a time zone; None: it has to be said in another way."""
    if zone is None or zone is datetime.UTC:
        return {}
    if type(zone) is datetime.timezone:
        offset = zone.utcoffset(None)
        same = datetime.timezone(offset)
        # its name may be one of its own
        return {} if repr(same) == repr(zone) else None
    if type(zone) is zoneinfo.ZoneInfo and zone.key and zoneinfo.ZoneInfo(zone.key) is zone:
        return {"zone": zone.key}
    return None


def _moment(tag: str) -> _Atom:
    def encode(_: _Encoder, value: Any) -> Any:
        zone = _zone(value.tzinfo)
        if zone is None:
            return None
        form: dict[str, Any] = {
            tag: (value.replace(tzinfo=None) if zone else value).isoformat(),
            **zone,
        }
        if value.fold:
            form["fold"] = 1
        return form

    return encode


def _uuid(_: _Encoder, value: uuid.UUID) -> Any:
    return {"$uuid": str(value)} if value.is_safe is uuid.SafeUUID.unknown else None


def _path(encoder: _Encoder, value: Any) -> Any:
    return {"$path": encoder.encode(str(value)), "kind": type(value).__name__}


_ATOMS: dict[type, _Atom] = {
    bytes: lambda _, value: {"$bytes": _base64(value)},
    complex: lambda encoder, value: {
        "$complex": [encoder.encode(value.real), encoder.encode(value.imag)]
    },
    datetime.date: lambda _, value: {"$date": value.isoformat()},
    datetime.datetime: _moment("$datetime"),
    datetime.time: _moment("$time"),
    datetime.timedelta: lambda _, value: {
        "$timedelta": [value.days, value.seconds, value.microseconds]
    },
    decimal.Decimal: lambda _, value: {"$decimal": str(value)},
    fractions.Fraction: lambda encoder, value: {
        "$fraction": [encoder.encode(value.numerator), encoder.encode(value.denominator)]
    },
    uuid.UUID: _uuid,
    pathlib.PurePosixPath: _path,
    pathlib.PureWindowsPath: _path,
    pathlib.PosixPath: _path,
    pathlib.WindowsPath: _path,
}
_ATOMIC = frozenset((type(None), bool, str, int, float, *_ATOMS))
_NAMELESS = (type(None), type(NotImplemented), type(...))
_NEWOBJ: Any = vars(copyreg)["__newobj__"]
_NEWOBJ_EX: Any = vars(copyreg)["__newobj_ex__"]
