"""`@richstore.persisted`: the decorator, and what it makes of functions and methods."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, MutableMapping
from datetime import timedelta
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import wrapt

from richstore.documents import Document
from richstore.remembered.arguments import KeysOf
from richstore.remembered.memory import Memory, Options, seconds
from richstore.remembered.places import target_of

__all__ = ["Handle", "Remembered", "RememberedProperty", "persisted"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D", bound="staticmethod[Any, Any] | classmethod[Any, Any, Any] | property")


class Handle(Generic[P]):
    """What can be done with the results of a remembered function, or of a method of an instance."""

    @abstractmethod
    def _memory(self) -> tuple[Memory, tuple[Any, ...]]:
        """Return where the results are, and the instance that the method is bound to, if any."""

    def clear(self, /, *arguments: Any, **named: Any) -> None:
        """Forget the result of the call with these arguments; without any, of all calls.

        Through an instance, `report.load.clear()`, it is all calls on that instance.
        """
        memory, bound = self._memory()
        memory.clear(bound, arguments, named)

    def set(self, value: Any, /, *arguments: P.args, **named: P.kwargs) -> None:
        """Keep `value` as the result of the call with these arguments.

        Raises:
            EncodingError: it cannot be stored; what was kept before still is.
        """
        memory, bound = self._memory()
        memory.set(value, bound + arguments, named)

    def is_set(self, /, *arguments: P.args, **named: P.kwargs) -> bool:
        """Tell whether a result is kept for these arguments, so that a call would not compute."""
        memory, bound = self._memory()
        return memory.is_set(bound + arguments, named)

    def close(self) -> None:
        """Close the store that was opened for a path; the next use opens it again."""
        self._memory()[0].close()


class BoundRemembered(Handle[P], wrapt.BoundFunctionWrapper[P, R]):
    """A remembered method of an instance."""

    def _memory(self) -> tuple[Memory, tuple[Any, ...]]:
        return self._self_parent._self_memory, _instance(self.__wrapped__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = (*_instance(self.__wrapped__), self._self_owner)[0]
        return getattr, (owner, self.__name__)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        call, (owner, name) = self.__reduce_ex__(4)
        return call(copy.deepcopy(owner, memo), name)


class Remembered(Handle[P], wrapt.FunctionWrapper[P, R]):
    """A function whose results are kept; made by `persisted()`.

    It looks like the function that it wraps, which is its `__wrapped__`. Used as a method it is
    bound to the instance, and so are `clear`, `set` and `is_set`.
    """

    __bound_function_wrapper__ = BoundRemembered  # type: ignore[assignment]

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        plain: Any = function
        if isinstance(function, (staticmethod, classmethod, MethodType)):
            plain = function.__func__
        if inspect.isclass(plain) or not callable(plain):
            raise TypeError(
                f"persisted() remembers what functions and methods return, not {function!r}; "
                f"with @persisted and no parentheses, there is no target: write @persisted(…)"
            )
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise TypeError(
                f"{plain.__qualname__}() is a generator, which can be used once only, so there is "
                f"nothing to keep; return a list"
            )
        memory = Memory(plain, options)
        call = memory.call_async if inspect.iscoroutinefunction(plain) else memory.call

        def remember(
            wrapped: Any, instance: Any, arguments: tuple[Any, ...], named: dict[str, Any]
        ) -> Any:
            all_arguments = arguments if instance is None else (instance, *arguments)
            return call(lambda: wrapped(*arguments, **named), all_arguments, named)

        super().__init__(function, remember)
        self._self_memory = memory

    def _memory(self) -> tuple[Memory, tuple[Any, ...]]:
        return self._self_memory, _instance(self.__wrapped__)

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def __get__(self, instance: None, owner: Any = None, /) -> Self: ...
        @overload
        def __get__(
            self: Remembered[Concatenate[T, Q], R], instance: T, owner: Any = None, /
        ) -> BoundRemembered[Q, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    # a function is pickled by its name, and copied as itself

    def __reduce_ex__(self, protocol: Any) -> str:
        return str(self.__qualname__)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


if TYPE_CHECKING:

    class RememberedOfClass(Remembered[P, R]):
        """What a class method is to type checkers, which bind it to the class in all cases."""

        def __get__(  # type: ignore[override]
            self: Remembered[Concatenate[T, Q], R], instance: Any, owner: Any = None, /
        ) -> BoundRemembered[Q, R]: ...


def _instance(function: Any) -> tuple[Any, ...]:
    """Return what a method is bound to, in a tuple; or an empty one."""
    return (function.__self__,) if isinstance(function, MethodType) else ()


class RememberedProperty(property):
    """A property whose value is kept; made by `persisted()` of a property.

    What a method does through its instance, it does through the class: `Report.rows.clear(report)`.
    """

    fget: Any

    def __init__(
        self, fget: Remembered[..., Any], fset: Any = None, fdel: Any = None, doc: str | None = None
    ) -> None:
        super().__init__(fget, fset, fdel, doc)
        # help() of an instance would show that of this class
        self.__doc__ = fget.__doc__ if doc is None else doc

    def clear(self, instance: Any) -> None:
        """Forget the value of an instance."""
        self.fget.clear(instance)

    def set(self, instance: Any, value: Any) -> None:
        """Keep a value for an instance."""
        self.fget.set(value, instance)

    def is_set(self, instance: Any) -> bool:
        """Tell whether a value is kept for an instance."""
        return bool(self.fget.is_set(instance))


class _Decorator:
    """What `persisted()` returns."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @overload
    def __call__(self, function: D) -> D: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[Concatenate[type[T], Q], R]
    ) -> RememberedOfClass[Concatenate[type[T], Q], R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Remembered[P, R]: ...

    def __call__(self, function: Any) -> Any:
        if not isinstance(function, property):
            return Remembered(function, self._options)
        if function.fget is None:
            raise TypeError("a property without a getter has no value to remember")
        getter = Remembered(function.fget, self._options)
        return RememberedProperty(getter, function.fset, function.fdel, function.__doc__)


def persisted(
    target: Any = None,
    *,
    key: KeysOf = None,
    expire: float | timedelta | None = None,
    version: Any = None,
    level: str = "store",
    exceptions: type[Exception] | Iterable[type[Exception]] = (),
    none: bool = True,
    name: str | None = None,
    live: bool = False,
    pickled: bool = False,
) -> _Decorator:
    """Remember what a function, method or property returns: compute it once, and keep it.

    Results are found by the arguments, as they are bound: `f(1)` and `f(x=1)` are one call. Of the
    threads, tasks and processes that ask for one result at once, one computes it, and the others
    wait; when it fails or dies, the next one computes. It may be above or below `@property`,
    `@classmethod` and `@staticmethod`. Asynchronous functions are awaited, and store and load
    in another thread. What is decorated has `clear(…)`, `set(value, …)`, `is_set(…)` and `close()`.

    Args:
        target: where results are kept: a store, a group, the path of a store (opened at the first
            use, closed when Python ends), another mutable mapping (a document's value, a dict), or
            a function that returns one of these, given the first argument if it takes one.
        key: for arguments that cannot be part of a key, what stands for them: a function of the
            first argument, which is the instance in a method, or a dict from names of parameters to
            functions; None in place of a function leaves the argument out.
        expire: seconds, or a timedelta, after which a result is computed anew, by the wall clock.
        version: a part of the key; change it when the function changes.
        level: `"store"`: in the target, for all processes. `"process"`: in memory, for all of this
            process. `"instance"`: in memory, with the first argument, and gone with it.
        exceptions: the exceptions that are kept as a result is, and raised again. None by default.
        none: whether None is a result that is kept.
        name: what the function is called where results are kept, by default its module and
            qualified name. Say it, and it can be renamed and moved. A lambda needs one.
        live: whether values of a store are given out themselves: tracked, loaded as they are
            read, and changed for everybody by who changes them. By default each caller gets a copy.
        pickled: whether results of level `"instance"` are pickled and copied with the instance.

    Returns:
        The decorator.

    Raises:
        TypeError: `target` is missing or nothing to keep results in; or when it decorates what it
            cannot remember.
        ValueError: `level` or `expire` is none of the above.

    Calling what is decorated raises what the function raises, and also `KeyTypeError` for an
    argument that needs a `key`, `EncodingError` for a result that cannot be stored, and
    `RecursionError` for a result that is needed to compute it.

    Example:
        >>> import richstore
        >>> store = richstore.open("memory:")
        >>> @richstore.persisted(store)
        ... def square(x, power=2):
        ...     print("computing")
        ...     return x**power
        >>> square(7), square(x=7), square(7, 2)
        computing
        (49, 49, 49)
        >>> square.clear(7)
        >>> square.is_set(7)
        False
        >>> store.close()
    """
    if level not in ("store", "process", "instance"):
        raise ValueError(f"level is {level!r}, and must be 'store', 'process' or 'instance'")
    if level != "store" and target is not None:
        raise TypeError(f"level={level!r} keeps results in memory, and has no target")
    if level == "store" and target is None:
        raise TypeError(
            "persisted() needs a target to keep results in, such as a store or a path, or "
            "level='process' or 'instance'"
        )
    if (pickled and level != "instance") or (live and level != "store"):
        raise TypeError("pickled is for level='instance', and live for level='store'")
    is_function = level == "store" and _is_function(target)
    options = Options(
        target=target if is_function or target is None else _checked(target),
        takes_first=is_function and _has_parameters(target),
        key=key,
        expire=seconds(expire),
        version=version,
        level=level,
        exceptions=_exceptions(exceptions),
        none=none,
        name=name,
        live=live,
        pickled=pickled,
    )
    return _Decorator(options)


def _checked(target: Any) -> Any:
    mapping = target_of(target)
    # another value may be assigned to a document later
    return (lambda: target) if isinstance(target, Document) else mapping


def _is_function(target: Any) -> bool:
    return callable(target) and not isinstance(target, MutableMapping)


def _has_parameters(function: Any) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except ValueError:
        # operator.attrgetter and its like
        return True


def _exceptions(given: Any) -> tuple[type[Exception], ...]:
    kinds = (given,) if isinstance(given, type) else tuple(given)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"exceptions must be classes of Exception, not {kind!r}")
    return kinds
