"""Formats: how the value of a document becomes bytes, and comes back.

The rule: what does not come back equal is refused, with the path to it, before anything is
written; unless the user asked for the format's own conversion (`lossy`).
"""

from __future__ import annotations

import codecs
import importlib
import io
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from richstore.codec.policy import ANY, ClassPolicy
from richstore.documents.comparing import difference, short
from richstore.engines.base import HEADER_MAGIC
from richstore.errors import EncodingError, FormatError, UntrustedClassError, WrongKeyError

__all__ = ["Format", "resolve"]

_SUFFIXES = {
    ".json": "json",
    ".pickle": "pickle",
    ".pkl": "pickle",
    ".bson": "bson",
    ".msgpack": "msgpack",
    ".mpk": "msgpack",
}
# how many steps inwards the part of a value is looked for that cannot be stored
_DEEP = 200


class Format:
    """One format with its options.

    Args:
        name: what errors call it.
        dumps: value to text or bytes.
        loads: text or bytes to value.
        is_binary: whether `loads` takes bytes.
        exact: whether everything that `dumps` takes comes back equal.
        lossy: whether what does not come back equal is taken all the same.
        strict: bytes to value under a policy; None for a format that makes nothing of classes.
    """

    def __init__(
        self,
        name: str,
        dumps: Callable[[Any], Any],
        loads: Callable[[Any], Any],
        *,
        is_binary: bool,
        exact: bool = False,
        lossy: bool = False,
        strict: Callable[[bytes, Any], Any] | None = None,
    ) -> None:
        self._strict = strict
        self.name = name
        self._dumps = dumps
        self._loads = loads
        self._is_binary = is_binary
        self._exact = exact or lossy

    def encode(self, value: Any, classes: ClassPolicy = ANY) -> bytes:
        """Return the bytes of a plain value.

        Args:
            value: the value.
            classes: the policy under which they will be read again.

        Raises:
            EncodingError: the format cannot hold it, or would give something else back.
            UntrustedClassError: it could not be read again.
        """
        try:
            data = self._to_bytes(value)
        except MemoryError:
            raise
        except Exception as error:
            path, cause = self._first_failure(value, error, self._to_bytes)
            raise EncodingError(
                f"{self.name} cannot hold it ({type(cause).__name__}: {cause}); store another "
                f"type there, or open the document with another format",
                path,
            ) from error
        if classes.strict and self._strict is not None:
            self._strict(data, classes)
        if not self._exact:
            self._check(value, data)
        return data

    def _check(self, value: Any, data: bytes) -> None:
        try:
            back = self._from_bytes(data)
        except MemoryError:
            raise
        except Exception as error:
            path, cause = self._first_failure(value, error, self._both_ways)
            raise EncodingError(
                f"{self.name} could not read again what it wrote "
                f"({type(cause).__name__}: {cause}); store another type there, or open the "
                f"document with another format",
                path,
            ) from error
        try:
            found = difference(value, back)
        except Exception as error:
            raise EncodingError(
                f"what {self.name} gives back could not be compared with the value "
                f"({type(error).__name__}: {error}); store another type, or open the document "
                f"with lossy=True or another format"
            ) from error
        if found is not None:
            path, ours, theirs = found
            raise EncodingError(
                f"{self.name} would give {theirs} back for {ours}; store another type "
                f"there, or open the document with lossy=True or another format",
                path,
            )

    def decode(self, data: bytes, location: str, classes: ClassPolicy = ANY) -> Any:
        """Return the value that bytes stand for.

        Args:
            data: the bytes.
            location: where they come from, for errors.
            classes: says what they may name.

        Raises:
            FormatError: they are not of this format.
            WrongKeyError: they are encrypted.
            UntrustedClassError: they name what is not allowed.
        """
        if data.startswith(HEADER_MAGIC):
            raise WrongKeyError(f"{location} is encrypted; open it with key=…")
        if not data:
            raise FormatError(
                f"{location} is empty, which is no {self.name}; restore it, or delete it to begin "
                f"with the default"
            )
        try:
            if classes.strict and self._strict is not None:
                return self._strict(data, classes)
            return self._from_bytes(data)
        except MemoryError:
            raise
        except UntrustedClassError as error:
            raise error.inside(location) from None
        except (ImportError, AttributeError) as error:
            error.add_note(f"richstore: while reading {location}")
            raise
        except Exception as error:
            raise FormatError(
                f"{location} is not {self.name} ({type(error).__name__}: {error}); nothing was "
                f"changed: correct it, or give the format that it has"
            ) from error

    def _to_bytes(self, value: Any) -> bytes:
        data = self._dumps(value)
        if isinstance(data, str):
            return data.encode("utf-8")
        return bytes(data)

    def _from_bytes(self, data: bytes) -> Any:
        if self._is_binary:
            return self._loads(data)
        return self._loads(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))

    def _both_ways(self, value: Any) -> None:
        self._from_bytes(self._to_bytes(value))

    @staticmethod
    def _first_failure(
        value: Any, error: Exception, attempt: Callable[[Any], object]
    ) -> tuple[str, Exception]:
        """Return the path to the innermost thing that fails, and its error."""
        path = ""
        seen = {id(value)}
        # of a value that is too deep, the innermost things are too many, and say nothing
        for _ in range(_DEEP):
            if isinstance(error, RecursionError):
                break
            for step, inner, whole in _children(value):
                failure = _failure(attempt, whole)
                if failure is not None and id(inner) not in seen:
                    path, value, error = path + step, inner, failure
                    seen.add(id(inner))
                    break
            else:
                break
        return path, error


