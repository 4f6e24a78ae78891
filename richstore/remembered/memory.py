"""What a remembered function does: look, and if there is nothing, compute it and keep it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from richstore.errors import EncodingError
from richstore.groups import Group
from richstore.remembered.arguments import Arguments, KeysOf, name_of
from richstore.remembered.claims import Claim
from richstore.remembered.instances import results_of
from richstore.remembered.places import (
    Entry,
    GroupPlace,
    Key,
    MappingPlace,
    MemoryPlace,
    Place,
    StoreFile,
    target_of,
)
from richstore.store import Store

__all__ = ["Memory", "Options"]

Positional = tuple[Any, ...]
Named = dict[str, Any]


# Results that are kept at the same time.
_KEEPERS = 8


# By the process: the threads that keep results of asynchronous functions, while there are any to
# be kept. Those of the loop must not wait here for a transaction whose task may need one of them.
_keepers: weakref.WeakValueDictionary[int, concurrent.futures.Executor] = (
    weakref.WeakValueDictionary()
)


@dataclass(frozen=True)
class Options:
    """The arguments of `persisted()`, checked."""

    target: Any
    takes_first: bool
    """Whether the target is a function, of the first argument."""
    key: KeysOf
    expire: float | None
    version: Any
    level: str
    exceptions: tuple[type[Exception], ...]
    none: bool
    name: str | None
    live: bool
    pickled: bool


@dataclass(frozen=True)
class Call:
    """One call: where its result is, or will be."""

    place: Place
    key: Key


class Memory:
    """The results of one function.

    Args:
        function: the function, not bound to an instance.
        options: how it is remembered.
    """

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        self.options = options
        try:
            self.name = options.name or name_of(function)
        except AttributeError:
            raise TypeError(f"{function!r} has no name; say what it is called, name='…'") from None
        if options.name is None and self.name.endswith("<lambda>") and options.level != "process":
            raise TypeError(
                f"{self.name} is a name that every lambda there has, and each would get the "
                f"results of the others; say what it is called, name='…'"
            )
        self.of_instance = options.level == "instance"
        self.arguments = Arguments(
            function, self.name, options.key, options.version, of_instance=self.of_instance
        )
        self.entries: dict[Key, Entry] = {}

    # --- calls ---

    def call(self, function: Callable[..., Any], positional: Positional, named: Named) -> Any:
        """Return what is kept for a call, or what `function()` returns, which then is kept."""
        call = self._locate(positional, named)
        entry = self._kept(call)
        if entry is not None:
            return _answer(entry)
        if call.place.is_busy():
            # others may need this transaction to end before they can
            return self._compute(call, function)
        claim = Claim(call.place.claims, self._text(call.key))
        try:
            claim.wait()
            entry = self._kept(call)
            return self._compute(call, function) if entry is None else _answer(entry)
        finally:
            try:
                claim.end()
            except BaseException:
                # an interrupt: nobody else would end it, and all others would wait for ever
                claim.end()
                raise

    def _compute(self, call: Call, function: Callable[..., Any]) -> Any:
        try:
            value = function()
        except self.options.exceptions as error:
            self._keep(call, {"at": time.time(), "raised": error})
            raise
        return self._keep(call, self._entry(call, value))

    async def call_async(
        self, function: Callable[..., Awaitable[Any]], positional: Positional, named: Named
    ) -> Any:
        """Do the same for a function that is awaited; the event loop is not blocked."""
        target = self.options.target
        if isinstance(target, StoreFile) and not target.is_open:
            await asyncio.to_thread(target.store)
        call = self._locate(positional, named)
        if call.place.is_busy():
            entry = self._kept(call)
            return await self._compute_async(call, function) if entry is None else _answer(entry)
        entry = await self._looked_up(call)
        if entry is not None:
            return _answer(entry)
        claim = Claim(call.place.claims, self._text(call.key))
        try:
            await claim.wait_async()
            entry = await self._looked_up(call)
            return await self._compute_async(call, function) if entry is None else _answer(entry)
        finally:
            claim.end()

    async def _looked_up(self, call: Call) -> Entry | None:
        if not call.place.waits:
            return self._kept(call)
        return await asyncio.to_thread(self._kept, call)

    async def _compute_async(self, call: Call, function: Callable[..., Awaitable[Any]]) -> Any:
        try:
            value = await function()
        except self.options.exceptions as error:
            await self._kept_async(call, {"at": time.time(), "raised": error})
            raise
        return await self._kept_async(call, self._entry(call, value))

    async def _kept_async(self, call: Call, entry: Entry) -> Any:
        # in a transaction this thread is the one that may write
        if not call.place.waits or call.place.is_busy():
            return self._keep(call, entry)
        keep = functools.partial(contextvars.copy_context().run, self._keep, call, entry)
        made = concurrent.futures.ThreadPoolExecutor(_KEEPERS, "richstore results")
        keepers = _keepers.setdefault(os.getpid(), made)
        del made
        try:
            return await asyncio.get_running_loop().run_in_executor(keepers, keep)
        finally:
            # the last one lets the threads end, though the traceback of an error is held
            del keepers

    # --- what is done with results ---

    def clear(self, bound: Positional, positional: Positional, named: Named) -> None:
        """Forget one call, or without arguments all; through an instance, all of it."""
        if positional or named:
            call = self._locate(bound + positional, named)
            call.place.remove(call.key)
            return
        place = self._place(bound)
        place.clear(self.arguments.form_of_first(bound[0]) if bound else ())

    def set(self, value: Any, positional: Positional, named: Named) -> None:
        """Keep a value for a call as if it had been computed."""
        call = self._locate(positional, named)
        self._store(call, self._entry(call, value))

    def is_set(self, positional: Positional, named: Named) -> bool:
        """Tell whether something is kept for a call."""
        # without a copy of it
        return self._kept(self._locate(positional, named, live=True)) is not None

    def close(self) -> None:
        """Close the store that was opened for a path."""
        if isinstance(self.options.target, StoreFile):
            self.options.target.close()

    # --- one call ---

    def _locate(self, positional: Positional, named: Named, *, live: bool = False) -> Call:
        key = self.arguments.key_of(positional, named)
        first = positional[:1] or tuple(
            named[name] for name in (self.arguments.first,) if name in named
        )
        return Call(self._place(first, live=live), key)

    def _place(self, first: Positional, *, live: bool = False) -> Place:
        options = self.options
        if options.level == "process":
            return MemoryPlace(self.entries)
        if self.of_instance:
            if not first:
                raise TypeError(
                    f"the results of {self.name}() are kept with each instance: ask through one"
                )
            return MemoryPlace(results_of(first[0]).of(self.name, pickled=options.pickled))
        target = options.target
        if callable(target):
            if options.takes_first and not first:
                raise TypeError(
                    f"the target of {self.name}() is a function of the first argument: give one"
                )
            target = target_of(target(first[0]) if options.takes_first else target())
        if isinstance(target, StoreFile):
            target = target.store()
        if isinstance(target, (Store, Group)):
            return GroupPlace(target, self.name, live=live or options.live)
        return MappingPlace(target, self.name, live=live or options.live)

    def _text(self, key: Key) -> str:
        return f"{self.name}{key!r}"

    def _kept(self, call: Call) -> Entry | None:
        entry = call.place.get(call.key)
        expire = self.options.expire
        if entry is None or (expire is not None and time.time() >= entry["at"] + expire):
            return None
        return entry

    def _entry(self, call: Call, value: Any) -> Entry:
        if inspect.isgenerator(value) or inspect.isasyncgen(value) or inspect.iscoroutine(value):
            raise EncodingError(
                f"{self.name}() returned a {type(value).__name__}, which can be used once only; "
                f"return a list, or what it awaits"
            )
        return {"at": time.time(), "returned": value}

    def _keep(self, call: Call, entry: Entry) -> Any:
        """Keep an entry unless the rules say otherwise; return what it has returned."""
        if entry.get("returned", self) is None and not self.options.none:
            return None
        if isinstance(self.options.target, StoreFile):
            # it may have been closed while the function ran, and is opened again
            call = Call(self._place(()), call.key)
        self._store(call, entry)
        if self.options.live:
            entry = call.place.get(call.key) or entry
        return entry.get("returned")

    def _store(self, call: Call, entry: Entry) -> None:
        try:
            call.place.set(call.key, entry)
        except EncodingError as error:
            what = "raised" if "raised" in entry else "returned"
            inside = error.path.partition(f"]['{what}']")[2]
            reason = f"what it {what} cannot be kept: {error.reason}"
            raise EncodingError(reason, f"{self._text(call.key)}{inside}") from error
        except Exception as error:
            error.add_note(f"richstore: while keeping the result of {self._text(call.key)}")
            raise


def seconds(expire: float | timedelta | None) -> float | None:
    """Return what was given as `expire` in seconds.

    Raises:
        ValueError: it is not a positive time.
    """
    if expire is None:
        return None
    number = expire.total_seconds() if isinstance(expire, timedelta) else expire
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not number > 0:
        raise ValueError(
            f"expire must be a positive number of seconds, or timedelta, not {expire!r}"
        )
    return number


def _answer(entry: Entry) -> Any:
    """Return what a kept call has returned, or raise what it has raised."""
    if "raised" in entry:
        raise entry["raised"].with_traceback(None)
    return entry["returned"]
