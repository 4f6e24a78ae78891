"""The machine: a stack, marks and a memo, and calls to nothing that was not allowed.

What it calls is either one of the constructors of `standard`, or something that the policy has
found (*allowed*).
"""

from __future__ import annotations

import types
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from richstore.codec import standard
from richstore.codec.policy import StrictPolicy
from richstore.codec.strict.filling import Filling, set_uuid
from richstore.codec.strict.limits import ALLOWANCE, FACTOR
from richstore.errors import CorruptionError, RichStoreError

__all__ = ["Machine", "Stop"]

# How deep pickles may be inside each other.
_NESTED = 8
_SIZED = (bytes, bytearray, list, tuple, dict, set, frozenset, str, deque)
_COPIED = (bytes, bytearray, list, tuple, dict, set, frozenset, str)
_WRAP = standard.Function("richstore.wrap")


class Stop(Exception):
    """The stream has ended."""


class Machine(Filling):
    """Runs one stream.

    Args:
        data: the opcodes.
        policy: says what else than the standard types may be called.
        memo: what is in the memo before.
        fillable: ids of the faces that may be given a state.
        wrap: makes the face of a built node.
        depth: how many pickles this one is inside of.
    """

    handlers: ClassVar[list[Callable[[Any], Any]]] = []

    def __init__(
        self,
        data: bytes,
        policy: StrictPolicy,
        memo: dict[int, Any],
        fillable: frozenset[int] = frozenset(),
        wrap: Callable[[int, Any], Any] | None = None,
        depth: int = 0,
    ) -> None:
        self.data = data
        self.at = 0
        self.policy = policy
        self.memo = memo
        self.fillable = fillable
        self.wrap = wrap
        self.depth = depth
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        # by id, with the object: what the policy has allowed
        self.permitted: dict[int, Any] = {}
        self.made = {}
        self.foreign = {}
        self.left = ALLOWANCE + FACTOR * len(data)
        self.nested = {}
        self.hashes = {}
        self.users_error = None

    def run(self) -> Any:
        """Return the value.

        Raises:
            UntrustedClassError: it names what is not allowed.
            CorruptionError: it is nothing that our writer has written.
        """
        data, handlers = self.data, self.handlers
        size = len(data)
        try:
            while self.at < size:
                handler = handlers[data[self.at]]
                self.at += 1
                handler(self)
        except Stop:
            if len(self.stack) == 1 and not self.marks:
                return self.stack[0]
        except (RichStoreError, MemoryError):
            raise
        except Exception as error:
            if error is self.users_error:
                raise
            raise CorruptionError(
                f"it has content that was never written by richstore, at byte {self.at} "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
        raise CorruptionError("its content ends too early, or too late")

    # --- what is read

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        at = self.at
        end = self.at = at + size
        if size < 0 or end > len(self.data):
            raise ValueError("it ends too early")
        return self.data[at:end]

    def number(self, size: int) -> int:
        """Return the next number."""
        return int.from_bytes(self.take(size), "little")

    def to_mark(self) -> list[Any]:
        """Return what is on the stack above the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # --- what is called

    def find(self, module: Any, qualname: Any) -> Any:
        """Return what a name stands for."""
        if type(module) is not str or type(qualname) is not str:
            raise ValueError("a name is not a text")
        if module == "richstore." and qualname == "wrap":
            return _WRAP
        found = standard.GLOBALS.get((module, qualname))
        if found is None:
            found = self.user(self.policy.find, module, qualname)
            self.permitted[id(found)] = found
        return found

    def is_allowed(self, thing: Any) -> bool:
        """Tell whether the policy has allowed a class or function."""
        return id(thing) in self.permitted

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what calling something gives."""
        if type(arguments) is not tuple:
            raise ValueError("arguments are not a tuple")
        constructor = standard.CALLS.get(id(function))
        if constructor is not None:
            made = constructor(self, arguments)
            self.made[id(made)] = made
            if type(made) is types.GenericAlias:
                self.nest(made, made.__args__)
            return made
        if function is _WRAP:
            return self.wrapped(*arguments)
        if id(function) not in self.permitted:
            raise self.refuse(function)
        self.check_iterables(function, arguments)
        made = self.user(function, *arguments)
        self.made[id(made)] = self.foreign[id(made)] = made
        return made

    def refuse(self, function: Any) -> Exception:
        """Return the error for something that is not to be called."""
        name = getattr(function, "__qualname__", None)
        if isinstance(function, type) and type(name) is str:
            return self.policy.refusal(f"{function.__module__}.{name}", "was not called")
        return ValueError("it calls what is no class or function")

    def check_iterables(self, cls: Any, arguments: tuple[Any, ...]) -> None:
        """Refuse arguments of which subclasses of built-in types would be made larger than they
        are: a range, or a number of bytes.
        """
        if isinstance(cls, type) and issubclass(cls, _SIZED):
            kinds = set(map(type, arguments))
            if range in kinds or (int in kinds and issubclass(cls, (bytes, bytearray))):
                raise ValueError("an argument is larger than what is stored of it")
            self.charge(sum(len(one) for one in arguments if type(one) in _COPIED))

    def new(self, cls: Any, arguments: Any, named: Any) -> Any:
        """Return a new object of a class, as `copyreg.__newobj_ex__` does."""
        if type(arguments) is not tuple or type(named) is not dict:
            raise ValueError("arguments are not a tuple and a dict")
        if id(cls) in self.permitted and isinstance(cls, type):
            self.check_iterables(cls, (*arguments, *named.values()))
            function: Any = cls.__new__
            made = self.user(lambda: function(cls, *arguments, **named))
        elif cls in standard.NEW and not arguments and not named:
            made = object.__new__(cls)
            if cls is uuid.UUID:
                # its number follows; without it no method of it would work
                set_uuid(made, {"int": 0})
        else:
            raise self.refuse(cls)
        self.made[id(made)] = made
        return made

    def wrapped(self, slot: Any, raw: Any) -> Any:
        """Return the face of an object that the stream made."""
        if self.wrap is None or type(slot) is not int or id(raw) not in self.made:
            raise ValueError("it makes a node of what is none")
        return self.wrap(slot, raw)

    def inner(self, blob: bytes) -> Any:
        """Read a pickle inside this one."""
        if self.depth >= _NESTED:
            raise ValueError("pickles are nested too deep")
        # what it may take is counted here
        self.charge(FACTOR * len(blob))
        return type(self)(blob, self.policy, {}, depth=self.depth + 1).run()