def _failure(attempt: Callable[[Any], object], value: Any) -> Exception | None:
    failure: Exception | None = None
    # some formats take nothing but dicts outermost
    for whole in (value, {"value": value}):
        try:
            attempt(whole)
        except Exception as error:  # noqa: BLE001 - whatever a format raises
            failure = error
        else:
            return None
    return failure


def _children(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the steps to the parts of a container, the parts, and what to try for each."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"[{short(key)}]", key, {key: None}
            yield f"[{short(key)}]", inner, inner
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield f"[{at}]", inner, inner


def resolve(
    format: Any,
    name: str,
    *,
    is_binary: bool | None = None,
    load_kwargs: Mapping[str, Any] | None = None,
    dump_kwargs: Mapping[str, Any] | None = None,
    lossy: bool = False,
) -> Format:
    """Return the format that a user means.

    Args:
        format: a name, a module or object with `dumps` and `loads` or `dump` and `load`, or None:
            what the suffix of the name says, else JSON.
        name: of the file or object.
        is_binary: whether a module or object reads and writes bytes; None: JSON does not, all
            others do.
        load_kwargs: for reading.
        dump_kwargs: for writing.
        lossy: see `Format`.

    Raises:
        ValueError: the format is none of these.
        ModuleNotFoundError: its extra is not installed.
    """
    load, dump = dict(load_kwargs or {}), dict(dump_kwargs or {})
    if format is None:
        suffix = name[name.rfind(".") :].lower() if "." in name else ""
        format = _SUFFIXES.get(suffix, "json")
    if format is json:
        format = "json"
    if format is pickle:
        format = "pickle"
    if getattr(format, "__name__", None) == "cloudpickle":
        # gives back what it was given, classes and functions too, as pickle does
        found = _custom(format, True, load, dump, lossy=True)
        found._strict = _refuse_code
        return found
    if not isinstance(format, str):
        return _custom(format, is_binary, load, dump, lossy)
    if format == "json":
        return _json(load, dump, lossy)
    if format == "pickle":
        return _pickle(load, dump)
    if format == "bson":
        return _bson(load, dump, lossy)
    if format == "msgpack":
        module = _extra("msgpack", "msgpack")
        return Format(
            "msgpack",
            lambda value: module.packb(value, **dump),
            lambda data: module.unpackb(data, **{"strict_map_key": False, **load}),
            is_binary=True,
            lossy=lossy,
        )
    raise ValueError(
        f"format is {format!r}, and must be 'json', 'pickle', 'bson', 'msgpack', or a module or "
        f"object with dump and load or dumps and loads"
    )


def _pickle(load: dict[str, Any], dump: dict[str, Any]) -> Format:
    """Return the format of pickle documents, which obey the same policies as stores."""
    return Format(
        "pickle",
        lambda value: pickle.dumps(value, **{"protocol": 5, **dump}),
        lambda data: pickle.loads(data, **load),
        is_binary=True,
        exact=True,
        strict=_load_strictly,
    )


def _load_strictly(data: bytes, classes: Any) -> Any:
    from richstore.codec import strict  # loads much of the standard library

    return strict.load(data, classes, document=True)


def _refuse_code(data: bytes, classes: Any) -> Any:
    raise classes.refusal("what cloudpickle writes, which is code,", "was not run", by_value=True)


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"documents in {extra} need a package more: pip install 'richstore[{extra}]'",
            name=module,
        ) from error


