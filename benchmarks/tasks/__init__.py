"""What a worker can be asked to do with its store. All times are taken there, in its process.

A task that times something does it a number of times, for at least a moment, and returns the
median of the seconds for each sort of operation. What it changes, it changes back: so the files of
large containers serve many tasks and keep their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tasks import items, objects, session, shared, whole
from benchmarks.tasks.session import Session

__all__ = ["TASKS", "Session"]

_NO_TASKS = ("Session", "Times")
TASKS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module in (session, items, objects, shared, whole)
    for name in module.__all__
    if name not in _NO_TASKS
}
