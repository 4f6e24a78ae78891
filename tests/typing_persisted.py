"""What type checkers see of remembered functions: mypy checks this file, and nothing runs it.

Each `ignore` is an error that has to be found, since an ignored line without one is an error too.
"""

from __future__ import annotations

from typing import Any, assert_type

import richstore


@richstore.persisted("a.db", version=1)
def add(x: int, y: int = 2) -> list[int]:
    """Be a function with a default."""
    return [x, y]


class Report(richstore.Persistable):
    name = "a"

    @richstore.persisted(lambda self: self.name, key=lambda self: self.name)
    def load(self, x: int) -> str:
        return self.name * x

    @property
    @richstore.persisted(level="instance")
    def rows(self) -> list[str]:
        return []

    @classmethod
    @richstore.persisted(level="process", expire=60)
    def make(cls, x: int) -> Report:
        return cls()

    @staticmethod
    @richstore.persisted(level="process", exceptions=(OSError, ValueError))
    def square(x: int) -> int:
        return x * x

    @richstore.persisted(level="instance", pickled=True)
    async def fetch(self, x: int) -> bytes:
        return bytes(x)


def functions() -> None:
    """A function keeps its parameters and its result."""
    assert_type(add(1, y=3), list[int])
    assert_type(add.is_set(1), bool)
    add.set([1], 1)
    add.clear()
    add("a")  # type: ignore[arg-type]
    add(1, z=2)  # type: ignore[call-arg]
    add.is_set("a")  # type: ignore[arg-type]


async def methods(report: Report) -> None:
    """So do methods, properties, class methods, static methods and asynchronous ones."""
    assert_type(report.load(1), str)
    assert_type(Report.load(report, 1), str)
    assert_type(report.rows, list[str])
    assert_type(Report.make(1), Report)
    assert_type(report.make(1), Report)
    assert_type(Report.square(2), int)
    assert_type(await report.fetch(1), bytes)
    report.load.clear()
    report.load.set("a", 1)
    report.load("x")  # type: ignore[arg-type]
    Report.make("x")  # type: ignore[arg-type]
    report.load.is_set("x")  # type: ignore[arg-type]
    with report as same:
        assert_type(same, Report)


def arguments(anything: Any) -> None:
    """The decorator's own arguments are checked."""
    richstore.persisted(anything, level=3)  # type: ignore[arg-type]
    richstore.persisted(anything, exceptions=KeyboardInterrupt)  # type: ignore[arg-type]
    richstore.persisted(anything, keys=None)  # type: ignore[call-arg]
