"""Readers of pickles outside of records: those that `pickle.dumps` writes, and those of others."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from richstore.codec.policy import StrictPolicy
from richstore.codec.strict.opcodes import Reader

__all__ = ["ForeignReader", "PickleReader"]


def _named_by_line(reader: Reader) -> None:
    names: list[str] = []
    for _ in range(2):
        end = reader.data.index(b"\n", reader.at)
        names.append(reader.take(end - reader.at).decode())
        reader.at += 1
    module, qualname = names
    reader.stack.append(reader.find(_OLD_NAMES.get(module, module), qualname))


# Modules that protocols before 3 name as Python 2 did.
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class PickleReader(Reader):
    """Reads what `pickle.dumps` writes, protocols 2 to 5."""

    handlers: ClassVar = [
        *(_named_by_line if code == ord("c") else one for code, one in enumerate(Reader.handlers))
    ]


class ForeignReader(PickleReader):
    """Reads pickles of others, one after the other; the arguments are those of `foreign`."""

    # of a pickle inside of another one, which has none of these
    stand_ins: Mapping[tuple[str, str], Any] = types.MappingProxyType({})
    fetch: Callable[[Any], Any] | None = None
    constants: Iterator[Any] = iter(())

    @classmethod
    def on(
        cls,
        data: bytes,
        policy: StrictPolicy,
        constants: Iterator[Any],
        stand_ins: Mapping[tuple[str, str], Any],
        fetch: Callable[[Any], Any] | None,
    ) -> ForeignReader:
        """Return a reader."""
        reader = cls(data, policy, {})
        reader.constants = constants
        reader.stand_ins = stand_ins
        reader.fetch = fetch
        return reader

    def load(self) -> Any:
        """Return the value of the next pickle."""
        self.stack = []
        return self.run()

    def find(self, module: Any, qualname: Any) -> Any:
        """Return what a name stands for."""
        stand_in = self.stand_ins.get((module, qualname))
        if stand_in is None:
            return super().find(module, qualname)
        self.permitted[id(stand_in)] = stand_in
        return stand_in

    def refer(self) -> None:
        """Put what a persistent id stands for in its place."""
        if self.fetch is None:
            raise ValueError("it refers to what is not in it")
        self.stack[-1] = self.user(self.fetch, self.stack[-1])

    def take_constant(self) -> None:
        """Take the next of the values that are there already."""
        self.stack.append(next(self.constants))


_MORE: dict[int, Any] = {ord("Q"): ForeignReader.refer, 0x97: ForeignReader.take_constant}
ForeignReader.handlers = [_MORE.get(code, one) for code, one in enumerate(PickleReader.handlers)]
