"""The counted tree of spread lists, against a list of pages."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from richstore import pages
from richstore.pages import Tree


class Cells:
    """Cells in a dict."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def cell(self, name: bytes) -> Any:
        return pages.read_cell(name, self.kept.get(name))

    def set_cell(self, name: bytes, value: Any) -> None:
        if value is None:
            self.kept.pop(name, None)
        else:
            self.kept[name] = value.to_bytes()


def check(tree: Tree, model: list[list[int]]) -> None:
    """Compare everything a tree answers with the pages it was made of."""
    assert list(tree.pages()) == [pid for pid, _ in model]
    assert list(tree.pages(reverse=True)) == [pid for pid, _ in reversed(model)]
    assert tree.last()[1] == sum(count for _, count in model[:-1])
    position = 0
    for pid, count in model:
        path = tree.path_to(pid)
        assert path is not None
        assert path[-1][1].ids[path[-1][2]] == pid
        for offset in range(count):
            assert tree.locate(position)[:2] == (pid, offset)
            position += 1


@pytest.mark.parametrize("seed", range(40))
def test_any_changes(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Counting, splitting, joining and removing pages anywhere keep every answer right."""
    monkeypatch.setattr(pages, "FANOUT", 4)
    dice = random.Random(seed)
    ids = itertools.count(100)
    tree = Tree(Cells(), 7)
    model = [[next(ids), dice.randrange(5)] for _ in range(dice.randrange(1, 40))]
    tree.build([(pid, count) for pid, count in model], ids.__next__)
    check(tree, model)
    for _ in range(40):
        at = dice.randrange(len(model))
        pid, count = model[at]
        path = tree.path_to(pid)
        assert path is not None
        assert tree.path_to(pid, [name for name, _, _ in path]) is not None
        index, child = path[-1][1], path[-1][2]
        choice = dice.randrange(4)
        if choice == 0:
            change = 1 if not count or dice.random() < 0.5 else -1
            tree.add(path, change)
            model[at][1] += change
        elif choice == 1:
            left = dice.randrange(count + 1)
            parts = [(pid, left), (next(ids), count - left)]
            tree.replace(path, child + 1, parts, ids.__next__)
            model[at : at + 1] = [list(part) for part in parts]
        elif choice == 2 and not count and len(model) > 1:
            tree.replace(path, child + 1, [], ids.__next__)
            del model[at]
        elif choice == 3 and child + 1 < len(index.ids):
            both = count + model[at + 1][1]
            tree.replace(path, child + 2, [(pid, both)], ids.__next__)
            model[at : at + 2] = [[pid, both]]
        check(tree, model)


def test_equal_keys_have_one_form() -> None:
    """Keys that are equal share their form, others do not, and what bytes cannot tell has none."""
    assert pages.entry_form(1) == pages.entry_form(1.0) == pages.entry_form(True)
    assert pages.entry_form((1, "a")) == pages.entry_form((1.0, "a")) != pages.entry_form((1, b"a"))
    assert pages.entry_form("x" * 1000) != pages.entry_form("x" * 999 + "y")
    for key in (float("nan"), frozenset({1}), object(), (1, object())):
        assert pages.entry_form(key) is None
