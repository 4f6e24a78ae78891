"""Pickles that richstore has not written as records, read under the rules of a policy.

`load` reads one pickle. A `Reading` reads several that belong together, as the records of ZODB do:
classes can have stand-ins, and what a pickle refers to outside of itself is asked for.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from richstore.codec.classes import upgraded
from richstore.codec.containers import restore
from richstore.codec.notes import Notes, reading
from richstore.codec.policy import ClassPolicy, StrictPolicy
from richstore.codec.renames import new_name

__all__ = ["Reading", "load"]

# Stand-ins for classes and functions, by module and qualified name.
StandIns = Mapping[tuple[str, str], Any]
Fetch = Callable[[Any], Any]


def load(
    data: bytes,
    classes: ClassPolicy,
    *,
    stand_ins: StandIns | None = None,
    constants: Iterable[Any] = (),
) -> Any:
    """Return the value of a pickle.

    Args:
        data: it, of protocol 2 to 5; of any protocol where everything is allowed.
        classes: says what it may name.
        stand_ins: what is taken for some classes and functions, whether they are allowed or not.
        constants: values that it takes as buffers from outside, one after the other.

    Raises:
        UntrustedClassError: it names what is not allowed.
        CorruptionError: it is nothing that pickle has written; other errors where all is allowed.
        UpgradeError: an instance cannot be upgraded to the version that its class has.
    """
    return Reading(classes, stand_ins, constants=constants).next(data)


class Reading:
    """Reads pickles with one memo.

    Args:
        classes: says what they may name.
        stand_ins: what is taken for some classes and functions.
        fetch: returns what a persistent id stands for.
        constants: values that they take as buffers from outside, one after the other.
    """

    def __init__(
        self,
        classes: ClassPolicy,
        stand_ins: StandIns | None = None,
        fetch: Fetch | None = None,
        constants: Iterable[Any] = (),
    ) -> None:
        self._classes = classes
        self._stand_ins = stand_ins or {}
        self._fetch = fetch
        self._constants = iter(constants)
        self._reader: Any = None

    def next(self, data: bytes | None = None) -> Any:
        """Return the value of the first pickle of `data`, or of the one behind the last."""
        if data is not None:
            self._begin(data)
        notes = Notes()
        with reading(notes):
            value = self._reader.load()
        for raw, version, state in notes.pending.values():
            restore(raw, upgraded(type(raw), state, version))
        return value

    def new(self, cls: Any, arguments: tuple[Any, ...]) -> Any:
        """Return a new object of a class that the last pickle has named, without a state."""
        return self._reader.new(cls, arguments, {})

    def build(self, target: Any, state: Any) -> None:
        """Give an object that `new` has made its state."""
        self._reader.build(target, state)

    def _begin(self, data: bytes) -> None:
        if isinstance(self._classes, StrictPolicy):
            from richstore.codec import strict  # loads much of the standard library

            self._reader = strict.ForeignReader.on(
                data, self._classes, self._constants, self._stand_ins, self._fetch
            )
        else:
            self._reader = _Trusting(io.BytesIO(data), buffers=self._constants)
            self._reader.stand_ins = self._stand_ins
            self._reader.fetch = self._fetch


class _Trusting(pickle.Unpickler):
    """Finds everything that can be imported, under the name that it has now."""

    stand_ins: StandIns
    fetch: Fetch | None

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        stand_in = self.stand_ins.get((module, name))
        if stand_in is not None:
            return stand_in
        return new_name(module, name) or super().find_class(module, name)

    def persistent_load(self, reference: Any) -> Any:
        """Return what a persistent id stands for."""
        if self.fetch is None:
            raise pickle.UnpicklingError("it refers to what is not in it")
        return self.fetch(reference)

    def new(self, cls: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return a new object."""
        return cls.__new__(cls, *arguments, **named)

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        restore(target, state)
