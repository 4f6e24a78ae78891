"""Members of enumerations, stored by class and name.

Pickle stores most by their values, and calls the class with the value to read one, which may run a
`_missing_` and finds nothing when the value has changed. `member` is named in records; what it
takes and returns is part of the format.
"""

from __future__ import annotations

import enum
from typing import Any

from richstore.codec.missing import MissingType, placeholder

__all__ = ["by_name", "member"]


def member(cls: Any, name: str) -> Any:
    """Return a member of an enumeration, or a placeholder where that cannot be found."""
    if isinstance(cls, MissingType):
        return placeholder(cls, member, (cls, name))
    try:
        return type.__getattribute__(cls, "_member_map_")[name]
    except KeyError:
        raise ValueError(f"{cls.__module__}.{cls.__qualname__} has no member {name}") from None


def by_name(value: enum.Enum) -> tuple[Any, ...] | None:
    """Return the reduction of a member; None where pickle is to ask the class itself.

    That is so for combinations of flags, which have no name, and for classes with a reduction of
    their own.
    """
    cls = type(value)
    for base in cls.__mro__:
        own = vars(base)
        if base.__module__ != "enum" and ("__reduce_ex__" in own or "__reduce__" in own):
            return None
        if base is enum.Enum:
            break
    name = value._name_
    if type(name) is str and cls._member_map_.get(name) is value:
        return member, (cls, name)
    return None
