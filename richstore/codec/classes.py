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
import threading
import types
import uuid
import weakref
from typing import Any, NamedTuple

import cloudpickle

from richstore.codec.missing import Missing, MissingType, stand_in
from richstore.codec.notes import current_notes
from richstore.codec.renames import mentions_old_name, names_of_now, new_name
from richstore.errors import EncodingError, RichStoreError, UpgradeError

__all__ = [
    "UPGRADING",
    "by_value",
    "check_version",
    "class_from_bytes",
    "class_to_bytes",
    "is_current",
    "is_importable",
    "name_in",
    "named",
    "original_class",
    "resolve",
    "runs_code",
    "upgraded",
    "version_in",
    "version_of",
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
    """Return what `module` has under `qualname`, or what is called otherwise now.

    What cannot be found is given as a stand-in, see `missing`.
    """
    found, reason = _looked_for(module, qualname)
    if reason is None:
        return found
    stored = _BY_NAME + f"{module}\0{qualname}".encode()
    return _stand_in_by_name(stored, module, qualname, reason)


def _looked_for(module: str, qualname: str) -> tuple[Any, str | None]:
    """Import `module` and return what it has under `qualname`, or why that cannot be had.

    The one place that imports.
    """
    try:
        found: Any = new_name(module, qualname)
        if found is not None:
            notes = current_notes()
            if notes is not None:
                notes.outdated = True
            return found, None
    except AttributeError as error:
        return None, str(error)
    found = sys.modules.get(module)
    if found is None:
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            return None, f"{type(error).__name__}: {error}"
    try:
        return _find(found, qualname), None
    except AttributeError as error:
        return None, f"{type(error).__name__}: {error}"


def named(module: str, qualname: str) -> Any:
    """Return what a name finds; pickles that hold a stand-in name it through this function.

    Streams of records are given one instead that asks the policy of the store.
    """
    return resolve(module, qualname)


def _stand_in_by_name(stored: bytes, module: str, qualname: str, reason: str) -> Any:
    made = stand_in(stored, module, qualname, reason, (named, (module, qualname)))
    _class_bytes[made] = stored
    return made


def _find(module: types.ModuleType, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def version_of(cls: Any) -> int:
    """Return the version of a class, which it says by `__richstore_version__`.

    Raises:
        EncodingError: that is no version.
    """
    version = getattr(cls, "__richstore_version__", 0)
    if type(version) is not int or version < 0:
        raise EncodingError(
            f"the __richstore_version__ of {cls.__module__}.{cls.__qualname__} is {version!r}, and "
            f"must be an int that is not negative"
        )
    return version


def class_to_bytes(cls: type) -> bytes:
    """Return the stored form of a class."""
    stored = _class_bytes.get(cls)
    if stored is None:
        version = version_of(cls)
        if is_importable(cls):
            said = f"\0{version}" if version else ""
            stored = _BY_NAME + f"{cls.__module__}\0{cls.__qualname__}{said}".encode()
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


def name_in(stored: bytes) -> tuple[str, str]:
    """Return the module and qualified name in the stored form of a class."""
    if stored[:1] == _BY_NAME:
        module, qualname = stored[1:].decode().split("\0")[:2]
    else:
        module, qualname = pickle.loads(stored[1:])[1:3]
    return module, qualname


def version_in(stored: bytes) -> int:
    """Return the version in the stored form of a class."""
    if stored[:1] == _BY_NAME:
        said = stored[1:].split(b"\0")[2:]
        return int(said[0]) if said else 0
    parts = pickle.loads(stored[1:])
    return int(parts[4]) if len(parts) > 4 else 0


def upgraded(cls: Any, state: Any, version: int) -> Any:
    """Return the state of an older version as the class's `upgrade` makes it.

    Raises:
        UpgradeError: it cannot.
    """
    check_version(cls, version)
    name = f"{cls.__module__}.{cls.__qualname__}"
    said = f"an instance of {name} was written by version {version} of the class, and it has "
    said += f"version {version_of(cls)} now"
    upgrade = getattr(cls, "upgrade", None)
    if upgrade is None:
        raise UpgradeError(f"{said}, but no classmethod upgrade(cls, state, from_version)")
    thread = threading.get_ident()
    inside = thread in UPGRADING
    UPGRADING.add(thread)
    try:
        made = upgrade(state, version)
    except Exception as error:
        raise UpgradeError(f"{said}; its upgrade raised {type(error).__name__}: {error}") from error
    finally:
        if not inside:
            UPGRADING.discard(thread)
    if made is None:
        raise UpgradeError(f"{said}; its upgrade returned None, and has to return the new state")
    return made


# The threads that run the `upgrade` of a class.
UPGRADING: set[int] = set()


def check_version(cls: Any, version: int) -> None:
    """Raise `UpgradeError` if a stored version is one that the class does not have yet."""
    if version > version_of(cls):
        raise UpgradeError(
            f"an instance of {cls.__module__}.{cls.__qualname__} was written by version {version} "
            f"of the class, and this program has version {version_of(cls)}; it needs the newer one"
        )


class _Current(NamedTuple):
    """A class whose stored form is current, and where it was found."""

    cls: weakref.ref[type]
    module: types.ModuleType
    name: str
    names: Any


# By stored form, as loading an instance looks its class up.
_current: dict[bytes, _Current] = {}
_CURRENT = 4096


def _is_in_place(known: _Current, cls: type) -> bool:
    return (
        known.module.__dict__.get(known.name) is cls
        and sys.modules.get(cls.__module__) is known.module
        and known.names is names_of_now()
    )


def is_current(stored: bytes, cls: type) -> bool:
    """Tell whether the stored form of a class is the one that it is written with now."""
    known = _current.get(stored)
    if known is not None and known.cls() is cls and known.names is names_of_now():
        return True
    if isinstance(cls, MissingType):
        return True
    if stored[:1] == _BY_NAME:
        if stored == _class_bytes.get(cls):
            return True
        if is_importable(cls):
            return stored == class_to_bytes(cls)
        # found where it was written, and it would be written by value
        return version_in(stored) == version_of(cls)
    if mentions_old_name(stored):
        if stored == _class_bytes.get(cls):
            del _class_bytes[cls]
        return stored == class_to_bytes(cls)
    if stored == _class_bytes.get(cls):
        return True
    # each pickle of a class by value may be another
    return version_in(stored) == version_of(cls) and new_name(*name_in(stored)) is None


def class_from_bytes(stored: bytes) -> type:
    """Return the class whose stored form this is; the live one wherever there is one.

    For one that cannot be had there is a stand-in.
    """
    known = _current.get(stored)
    if known is not None:
        cls = known.cls()
        # as an import would find it now
        if cls is not None and _is_in_place(known, cls):
            return cls
        _current.pop(stored, None)
    if stored[:1] == _BY_NAME:
        module, qualname = name_in(stored)
        found, reason = _looked_for(module, qualname)
        if reason is None and not isinstance(found, type):
            reason = f"it is a {type(found).__name__} now, and no class"
        if reason is not None:
            found = _stand_in_by_name(stored, module, qualname, reason)
        elif "." not in qualname and is_current(stored, found):
            if len(_current) >= _CURRENT:
                _current.clear()
            place = sys.modules[found.__module__]
            _current[stored] = _Current(weakref.ref(found), place, qualname, names_of_now())
        by_name: type = found
        return by_name
    return class_by_value(*pickle.loads(stored[1:]))


def by_value(thing: Any) -> tuple[Any, ...]:
    """Return the reduction (function, arguments) of a class or function that no name finds."""
    if isinstance(thing, type):
        return class_by_value, _class_parts(thing)
    return function_by_value, (_dumps(thing),)


def class_by_value(
    identity: str, module: str, qualname: str, stored: bytes, version: int = 0
) -> type:
    """Return the live class of this identity or name, or else make it from its stored form."""
    found = new_name(module, qualname)
    if isinstance(found, type):
        _note_old_name()
        return found
    live = _live_by_id.get(identity)
    if live is None:
        live = _live_by_name(module, qualname)
    if live is None:
        parts = (identity, module, qualname, stored, *((version,) if version else ()))
        form = _BY_VALUE + pickle.dumps(parts, 5)
        live, reason = _made_from(stored)
        if reason:
            missing = stand_in(form, module, qualname, reason, (class_by_value, parts))
            _class_bytes[missing] = form
            made: type = missing
            return made
        if not mentions_old_name(stored):
            _class_bytes[live] = form
        _id_of_class[live] = identity
    if mentions_old_name(stored):
        _note_old_name()
    _live_by_id[identity] = live
    return live


def function_by_value(stored: bytes) -> Any:
    """Make a function from its stored form."""
    made, reason = _made_from(stored)
    if reason:
        reduced = (function_by_value, (stored,))
        return stand_in(b"f" + stored, "__main__", "function", reason, reduced)
    if mentions_old_name(stored):
        _note_old_name()
    return made


def _made_from(stored: bytes) -> tuple[Any, str]:
    """Return the class or function of a stored form, or None and why there is none."""
    try:
        return _ByValueUnpickler(io.BytesIO(stored)).load(), ""
    except RichStoreError:
        raise
    except Exception as error:  # noqa: BLE001 - unpickling code may raise anything
        return None, f"its code cannot be loaded: {type(error).__name__}: {error}"


def _note_old_name() -> None:
    notes = current_notes()
    if notes is not None:
        notes.outdated = True


class _ByValueUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found, reason = _looked_for(module, name)
        if reason is not None:
            # a class cannot have a placeholder for its base
            raise ImportError(f"{module}.{name} cannot be found ({reason})")
        return found


def _live_by_name(module: str, qualname: str) -> type | None:
    try:
        found = _find(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def _class_parts(cls: type, inside: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    identity = _id_of_class.get(cls)
    if identity is None:
        identity = _id_of_class[cls] = uuid.uuid4().hex
    _live_by_id[identity] = cls
    parts = identity, cls.__module__, cls.__qualname__, _dumps(cls, inside)
    version = version_of(cls)
    return (*parts, version) if version else parts


class _ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle for one class or function; other classes inside go by our own rules."""

    def __init__(self, file: io.BytesIO, inside: tuple[Any, ...]) -> None:
        super().__init__(file, 5)
        self.inside = inside

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            obj = original_class(obj)
            if isinstance(obj, MissingType) and obj is not Missing:
                return obj._richstore_reduction
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
