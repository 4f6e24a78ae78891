"""Fixtures of the tests of the LMDB engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engines.processes import Other, open_it
from richstore.engines.lmdb import LmdbEngine


@pytest.fixture
def engine(path: str) -> Iterator[LmdbEngine]:
    """An open, empty engine."""
    engine = open_it(path)
    yield engine
    engine.close()


@pytest.fixture
def tiny(path: str) -> Iterator[LmdbEngine]:
    """An engine whose map is full soon."""
    engine = open_it(path, map_size=1 << 16)
    yield engine
    engine.close()


@pytest.fixture
def other(path: str) -> Iterator[Callable[..., Other]]:
    """A function that starts another process on the same file."""
    started: list[Other] = []

    def start(map_size: int | None = None) -> Other:
        started.append(Other(path, map_size))
        return started[-1]

    yield start
    for process in started:
        process.end()
