"""Whose code runs: which classes and functions a record may name, and how they are found.

A policy is asked wherever something stored is decoded, and wherever something is encoded that
would have to be decoded again. `ANY` finds everything that can be imported, as pickle does. All
others are *strict*: what is stored is read by `strict`, which calls nothing that the policy has not
allowed; the standard value types are read under every policy, by constructors of our own.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from richstore.codec import classes
from richstore.codec.renames import new_name
from richstore.errors import UntrustedClassError

__all__ = ["ANY", "NONE", "ClassPolicy", "StrictPolicy", "policy_of", "same_policy"]


class ClassPolicy:
    """Finds what records name: everything that can be imported."""

    __slots__ = ()
    strict = False

    def find(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name, or a stand-in if there is none.

        Raises:
            UntrustedClassError: the policy does not allow it; nothing was imported.
        """
        return classes.resolve(module, qualname)

    def class_of(self, stored: bytes) -> type:
        """Return the class whose stored form this is, or a stand-in if it cannot be had."""
        return classes.class_from_bytes(stored)

    def check_storable(self, thing: Any) -> None:
        """Raise `UntrustedClassError` if a class or function could not be read again."""

    def check_parts(self, name: bytes, parts: Any, root: bytes | None) -> None:
        """Raise `CorruptionError` if a record says of itself what no writer writes."""


ANY = ClassPolicy()


class StrictPolicy(ClassPolicy):
    """Finds nothing; a base of those that find something.

    Args:
        because: why nobody chose this policy, for errors.
    """

    __slots__ = ("because",)
    strict = True

    def __init__(self, because: str = "") -> None:
        self.because = because

    def allowed(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name, None if it is not allowed."""
        return None

    def find(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name that is allowed."""
        new = new_name(module, qualname)
        if new is not None:
            # what it is called now is what has to be allowed
            module, qualname = new.__module__, new.__qualname__
        found = self.allowed(module, qualname)
        if found is None or new not in (None, found):
            raise self.refusal(f"{module}.{qualname}", "was not imported")
        return found

    def class_of(self, stored: bytes) -> type:
        """Return the class whose stored form this is."""
        from richstore.codec import strict  # needs what it makes of the standard library

        return strict.class_of(self, stored)

    def check_storable(self, thing: Any) -> None:
        """Raise `UntrustedClassError` if a class or function could not be read again."""
        from richstore.codec import strict

        if strict.is_standard(thing):
            return
        module, qualname = thing.__module__, thing.__qualname__
        if not classes.is_importable(thing):
            raise self.refusal(
                f"{module}.{qualname}",
                "would be stored by value, since no import finds it, and was not stored",
                by_value=True,
            )
        if self.allowed(module, qualname) is not thing:
            raise self.refusal(f"{module}.{qualname}", "was not stored")

    def check_parts(self, name: bytes, parts: Any, root: bytes | None) -> None:
        """Raise `CorruptionError` if a record says of itself what no writer writes."""
        from richstore.codec import strict

        strict.check_parts(name, parts, root)

    def refusal(self, name: str, what: str, *, by_value: bool = False) -> UntrustedClassError:
        """Return the error for a class or function that is not allowed.

        Args:
            name: of it.
            what: became of it.
            by_value: whether only "any" would do.
        """
        name = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
        because = f", as {self.because}" if self.because else ""
        remedy = 'classes="any"' if by_value else "classes=[…] with it, or its module"
        return UntrustedClassError(
            f"{name} is not among the classes this is opened with{because}, so it {what}; if you "
            f"trust it, open with {remedy}"
        )


# Of a name in an error: it may be as long as a record.
_LONGEST = 200

NONE = StrictPolicy()


class Listed(StrictPolicy):
    """Finds some classes and functions, and what some modules define."""

    __slots__ = ("modules", "named")

    def __init__(self, things: Iterable[Any]) -> None:
        super().__init__()
        self.modules: dict[str, types.ModuleType] = {}
        self.named: dict[tuple[str, str], Any] = {}
        for one in things:
            if isinstance(one, types.ModuleType):
                self.modules[one.__name__] = one
            elif isinstance(one, (type, *_FUNCTIONS)):
                self.named[one.__module__, one.__qualname__] = one
            else:
                raise TypeError(
                    f"classes must hold classes and modules, and {one!r} is neither; to allow by "
                    f"names, give a function that tells whether a name is allowed"
                )

    def allowed(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name; nothing is imported."""
        found = self.named.get((module, qualname))
        if found is None and module in self.modules:
            return _defined_in(self.modules[module], module, qualname)
        return found


class Chosen(StrictPolicy):
    """Finds the classes and functions whose names a predicate accepts."""

    __slots__ = ("predicate",)

    def __init__(self, predicate: Callable[[str], Any]) -> None:
        super().__init__()
        self.predicate = predicate

    def allowed(self, module: str, qualname: str) -> Any:
        """Return the class or function of a name, imported when the predicate has accepted it."""
        if not self.predicate(f"{module}.{qualname}"):
            return None
        found = sys.modules.get(module)
        if found is None:
            found = importlib.import_module(module)
        return _defined_in(found, module, qualname)


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


def _defined_in(module: types.ModuleType, name: str, qualname: str) -> Any:
    """Return a class, or a function outside of classes, that a module itself defines, else None.

    What it has imported is not its own; and a method would be called apart from its object.
    """
    found: Any = module
    steps = qualname.split(".")
    for at, step in enumerate(steps, 1):
        found = vars(found).get(step)
        is_function = len(steps) == 1 and isinstance(found, _FUNCTIONS)
        if not (isinstance(found, type) or is_function):
            return None
        if found.__module__ != name or found.__qualname__ != ".".join(steps[:at]):
            return None
    return found


def policy_of(wanted: Any) -> ClassPolicy:
    """Return the policy that the argument `classes` of `open` stands for.

    Raises:
        ValueError: it is another word than "any" and "none".
        TypeError: it is nothing of what it can be.
    """
    if isinstance(wanted, str):
        if wanted not in ("any", "none"):
            raise ValueError(
                f"classes is {wanted!r}, and must be 'any', 'none', a list of classes and modules, "
                f"or a function that tells whether a name is allowed"
            )
        return ANY if wanted == "any" else NONE
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return Listed(wanted)
    if callable(wanted) and not isinstance(wanted, type):
        return Chosen(wanted)
    raise TypeError(
        f"classes must be 'any', 'none', a list of classes and modules, or a function that tells "
        f"whether a name is allowed, not a {type(wanted).__name__}"
    )


def same_policy(one: ClassPolicy, other: ClassPolicy) -> bool:
    """Tell whether two policies allow the same, for all that can be known."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Listed) and isinstance(other, Listed):
        return one.named == other.named and one.modules == other.modules
    if isinstance(one, Chosen) and isinstance(other, Chosen):
        return one.predicate == other.predicate
    return True
