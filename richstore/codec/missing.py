"""Placeholders: what stands for a class or function that cannot be found, and for what it made.

A *stand-in* is a class generated for one missing name; it stands for the class or function.
Its instances, the placeholders, keep how pickle made them and what it put into them (`Kept`), so
that they are written as they were read. They compare by what they hold and hash by identity:
whether the missing class has equality of its own is not known, and a set must lose none of them.
"""

from __future__ import annotations

import copy
import copyreg
import reprlib
import weakref
from typing import Any

from richstore.codec.notes import Notes, current_notes, reading
from richstore.errors import MissingClassError

__all__ = [
    "Kept",
    "Missing",
    "MissingType",
    "attributes",
    "kept_of",
    "placeholder",
    "reduction",
    "stand_in",
]


class MissingType(type):
    """The class of stand-ins."""

    __richstore_missing__: str
    __richstore_reason__: str
    _richstore_reduction: tuple[Any, ...]

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        """Make a placeholder while a record is read; else say what is missing."""
        if current_notes() is None:
            raise missing_error(cls, "be called")
        made = _placeholder(cls)
        kept_of(made).made = (cls, arguments)
        return made

    def __instancecheck__(cls, value: Any) -> bool:
        return super().__instancecheck__(value) or (
            cls is Missing and isinstance(value, MissingType) and value is not Missing
        )

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_") or current_notes() is None:
            raise AttributeError(
                f"{cls.__name__} has no attribute {name!r} ({_explained(cls)})", name=name, obj=cls
            )
        # members of enums and class methods are written as attributes of their class
        made = _placeholder(cls)
        kept_of(made).made = (getattr, (cls, name))
        return made

    def __repr__(cls) -> str:
        return f"<missing {getattr(cls, '__richstore_missing__', 'class')}>"


class Kept:
    """What a placeholder keeps.

    Attributes:
        made: the function and arguments that make the object; None: `__new__` without arguments.
        state: what it is given then; None: nothing.
        items, pairs: what it is extended by.
        setter: the function that gives it the state; None: as pickle does.
        whole: a function and arguments that make the object with all of this.
        key: of the key of a store, what it is stored under.
        is_node: whether it is, or was, a node of a record and not part of an immutable value.
    """

    __slots__ = ("is_node", "items", "key", "made", "pairs", "setter", "state", "whole")

    def __init__(self) -> None:
        self.made: tuple[Any, tuple[Any, ...]] | None = None
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []
        self.setter: Any = None
        self.whole: tuple[Any, tuple[Any, ...]] | None = None
        self.is_node = False
        self.key: bytes | None = None

    def parts(self) -> tuple[Any, ...]:
        """Return what it keeps."""
        return self.made, self.state, self.items, self.pairs, self.setter, self.whole

    def with_parts(self, parts: tuple[Any, ...]) -> Kept:
        """Return one that keeps other parts."""
        other = Kept()
        other.made, other.state, other.items, other.pairs, other.setter, other.whole = parts
        other.is_node, other.key = self.is_node, self.key
        return other


class Missing(metaclass=MissingType):
    """What a class or function that cannot be found reads as, and every object that it made.

    Its attributes can be read, and it is written again as it was. Changing it raises
    `MissingClassError`.

    Attributes:
        __richstore_missing__: the name that was not found: `"app.models.User"`.
        __richstore_reason__: the text of the error that came when it was looked for.

    Example:
        >>> import richstore
        >>> isinstance([], richstore.Missing)
        False
    """

    __slots__ = ("__weakref__", "_richstore_kept")
    _richstore_kept: Kept

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """Return a placeholder for what pickle would make by `__new__`."""
        made = object.__new__(cls)
        kept = Kept()
        if named:
            kept.made = (copyreg.__newobj_ex__, (cls, arguments, named))  # type: ignore[attr-defined]
        elif arguments:
            kept.made = (copyreg.__newobj__, (cls, *arguments))  # type: ignore[attr-defined]
        _SLOT.__set__(made, kept)
        return made

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("__", "_richstore")):
            kept = kept_of(self)
            if name in ("append", "extend", "add") and current_notes() is not None:
                return kept.items.extend if name == "extend" else kept.items.append
            found = attributes(kept)
            if name in found:
                return found[name]
        cls = self.__class__
        raise AttributeError(
            f"{cls.__name__!r} object has no attribute {name!r} ({_explained(cls)})",
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise missing_error(self.__class__, "be changed")

    def __delattr__(self, name: str) -> None:
        raise missing_error(self.__class__, "be changed")

    def __setitem__(self, key: Any, value: Any) -> None:
        if current_notes() is None:
            raise missing_error(self.__class__, "be changed")
        kept_of(self).pairs.append((key, value))

    def __call__(self, *arguments: Any) -> Any:
        """Stand for what a class method of a missing class would make."""
        if current_notes() is None:
            raise missing_error(self.__class__, "be called")
        made = Missing.__new__(self.__class__)
        kept_of(made).made = (self, arguments)
        return made

    def __setstate__(self, state: Any) -> None:
        kept_of(self).state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        kept = kept_of(self)
        function, arguments, *rest = reduction(self.__class__, kept)
        # what pickle makes of it is made while a record is read, or there is the class again
        return _made_again, (function, arguments, kept.is_node), *rest

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = Missing.__new__(self.__class__)
        memo[id(self)] = made
        kept = kept_of(self)
        _SLOT.__set__(made, kept.with_parts(copy.deepcopy(kept.parts(), memo)))
        return made

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other.__class__, MissingType) or isinstance(other, type):
            return NotImplemented
        if self.__class__ is not other.__class__:
            return False
        return kept_of(self).parts() == kept_of(other).parts()

    __hash__ = object.__hash__

    @reprlib.recursive_repr("<missing …>")
    def __repr__(self) -> str:
        kept = kept_of(self)
        shown = [repr(one) for one in _arguments(kept)]
        shown += [f"{name}={value!r}" for name, value in attributes(kept).items()]
        inside, rest = _inside(kept)
        shown += [repr(one) for one in (*inside, *rest)]
        return " ".join([f"<missing {self.__richstore_missing__}", *shown]) + ">"


