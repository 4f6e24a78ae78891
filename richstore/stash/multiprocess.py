"""A stash that is filled by several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, TypeVar

from richstore.errors import FillError
from richstore.stash.factory import check_factory
from richstore.stash.priming import PrimeableStash
from richstore.stash.workers import made

__all__ = ["MultiProcessStash"]

K = TypeVar("K")
V = TypeVar("V")


class MultiProcessStash(PrimeableStash[K, V]):
    """A stash whose missing values are made by worker processes, before it is first used.

    The processes make the values, this one keeps them in the delegate, each as soon as it is there.
    So a fill that is interrupted goes on where it was: what the delegate has is not made again. A
    key that fails, or at which a worker is killed, costs nothing but that key: the others are made
    and kept, and then the first use raises `FillError` with all `failures`. After that the stash
    has what there is; `fill()` tries again.

    The workers are spawned: the factory, keys and values are pickled, and a script must start them
    under `if __name__ == "__main__":`. Safe to use from many threads if the delegate is: the first
    one fills it, the others wait. Do not use it for the first time inside a transaction; see
    `PrimeableStash`.

    Args:
        delegate: keeps the values: a `Store`, a `Group`, a `DirectoryStash`, a dict.
        factory: makes them: a function of a key at the top of a module, or a mapping.
        keys: which, or a function that says which; by default those of the mapping.
        workers: how many processes; None: one for each core.
        progress: called with the number of keys that are done and of all, after each of them.

    Raises:
        TypeError: the delegate is no mapping, or the factory nothing that makes values, or there
            are no keys.
        ValueError: `workers` is less than 1.

    Example:
        >>> import math
        >>> import richstore
        >>> from richstore.stash import MultiProcessStash
        >>> with richstore.open("memory:") as store:
        ...     factorials = MultiProcessStash(store, math.factorial, range(3, 6), workers=1)
        ...     dict(factorials)
        {3: 6, 4: 24, 5: 120}
    """

    def __init__(
        self,
        delegate: Mapping[K, V],
        factory: Callable[[K], V] | Mapping[K, V],
        keys: Iterable[K] | Callable[[], Iterable[K]] | None = None,
        *,
        workers: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        super().__init__(delegate)
        self.factory = check_factory(factory)
        if keys is None:
            if not isinstance(factory, Mapping):
                raise TypeError("a function does not tell for which keys; give keys=…")
            keys = factory
        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}, and must be 1 process or more")
        # what can be gone through once is not read before it is needed, and is kept then
        self._keys = keys
        self._workers = workers or os.cpu_count() or 1
        self._progress = progress
        self.failures: dict[K, BaseException] = {}
        """Why the last fill has left keys out, by key."""

    def prepare(self) -> None:
        """Fill the stash, once: also if some keys fail."""
        try:
            self.fill()
        except FillError as error:
            self._primed = bool(error.failures)
            raise

    def fill(self) -> None:
        """Make what is missing now.

        Raises:
            FillError: some of it could not be made. The rest was, and is kept.
            TypeError: the factory cannot be sent to other processes.
        """
        with self._prime_lock:
            keys = self._all_keys()
            missing = [key for key in keys if key not in self.delegate]
            self.failures = {}
            done = len(keys) - len(missing)
            # a complete one needs no factory that can be pickled
            with closing(made(self.factory, missing, self._workers)) as results:
                for key, value, error in results if missing else ():
                    if error is None:
                        error = self._keep(key, value)
                    if error is not None:
                        self.failures[key] = error
                    done += 1
                    if self._progress is not None:
                        self._progress(done, len(keys))
            if self.failures:
                raise _summary(self.failures, len(keys))

    def _all_keys(self) -> dict[K, None]:
        keys: Any = self._keys
        found = dict.fromkeys(keys() if callable(keys) else keys)
        if not callable(keys) and iter(keys) is keys:
            self._keys = list(found)
        return found

    def _keep(self, key: K, value: V) -> BaseException | None:
        """Keep a value in the delegate, and return what went wrong."""
        try:
            self._changeable()[key] = value
        except Exception as error:  # noqa: BLE001 - reported at the end, with its key
            return error
        return None


def _summary(failures: Mapping[Any, BaseException], total: int) -> FillError:
    first = [
        f"{key!r}: {type(one).__name__}: {one}" for key, one in list(failures.items())[:_SHOWN]
    ]
    more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    error = FillError(
        f"{len(failures)} of {total} keys could not be made ({'; '.join(first)}{more}); the others "
        f"are kept, `failures` has the errors, and fill() tries again",
        failures,
    )
    error.__cause__ = next(iter(failures.values()))
    return error


# How many failures a message shows.
_SHOWN = 3
