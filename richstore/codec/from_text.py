"""Reads what `to_text` writes, under the rules of a policy.

A form is turned into a pickle, which is then read as one of a record is: what it may name is
decided there, and nothing here imports or calls what a file names. Values of the common types are
made here, from text, by constructors that make nothing larger than their text.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from richstore.codec import foreign
from richstore.codec.opcodes import BUILD, POP, REDUCE, STOP, TUPLE2
from richstore.codec.policy import ClassPolicy
from richstore.errors import CorruptionError, FormatError, RichStoreError, UntrustedClassError

__all__ = ["from_text"]


def from_text(form: Any, classes: ClassPolicy) -> Any:
    """Return the value of a form.

    Args:
        form: what `json.loads` has read; it may become part of the value.
        classes: says which classes it may name.

    Raises:
        FormatError: it is nothing that `to_text` returns; the message leads to where.
        UntrustedClassError: it names a class that is not allowed.
    """
    writer = _Writer()
    try:
        if not _is_tagged(form):
            return form
        writer.write(form)
    except RecursionError:
        raise FormatError("it is nested too deep") from None
    except FormatError:
        raise
    except Exception as error:
        # the parts of a tag are of other types, or out of range
        raise writer.failure(f"it is no such value ({type(error).__name__}: {error})") from error
    try:
        return foreign.load(bytes(writer.out) + STOP, classes, constants=writer.constants)
    except UntrustedClassError as error:
        for name, place in writer.names.items():
            if error.reason.startswith(name.replace(":", ".") + " "):
                raise error.inside(place) from None
        raise
    except CorruptionError as error:
        raise FormatError(f"it is no such value ({error.__cause__ or error})") from error
    except RichStoreError:
        raise
    except Exception as error:
        # whatever the classes of users raise
        raise FormatError(f"it cannot be made ({type(error).__name__}: {error})") from error


def _is_tagged(form: Any) -> bool:
    """Tell whether there is anything in a form that JSON itself does not have."""
    kind = type(form)
    if kind is list:
        return any(map(_is_tagged, form))
    if kind is dict:
        return any(key[:1] == "$" for key in form) or any(map(_is_tagged, form.values()))
    return False


class _Writer:
    """Writes the pickle of one form."""

    def __init__(self) -> None:
        self.out = bytearray()
        # what the pickle takes ready-made, each once, one after the other
        self.constants: list[Any] = []
        # how many places there are in the memo of the pickle; those of each `$id`
        self.places = 0
        self.ids: dict[Any, int] = {}
        self.steps: list[str] = []
        # where each class and function is named first
        self.names: dict[str, str] = {}

    def failure(self, what: str) -> FormatError:
        """Return an error about where the writer is."""
        return FormatError(f"at {''.join(self.steps)}: {what}" if self.steps else what)

    def write(self, form: Any) -> None:
        """Write the opcodes that make the value of a form."""
        kind = type(form)
        if kind is list:
            self.out += b"]"
            self.items(form, b"e")
        elif kind is not dict:
            self.constant(form)
        else:
            tags = [key for key in form if key[:1] == "$" and key != "$id"]
            if tags:
                self._tagged(tags[0], form)
            else:
                self.out += b"}"
                self.names_and_values(form)

    def _tagged(self, tag: str, form: dict[str, Any]) -> None:
        place = self.place()
        if "$id" in form:
            if form["$id"] in self.ids:
                raise self.failure(f"the $id {form['$id']!r} is given twice")
            self.ids[form["$id"]] = place
        if tag in _ATOMS:
            self.constant(_ATOMS[tag](form))
        elif tag in _TAGS:
            _TAGS[tag](self, form, place)
        else:
            raise self.failure(f"there is no tag {tag!r}; has a newer version written it?")

    def place(self) -> int:
        """Return a new place of the memo."""
        self.places += 1
        return self.places - 1

    def put(self, place: int) -> None:
        """Keep what was made."""
        self.out += b"r" + place.to_bytes(4, "little")

    def get(self, place: int) -> None:
        """Take what was kept."""
        self.out += b"j" + place.to_bytes(4, "little")

    def constant(self, value: Any) -> None:
        """Write a value that is there already."""
        self.constants.append(value)
        self.out += b"\x97"

    def name(self, name: str) -> None:
        """Write what a class or function is found by."""
        module, _, qualname = name.partition(":")
        if not module or not qualname:
            raise self.failure(f"{name!r} is no name of a class, which is 'module:Class'")
        self.names.setdefault(name, "".join(self.steps))
        self.out += _text(module) + _text(qualname) + b"\x93"

    def items(self, forms: list[Any], end: bytes) -> None:
        """Write a mark, items, and the opcode that takes them."""
        self.out += b"("
        for at, form in enumerate(_checked(list, forms)):
            self.inside(f"[{at}]", form)
        self.out += end

    def names_and_values(self, forms: dict[str, Any], step: str = "[{!r}]") -> None:
        """Write a mark, names and values, and the opcode that puts them into a dict."""
        self.out += b"("
        for name, form in _checked(dict, forms).items():
            self.constant(name)
            self.inside(step.format(name), form)
        self.out += b"u"

    def pairs(self, forms: list[Any]) -> None:
        """Write a mark, keys and values, and the opcode that puts them into a dict."""
        self.out += b"("
        for key, form in _checked(list, forms):
            step = f"[{key!r}]"
            self.inside(step, key)
            self.inside(step, form)
        self.out += b"u"

    def attributes(self, forms: dict[str, Any]) -> None:
        """Write a dict of attributes."""
        if any(name[:1] == "$" for name in forms):
            self.write(forms)
        else:
            self.out += b"}"
            self.names_and_values(forms, ".{}")

    def inside(self, step: str, form: Any) -> None:
        """Write a part of what is being written."""
        self.steps.append(step)
        self.write(form)
        self.steps.pop()


def _checked(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"a {kind.__name__} has to be there, not {type(value).__name__}")
    return value


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


# --- tags that are made of other values: writer, form, and the place that keeps what is made


def _list(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.out += b"]"
    writer.put(place)
    writer.items(form["$list"], b"e")


def _dict(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.out += b"}"
    writer.put(place)
    writer.pairs(form["$dict"])


def _set(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.out += b"\x8f"
    writer.put(place)
    writer.items(form["$set"], b"\x90")


def _tuple(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.items(form["$tuple"], b"t")
    writer.put(place)


def _frozenset(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.items(form["$frozenset"], b"\x91")
    writer.put(place)


def _bytearray(writer: _Writer, form: dict[str, Any], place: int) -> None:
    data = base64.b64decode(form["$bytearray"], validate=True)
    writer.out += b"\x96" + len(data).to_bytes(8, "little") + data
    writer.put(place)


def _fraction(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.name("fractions:Fraction")
    writer.items(form["$fraction"], b"t" + REDUCE)


def _reference(writer: _Writer, form: dict[str, Any], place: int) -> None:
    known = writer.ids.get(form["$ref"])
    if known is None:
        raise writer.failure(f"nothing before it has the $id {form['$ref']!r}")
    writer.get(known)


def _named(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.name(form["$name"])
    writer.put(place)


def _member(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.name("richstore.codec.members:member")
    writer.name(form["$enum"])
    writer.constant(_checked(str, form["name"]))
    writer.out += TUPLE2 + REDUCE


def _object(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.name(form["$object"])
    writer.items(form.get("args", []), b"t")
    if "named" in form:
        writer.write(form["named"])
        writer.out += b"\x92"
    else:
        writer.out += b"\x81"
    _fill(writer, form, place)


def _call(writer: _Writer, form: dict[str, Any], place: int) -> None:
    function = form["$call"]
    if type(function) is str:
        writer.name(function)
    else:
        writer.write(function)
    writer.items(form.get("args", []), b"t" + REDUCE)
    _fill(writer, form, place)


def _fill(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.put(place)
    if "items" in form:
        writer.items(form["items"], b"e")
    if "pairs" in form:
        writer.pairs(form["pairs"])
    if "state" not in form:
        return
    version = form.get("version", 0)
    if version:
        # kept until all is read, and upgraded then
        writer.out += POP
        writer.name("richstore.codec.containers:build")
        writer.get(place)
        writer.constant(_checked(int, version))
    state = form["state"]
    if type(state) is dict:
        writer.attributes(state)
    else:
        writer.write(state)
    if version:
        writer.out += TUPLE2 + TUPLE2 + REDUCE + POP
        writer.get(place)
    else:
        writer.out += BUILD


def _container(writer: _Writer, form: dict[str, Any], place: int) -> None:
    writer.name("richstore.codec.containers:make")
    writer.name(form["$container"])
    writer.write(form.get("of"))
    writer.out += TUPLE2 + REDUCE
    writer.put(place)
    writer.out += POP
    writer.name("richstore.codec.containers:fill")
    writer.get(place)
    writer.out += b"("
    writer.write(form.get("content"))
    writer.attributes(form.get("attributes", {}))
    if "version" in form:
        writer.constant(_checked(int, form["version"]))
    writer.out += b"t" + TUPLE2 + REDUCE + POP
    writer.get(place)


_TAGS: dict[str, Callable[[_Writer, dict[str, Any], int], None]] = {
    "$list": _list,
    "$dict": _dict,
    "$set": _set,
    "$tuple": _tuple,
    "$frozenset": _frozenset,
    "$bytearray": _bytearray,
    "$fraction": _fraction,
    "$ref": _reference,
    "$name": _named,
    "$enum": _member,
    "$object": _object,
    "$call": _call,
    "$container": _container,
}


# --- tags that are values by themselves


def _moment(kind: type[datetime.datetime] | type[datetime.time], tag: str) -> Any:
    def make(form: dict[str, Any]) -> Any:
        value = kind.fromisoformat(form[tag])
        if "zone" in form:
            value = value.replace(tzinfo=zoneinfo.ZoneInfo(form["zone"]))
        return value.replace(fold=form["fold"]) if "fold" in form else value

    return make


_PATHS: dict[str, type[pathlib.PurePath]] = {
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
    "PosixPath": pathlib.PosixPath,
    "WindowsPath": pathlib.WindowsPath,
}

_ATOMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "$str": lambda form: "".join(map(chr, form["$str"])),
    "$int": lambda form: int(form["$int"], 16),
    "$float": lambda form: float(form["$float"]),
    "$bytes": lambda form: base64.b64decode(form["$bytes"], validate=True),
    "$complex": lambda form: complex(*map(_float, form["$complex"])),
    "$date": lambda form: datetime.date.fromisoformat(form["$date"]),
    "$datetime": _moment(datetime.datetime, "$datetime"),
    "$time": _moment(datetime.time, "$time"),
    "$timedelta": lambda form: datetime.timedelta(*map(int, form["$timedelta"])),
    "$decimal": lambda form: decimal.Decimal(_checked(str, form["$decimal"])),
    "$uuid": lambda form: uuid.UUID(form["$uuid"]),
    "$path": lambda form: _PATHS[form["kind"]](_str(form["$path"])),
}


def _float(form: Any) -> float:
    return float(form["$float"]) if type(form) is dict else float(form)


def _str(form: Any) -> str:
    text: str = _ATOMS["$str"](form) if type(form) is dict else _checked(str, form)
    return text
