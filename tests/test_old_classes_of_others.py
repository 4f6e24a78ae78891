"""Classes that change, in files that are read strictly: what is allowed goes by the new names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, child_environment, run_python

import richstore

OLD = """
class Item:
    def __init__(self, name):
        self.name = name

class Bag(list):
    pass

class Tagged(dict):
    def __reduce__(self):
        return (Tagged, (), {"tag": 1})
"""
NEW = """
class Thing:
    __richstore_version__ = 2

    @classmethod
    def upgrade(cls, state, from_version):
        return {"title": state["name"], "from": from_version}

class Bag(list):
    __richstore_version__ = 1

    @classmethod
    def upgrade(cls, state, from_version):
        return {**state, "upgraded": from_version}
"""
WRITE = """
import sys, richstore, shop_classes as shop
with richstore.open(sys.argv[1], synchronous="off") as store:
    bag = shop.Bag([1, 2])
    bag.colour = "red"
    store["item"] = shop.Item("ann")
    store["bag"] = bag
    store["nested"] = [{"item": shop.Item("bob")}, (shop.Item("cy"),)]
    store["plain"] = {"a": [1]}
"""


@pytest.fixture
def shop(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is now; a store at `path` was written with an older one."""
    module = tmp_path / "modules" / "shop_classes.py"
    module.parent.mkdir()
    module.write_text(OLD)
    monkeypatch.setenv("PYTHONPATH", str(module.parent), prepend=":")
    assert "PYTHONPATH" in child_environment()
    done = run_python(WRITE, path)
    assert done.returncode == 0, done.stderr
    module.write_text(NEW)
    monkeypatch.syspath_prepend(str(module.parent))
    sys.modules.pop("shop_classes", None)
    monkeypatch.setattr(richstore.codec.renames, "_renamed", {})
    import shop_classes  # type: ignore[import-not-found]

    yield shop_classes
    sys.modules.pop("shop_classes", None)


def test_renamed_and_upgraded(path: str, shop: Any) -> None:
    """Under a list of classes, old names lead to the class that is allowed, upgraded."""
    richstore.renamed("shop_classes.Item", shop.Thing)
    for classes in ([shop.Thing, shop.Bag], [shop], lambda name: name.startswith("shop_classes.")):
        with richstore.open(path, "r", classes=classes) as store:
            item = store["item"]
            assert type(richstore.plain(item)) is shop.Thing
            assert (item.title, getattr(item, "from")) == ("ann", 0)
            bag = store["bag"]
            assert (list(bag), bag.colour, bag.upgraded) == ([1, 2], "red", 0)
            assert store["nested"][0]["item"].title == "bob"
            assert store["nested"][1][0].title == "cy"
            with store.snapshot() as view:
                assert view["item"].title == "ann"
    with richstore.open(path, classes=[shop.Thing, shop.Bag]) as store:
        store["nested"][0]["more"] = 1
        store["bag"].append(3)
        assert store.migrate() > 0
        check_store(store)
    with richstore.open(path, classes=[shop]) as store:
        assert (list(store["bag"]), store["bag"].upgraded) == ([1, 2, 3], 0)
        assert store["nested"][1][0].title == "cy"


def test_what_is_not_allowed(path: str, shop: Any) -> None:
    """Allowing the old name alone, or neither, refuses with the new name; the rest is readable."""
    richstore.renamed("shop_classes.Item", shop.Thing)
    for classes in ("none", [shop.Bag], lambda name: name == "shop_classes.Item"):
        with richstore.open(path, "r", classes=classes) as store:
            for key in ("item", "nested"):
                with pytest.raises(richstore.UntrustedClassError, match=r"shop_classes\.Thing"):
                    richstore.plain(store[key])
            assert store["plain"] == {"a": [1]}


def test_a_class_that_is_gone(path: str, shop: Any) -> None:
    """Without the renaming, a name that a list does not have is refused and not a placeholder."""
    with richstore.open(path, "r", classes=[shop.Thing]) as store:
        with pytest.raises(richstore.UntrustedClassError, match=r"shop_classes\.Item"):
            store["item"]
        assert store["plain"] == {"a": [1]}
