"""Classes and functions as bytes: by name where a name finds them, by value where none does.

A class or function is *importable* when its module, imported again anywhere, has it under its
qualified name. What is not (defined in `__main__`, inside a function, in a notebook) is stored by
value with cloudpickle. Reading such a class in a process that has the live one gives the live one,
untouched: cloudpickle itself would write the stored attributes over it.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import io
import pickle
import sys
import types
import uuid
import weakref
from typing import Any

import cloudpickle

from richstore.errors import EncodingError

__all__ = [
    "by_value",
    "class_from_bytes",
    "class_to_bytes",
    "is_importable",
    "original_class",
    "resolve",
    "runs_code",
]

_BY_NAME = b"n"
_BY_VALUE = b"v"

# A class's stored form is fixed when it is first needed: making it takes cloudpickle 100 µs.
_class_bytes: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


# Classes read by value keep the identity they had when they were stored, so that two records of
# one class give instances of one class.
_live_by_id: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_id_of_class: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def is_importable(thing: Any) -> bool:
    """Tell whether importing the module of a class or function finds that same object."""
    module = getattr(thing, "__module__", None)
    if not isinstance(module, str) or module == "__main__":
        return False
    try:
        return _find(sys.modules[module], thing.__qualname__) is thing
    except (KeyError, AttributeError):
        return False


def resolve(module: str, qualname: str) -> Any:
    """Import `module` and return what it has under `qualname`; the one place that imports."""
    found = sys.modules.get(module)
    if found is None:
        found = importlib.import_module(module)
    return _find(found, qualname)


def _find(module: types.ModuleType, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def class_to_bytes(cls: type) -> bytes:
    """Return the stored form of a class."""
    stored = _class_bytes.get(cls)
    if stored is None:
        if is_importable(cls):
            stored = _BY_NAME + f"{cls.__module__}\0{cls.__qualname__}".encode()
        else:
            try:
                stored = _BY_VALUE + pickle.dumps(_class_parts(cls), 5)
            except EncodingError:
                raise
            except Exception as error:
                raise EncodingError(
                    f"the class {cls.__module__}.{cls.__qualname__} cannot be stored by value "
                    f"({type(error).__name__}: {error}); define it in a module that can be imported"
                ) from error
        _class_bytes[cls] = stored
    return stored


def class_from_bytes(stored: bytes) -> type:
    """Return the class whose stored form this is; the live one wherever there is one."""
    if stored[:1] == _BY_NAME:
        module, qualname = stored[1:].decode().split("\0")
        found: type = resolve(module, qualname)
        return found
    return class_by_value(*pickle.loads(stored[1:]))


def by_value(thing: Any) -> tuple[Any, ...]:
    """Return the reduction (function, arguments) of a class or function that no name finds."""
    if isinstance(thing, type):
        return class_by_value, _class_parts(thing)
    return function_by_value, (_dumps(thing),)


def class_by_value(identity: str, module: str, qualname: str, stored: bytes) -> type:
    """Return the live class of this identity or name, or else make it from its stored form."""
    live = _live_by_id.get(identity)
    if live is None:
        live = _live_by_name(module, qualname)
    if live is None:
        live = pickle.loads(stored)
        _class_bytes[live] = _BY_VALUE + pickle.dumps((identity, module, qualname, stored), 5)
        _id_of_class[live] = identity
    _live_by_id[identity] = live
    return live


def function_by_value(stored: bytes) -> Any:
    """Make a function from its stored form."""
    return pickle.loads(stored)


def _live_by_name(module: str, qualname: str) -> type | None:
    try:
        found = _find(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def _class_parts(cls: type, inside: tuple[Any, ...] = ()) -> tuple[str, str, str, bytes]:
    identity = _id_of_class.get(cls)
    if identity is None:
        identity = _id_of_class[cls] = uuid.uuid4().hex
    _live_by_id[identity] = cls
    return identity, cls.__module__, cls.__qualname__, _dumps(cls, inside)


class _ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle for one class or function; other classes inside go by our own rules."""

    def __init__(self, file: io.BytesIO, inside: tuple[Any, ...]) -> None:
        super().__init__(file, 5)
        self.inside = inside

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            obj = original_class(obj)
            known = obj in (type(None), type(NotImplemented), type(...))
            # Two classes that refer to each other would never end: the inner reference is
            # left to cloudpickle, which keeps both in one piece.
            if not known and obj not in self.inside and not is_importable(obj):
                return class_by_value, _class_parts(obj, self.inside)
        if isinstance(obj, functools.cached_property):
            # on Python 3.11 it holds a lock
            return _cached_property, (obj.func, obj.attrname)
        return super().reducer_override(obj)


def _cached_property(function: Any, name: str | None) -> Any:
    made: functools.cached_property[Any] = functools.cached_property(function)
    if name is not None:
        made.__set_name__(object, name)
    return made


def original_class(cls: type) -> type:
    """Return the user's class behind a generated one, or the class itself."""
    found: type = vars(cls).get("__richstore_class__", cls)
    return found


def _dumps(thing: Any, inside: tuple[Any, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    _ByValuePickler(buffer, (*inside, thing)).dump(thing)
    return buffer.getvalue()


# What pickle asks an object for.
_ASKED = (
    "__getattribute__",
    "__getattr__",
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__getnewargs_ex__",
    "__getnewargs__",
)
_runs_code: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def runs_code(cls: type) -> bool:
    """Tell whether pickling an instance runs Python code that is not the standard library's."""
    found = _runs_code.get(cls)
    if found is None:
        asked = [getattr(cls, name, None) for name in _ASKED]
        found = _runs_code[cls] = (
            issubclass(cls, (type, types.FunctionType))
            or cls in copyreg.dispatch_table
            or any(map(_is_foreign, asked))
        )
    return found


def _is_foreign(function: Any) -> bool:
    if not isinstance(function, types.FunctionType):
        return False
    return function.__module__.partition(".")[0] not in sys.stdlib_module_names
