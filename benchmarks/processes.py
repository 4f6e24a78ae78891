"""Workers seen from the process that runs the benchmarks: start one, ask it, end it.

The rule: whatever goes wrong in a worker is a `WorkerError` here, and that worker is not used
again.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.adapters import Adapter

__all__ = ["Pool", "Worker", "WorkerError"]

_ROOT = str(Path(__file__).parents[1])


class WorkerError(Exception):
    """A worker could not do its task, or took longer than it was given."""


class Worker:
    """A process with a store of one make.

    Args:
        kind: the make.
        patience: seconds until a task counts as hopeless.
        before: what to put before its command.
    """

    def __init__(self, kind: type[Adapter], patience: float, before: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.patience = patience
        self.traced = bool(before)
        self.dead = False
        self._rest = b""
        self._pid: int | None = None
        path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "benchmarks.worker", kind.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )

    @property
    def pid(self) -> int:
        """The process id of Python itself, also when it runs below strace."""
        if self._pid is None:
            self._pid = int(self._answer())
        return self._pid

    def send(self, task: str, **arguments: Any) -> None:
        """Hand over a task; `receive()` has its result."""
        if self.dead:
            raise WorkerError("its process ended before")
        assert self.pid and self._process.stdin is not None
        line = json.dumps({"task": task, **arguments}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except OSError as error:
            self.kill()
            raise WorkerError(f"the process of {self.kind.name} is gone") from error

    def receive(self) -> Any:
        """Wait for the result of the task that was sent."""
        return self._answer()

    def ask(self, task: str, **arguments: Any) -> Any:
        """Do a task and return its result."""
        self.send(task, **arguments)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        end = monotonic() + self.patience
        while b"\n" not in self._rest:
            ready, _, _ = select.select([out], [], [], max(0.0, end - monotonic()))
            if not ready:
                self.kill()
                raise WorkerError(f"took longer than {self.patience:.0f} s")
            more = os.read(out, 1 << 16)
            if not more:
                self.kill()
                raise WorkerError(f"the process ended with status {self._process.returncode}")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            self.kill()
            raise WorkerError(answer["error"])
        return answer["result"]

    def kill(self) -> None:
        """End the process at once."""
        self.dead = True
        if self.traced and self._pid is not None and self._process.poll() is None:
            # strace would leave it behind
            os.kill(self._pid, 9)
        self._process.kill()
        self._close()

    def close(self) -> None:
        """End the process after it has closed its store."""
        if self.dead:
            return
        try:
            self.ask("close_store")
        except WorkerError:
            # it is killed and that is enough; what was measured is here already
            return
        self.dead = True
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # a task was still on its way to the process that was killed
                    continue
        self._process.wait()


class Pool:
    """Workers that wait for their next task, by make: most tasks need no process of their own."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._idle: list[Worker] = []
        self._new: list[Worker] = []

    def take(self, kind: type[Adapter]) -> Worker:
        """Return a worker of a make, without an open store."""
        for worker in self._idle:
            if worker.kind is kind:
                self._idle.remove(worker)
                return worker
        return self.fresh(kind)

    def fresh(self, kind: type[Adapter], before: list[str] | None = None) -> Worker:
        """Return a new worker, with something before its command, or one of those prepared."""
        for worker in self._new if not before else ():
            if worker.kind is kind:
                self._new.remove(worker)
                return worker
        return Worker(kind, self.patience, tuple(before or ()))

    def prepare(self, kinds: Iterable[type[Adapter]]) -> None:
        """Start new workers at the same time, for `fresh()` to return."""
        self._new += [Worker(kind, self.patience) for kind in kinds]

    def give(self, worker: Worker) -> None:
        """Take a worker back; its store is closed."""
        if worker.dead:
            return
        try:
            worker.ask("close_store")
        except WorkerError:
            return
        self._idle.append(worker)

    @contextmanager
    def one(self, kind: type[Adapter]) -> Iterator[Worker]:
        """Lend a worker for a block."""
        worker = self.take(kind)
        try:
            yield worker
        finally:
            self.give(worker)

    def close(self) -> None:
        """End all of them."""
        for worker in [*self._idle, *self._new]:
            worker.close()
        self._idle.clear()
        self._new.clear()
