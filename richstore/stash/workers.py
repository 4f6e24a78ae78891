"""Processes that make values, each on a pipe of its own with one key at a time.

So it is known at any moment which key a process is at, and one that is killed costs that key alone.
The processes are spawned, not forked: nothing of the parent is in them but what was sent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from richstore.errors import FillError
from richstore.stash.factory import make

__all__ = ["Made", "made"]

_unpack: Callable[[bytes], Any] = ForkingPickler.loads
# Seconds until a worker is asked after that has said nothing, and until one that was told to end
# is killed.
_SILENT = 1.0
_PATIENCE = 5.0


def _pack(value: Any) -> bytes:
    return bytes(ForkingPickler.dumps(value))


class Made(NamedTuple):
    """What became of a key."""

    key: Any
    value: Any
    error: BaseException | None
    """Why there is no value; None if there is one."""


def made(factory: Any, keys: Sequence[Any], workers: int) -> Generator[Made, None, None]:
    """Yield what became of each key, in the order in which they are done.

    Args:
        factory: a mapping of what is to be made, or a function of a key.
        keys: of the values.
        workers: how many processes.

    Raises:
        TypeError: the factory cannot be sent to a process.
        FillError: it could not be loaded there, or the process did not begin.
    """
    try:
        packed = _pack(factory)
    except Exception as error:
        raise TypeError(
            f"the factory cannot be sent to other processes ({type(error).__name__}: {error}); it "
            f"must be a function or class at the top of a module, or hold nothing but what pickle "
            f"takes"
        ) from error
    pool = _Pool(packed, keys)
    try:
        for _ in range(min(workers, len(keys))):
            pool.start()
        while pool.workers:
            yield from pool.answers()
        pool.end()
    finally:
        pool.kill()


class _Worker:
    """One process, and what it is at."""

    def __init__(self, process: SpawnProcess) -> None:
        self.process = process
        self.ready = False
        self.key: Any = None


class _Pool:
    """The processes, and the keys that nobody has begun with."""

    def __init__(self, packed: bytes, keys: Sequence[Any]) -> None:
        self.workers: dict[Connection, _Worker] = {}
        self._ending: list[SpawnProcess] = []
        self._packed = packed
        self._left = deque(keys)

    def start(self) -> None:
        """Start one more process."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._packed))
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            # the end of the process is seen by the end of the pipe
            theirs.close()
        self.workers[ours] = _Worker(process)

    def answers(self) -> Iterator[Made]:
        """Wait for some processes, and yield what they have made."""
        pipes: list[Any] = wait(list(self.workers), _SILENT)
        if not pipes:
            # a child of a worker may hold the other end of the pipe, and outlive it
            pipes = [pipe for pipe, one in self.workers.items() if not one.process.is_alive()]
        for pipe in pipes:
            worker = self.workers[pipe]
            data = _received(pipe, worker)
            if data is None:
                yield from self._gone(pipe, worker)
                continue
            began, key = worker.ready, worker.key
            try:
                done, result, text = _unpack(data)
            except Exception as error:  # noqa: BLE001 - whatever the classes of a value raise
                done, result, text = False, error, ""
            if not began and not done:
                raise FillError(
                    f"the factory could not be loaded in a worker process "
                    f"({type(result).__name__}: {result}); put it where an import finds it",
                    {},
                ) from result
            worker.ready = True
            # it goes on while the caller keeps the value
            self._give(pipe, worker)
            if began and done:
                yield Made(key, result, None)
            elif began:
                if text:
                    result.add_note(text)
                yield Made(key, None, result)

    def _give(self, pipe: Connection, worker: _Worker) -> None:
        """Give a process its next key, or let it end."""
        if not self._left:
            del self.workers[pipe]
            self._ending.append(worker.process)
            pipe.close()
            return
        worker.key = self._left.popleft()
        # one that was killed is found by the end of its pipe
        with contextlib.suppress(OSError):
            pipe.send(worker.key)

    def _gone(self, pipe: Connection, worker: _Worker) -> Iterator[Made]:
        """Say what a process was at that has ended by itself."""
        del self.workers[pipe]
        pipe.close()
        worker.process.join(_PATIENCE)
        how = _how_it_ended(worker.process)
        self._ending.append(worker.process)
        if not worker.ready:
            raise FillError(
                f"a worker process {how} before it began; what it has written to stderr says why. "
                f"A script that starts workers must do so under `if __name__ == '__main__':`, as "
                f"they import it",
                {},
            )
        if self._left:
            self.start()
        yield Made(
            worker.key,
            None,
            FillError(f"the worker process {how} while it was at the key {worker.key!r}", {}),
        )

    def end(self) -> None:
        """Wait for processes that have nothing more to do."""
        for process in self._ending:
            process.join(_PATIENCE)

    def kill(self) -> None:
        """End what is still running."""
        for pipe, worker in self.workers.items():
            pipe.close()
            self._ending.append(worker.process)
        for process in self._ending:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()


def _received(pipe: Connection, worker: _Worker) -> bytes | None:
    """Return what a process has sent; None: it has ended."""
    try:
        if worker.process.is_alive() or pipe.poll():
            return pipe.recv_bytes()
    except (EOFError, OSError):
        pass
    return None


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        names = {one.value: one.name for one in signal.Signals}
        return f"was killed ({names.get(-code, f'signal {-code}')})"
    return f"ended (exit code {code})"


def _work(pipe: Connection, packed: bytes) -> None:
    """Make values, until nobody asks for more: all that a process does."""
    # the parent ends it, also when both are interrupted from the keyboard
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            factory = _unpack(packed)
        except BaseException as error:  # noqa: BLE001 - whatever an import raises
            pipe.send_bytes(_failure(error))
            return
        pipe.send_bytes(_pack((True, None, "")))
        while True:
            key = pipe.recv()
            try:
                answer = _pack((True, make(factory, key), ""))
            except BaseException as error:  # noqa: BLE001 - sys.exit() too is of this key alone
                answer = _failure(error)
            pipe.send_bytes(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _failure(error: BaseException) -> bytes:
    """Pack an error, with its traceback as text."""
    text = "".join(traceback.format_exception(error)).rstrip()
    text = f"richstore: in a worker process:\n{text}"
    try:
        packed = _pack((False, error, text))
        _unpack(packed)
    except Exception:  # noqa: BLE001 - whatever the class of the error raises
        return _pack((False, RuntimeError(f"{type(error).__name__}: {error}"), text))
    return packed
