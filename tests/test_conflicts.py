"""Engines that cannot lock: the memory engine is told to refuse commits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sample_classes import Account

import richstore
from richstore.group_commit import RETRIES


@pytest.fixture
def store() -> Iterator[Any]:
    """An open store in memory with a few values."""
    with richstore.open("memory:") as made:
        made["list"] = [1, [2]]
        made["ann"] = Account("ann")
        yield made


def test_a_single_change_is_run_again(store: Any) -> None:
    """A change outside a block whose commit is refused is applied once in the end."""
    for refused in (1, 3):
        store._tracker.engine.refuse_commits(refused)
        store["list"][1].append(refused)
        store._tracker.engine.refuse_commits(refused)
        store["ann"].deposit(1)
    assert store["list"] == [1, [2, 1, 3]]
    assert store["ann"].balance == 2
    with store.snapshot() as view:
        assert view["list"] == [1, [2, 1, 3]]
        assert view["ann"].history == store["ann"].history


def test_a_block_raises_and_changes_nothing(store: Any) -> None:
    """A block whose commit is refused raises ConflictError; memory and store are as before."""
    held = store["list"]
    store._tracker.engine.refuse_commits(1)
    with pytest.raises(richstore.ConflictError), store.transaction():
        held.append(3)
        store["new"] = 1
        store["ann"].balance = 9
    assert held == [1, [2]]
    assert "new" not in store
    assert store["ann"].balance == 0
    held.append(3)
    with store.snapshot() as view:
        assert view["list"] == [1, [2], 3]


def test_a_block_that_somebody_else_was_faster_than(store: Any) -> None:
    """A block that lost to the commit of another takes its values back, and sees the other's."""
    held = store["list"]
    with pytest.raises(richstore.ConflictError), store.transaction():
        held.append(3)
        other = store._tracker.engine.write(None)
        other.put(b"\x01", b"somebody else")
        other.commit()
    assert held == store["list"] == [1, [2]]
    with store.snapshot() as view:
        assert view["list"] == [1, [2]]


def test_retries_end(store: Any) -> None:
    """A single change that is refused for ever ends with the ConflictError."""
    store._tracker.engine.refuse_commits(RETRIES + 1)
    with pytest.raises(richstore.ConflictError):
        store["list"].append(3)
    assert store["list"] == [1, [2]]