def placeholder(cls: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a placeholder for what a function makes of a missing class."""
    made = _placeholder(cls)
    kept_of(made).made = (function, arguments)
    return made


def _placeholder(cls: Any) -> Any:
    """Return a placeholder that keeps nothing yet."""
    return Missing.__new__(cls)


_SLOT: Any = vars(Missing)["_richstore_kept"]


def kept_of(placeholder: Any) -> Kept:
    """Return what a placeholder keeps."""
    try:
        found: Kept = placeholder._richstore_kept
    except AttributeError:
        found = Kept()
        _SLOT.__set__(placeholder, found)
    return found


def keep(placeholder: Any, kept: Kept) -> None:
    """Let a placeholder keep something."""
    _SLOT.__set__(placeholder, kept)


def keep_state(placeholder: Any, setter: Any, state: Any) -> None:
    """Let a placeholder keep a state that a function of ours gives it."""
    kept = kept_of(placeholder)
    kept.setter, kept.state = setter, state


def missing_error(cls: Any, what: str) -> MissingClassError:
    """Return the error for a use of a placeholder that needs the class."""
    return MissingClassError(
        f"{cls.__richstore_missing__} cannot be found ({cls.__richstore_reason__}), so what stands "
        f"for it cannot {what}; install or import its module, or say by "
        f"richstore.renamed({cls.__richstore_missing__!r}, …) what it is called now"
    )


def _explained(cls: Any) -> str:
    if "__richstore_missing__" not in dir(cls):
        return "a placeholder"
    return f"{cls.__richstore_missing__} cannot be found: {cls.__richstore_reason__}"


def reduction(cls: Any, kept: Kept) -> tuple[Any, ...]:
    """Return the reduction that pickle read a placeholder from."""
    if kept.whole is not None:
        return kept.whole
    function, arguments = kept.made or (copyreg.__newobj__, (cls,))  # type: ignore[attr-defined]
    items = iter(kept.items) if kept.items else None
    pairs = iter(kept.pairs) if kept.pairs else None
    return function, arguments, kept.state, items, pairs, kept.setter


def _made_again(function: Any, arguments: tuple[Any, ...], is_node: bool) -> Any:
    """Make what a pickled placeholder stands for."""
    with reading(current_notes() or Notes()):
        made = function(*arguments)
    if isinstance(type(made), MissingType):
        kept_of(made).is_node = is_node
    return made


def attributes(kept: Kept) -> dict[str, Any]:
    """Return the attributes in a state, where it is one of those that pickle makes by itself."""
    state = kept.state
    if kept.setter is not None:
        # of functions of ours, which have the attributes or the state second
        state = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if isinstance(state, tuple) and len(state) == 2:
        both = [one for one in state if isinstance(one, dict)]
        state = {name: value for one in both for name, value in one.items()}
    return state if isinstance(state, dict) else {}


def _inside(kept: Kept) -> tuple[list[Any], list[Any]]:
    """Return what a placeholder holds besides attributes, and a state of another make."""
    state = kept.state
    items: list[Any] = [*kept.items, *([dict(kept.pairs)] if kept.pairs else [])]
    if kept.setter is not None and isinstance(state, tuple) and len(state) > 1:
        if isinstance(state[0], (list, dict, set, tuple)):
            items.append(state[0])
        return items, []
    pair = isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict)
    return items, [] if state is None or pair or isinstance(state, dict) else [state]


def _arguments(kept: Kept) -> tuple[Any, ...]:
    made = kept.made
    if made is None:
        return ()
    arguments = made[1]
    return tuple(one for one in arguments if not isinstance(one, MissingType) and one is not None)


# The stand-ins in use, by the stored form of what they stand for.
_stand_ins: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()


def stand_in(stored: bytes, module: str, qualname: str, reason: str, reduced: Any) -> Any:
    """Return the class that stands for a missing class or function.

    Args:
        stored: its stored form, as classes have one.
        module, qualname: its name.
        reason: why it cannot be had.
        reduced: the function and arguments that pickle is to name it by.
    """
    found = _stand_ins.get(stored)
    if found is None:
        found = type.__new__(
            MissingType,
            qualname.rpartition(".")[2],
            (Missing,),
            {
                "__slots__": (),
                "__module__": module,
                "__qualname__": qualname,
                "__doc__": None,
                "__richstore_missing__": f"{module}.{qualname}",
                "_richstore_reduction": reduced,
            },
        )
        found = _stand_ins.setdefault(stored, found)
    found.__richstore_reason__ = reason  # type: ignore[attr-defined]
    return found


copyreg.pickle(MissingType, lambda cls: cls._richstore_reduction)