def _json(load: dict[str, Any], dump: dict[str, Any], lossy: bool) -> Format:
    options = {"ensure_ascii": False, "allow_nan": lossy, **dump}

    def dumps(value: Any) -> bytes:
        text = json.dumps(value, **options)
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError:
            # half a surrogate pair, which only an escape can hold
            return json.dumps(value, **{**options, "ensure_ascii": True}).encode("ascii")

    return Format(
        "JSON", dumps, lambda text: json.loads(text, **load), is_binary=False, lossy=lossy
    )


def _bson(load: dict[str, Any], dump: dict[str, Any], lossy: bool) -> Format:
    module = _extra("bson", "bson")
    if not hasattr(module, "encode"):
        raise ModuleNotFoundError(
            "the package `bson` that is installed is not that of pymongo; pip install "
            "'richstore[bson]' in its place",
            name="bson",
        )
    options = {"codec_options": _with_plain_ints(), **load}

    def dumps(value: Any) -> bytes:
        if not isinstance(value, dict):
            raise TypeError("the outermost value must be a dict")
        return bytes(module.encode(value, **dump))

    return Format(
        "BSON", dumps, lambda data: module.decode(data, **options), is_binary=True, lossy=lossy
    )


def _with_plain_ints() -> Any:
    """Return the options with which BSON's integers of 64 bits are read as int, not as `Int64`."""
    codec = importlib.import_module("bson.codec_options")
    int64 = importlib.import_module("bson.int64").Int64

    class PlainInts(codec.TypeDecoder):  # type: ignore[misc, name-defined]
        bson_type = int64

        def transform_bson(self, value: Any) -> int:
            """Return the number itself."""
            return int(value)

    return codec.CodecOptions(type_registry=codec.TypeRegistry([PlainInts()]))


def _custom(
    format: Any, is_binary: bool | None, load: dict[str, Any], dump: dict[str, Any], lossy: bool
) -> Format:
    binary = is_binary is None or is_binary
    name = getattr(format, "__name__", type(format).__name__)
    if hasattr(format, "dumps") and hasattr(format, "loads"):
        return Format(
            name,
            lambda value: format.dumps(value, **dump),
            lambda data: format.loads(data, **load),
            is_binary=binary,
            lossy=lossy,
        )
    if hasattr(format, "dump") and hasattr(format, "load"):

        def dumps(value: Any) -> Any:
            file: Any = io.BytesIO() if binary else io.StringIO()
            format.dump(value, file, **dump)
            return file.getvalue()

        def loads(data: Any) -> Any:
            return format.load(io.BytesIO(data) if binary else io.StringIO(data), **load)

        return Format(name, dumps, loads, is_binary=binary, lossy=lossy)
    raise ValueError(
        f"format is {format!r}, and must be 'json', 'pickle', 'bson', 'msgpack', or a module or "
        f"object with dump and load or dumps and loads"
    )
