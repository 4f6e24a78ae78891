"""Transactions: all or nothing in memory and on disk, savepoints, and what rollback restores."""

from __future__ import annotations

from typing import Any

import pytest
from sample_classes import Account, Bare, Point

import richstore

pytestmark = pytest.mark.usefixtures("page")


class Stop(Exception):
    """Raised by the tests to leave a block."""


@pytest.fixture
def data(box: Any) -> dict[str, Any]:
    """Fill the store and return the same content as plain data."""
    content = {"list": [1, [2]], "dict": {"a": {"b": 1}}, "set": {1}, "ann": Account("ann", 10)}
    box.store.update(content)
    return content


def change_everything(store: Any) -> None:
    """Change every value of `data`, at several depths, and the store's keys."""
    store["list"][1].append(3)
    store["list"].insert(0, {"new": []})
    store["list"][0]["new"].append("deep")
    store["dict"]["a"]["b"] = 2
    store["dict"].update(z=[1])
    store["set"] |= {9}
    store["ann"].deposit(5)
    store["extra"] = ["x"]
    store["extra"].append("y")


def content(store: Any) -> dict[str, Any]:
    """Return all of a store as plain data."""
    return {key: richstore.plain(value) for key, value in store.items()}


def test_commit_keeps_everything(box: Any, data: Any) -> None:
    """All changes of a block are there after it, live and after reopening."""
    with box.store.transaction() as tx:
        assert isinstance(tx, richstore.Transaction)
        change_everything(box.store)
    change_everything(data)
    assert content(box.store) == data
    assert content(box.reopen()) == data


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_rollback_on_any_exception(box: Any, data: Any, error: type[BaseException]) -> None:
    """Any exception propagates as the same object and undoes the block, in memory and on disk."""
    raised = error("stop")
    held = dict(box.store.items())
    with pytest.raises(error) as caught, box.store.transaction():
        change_everything(box.store)
        del box.store["dict"]
        raise raised
    assert caught.value is raised
    assert content(box.store) == data
    assert held == data
    assert len(box.store) == len(data)
    assert content(box.reopen()) == data


def test_reads_inside_see_own_writes(store: Any, data: Any) -> None:
    """Inside a block every read shows its writes: through the store, held proxies and views."""
    held_list, inner, ann, keys = store["list"], store["list"][1], store["ann"], store.keys()
    with store.transaction():
        inner.append(3)
        assert held_list == [1, [2, 3]]
        assert store["list"][1] == [2, 3]
        held_list.insert(0, "first")
        assert held_list[2] is inner
        assert [*held_list] == ["first", 1, [2, 3]]
        assert len(held_list) == 3
        ann.balance = 99
        assert store["ann"].balance == ann.balance == 99
        store["new"] = {"k": []}
        store["new"]["k"].append(1)
        assert store["new"] == {"k": [1]}
        assert "new" in keys
        assert len(store) == len(data) + 1
        del store["set"]
        assert "set" not in store
        assert list(store) == sorted(["list", "dict", "ann", "new"])
        assert dict(store.items())["new"] == {"k": [1]}
        assert list(store.keys("d", "m")) == ["dict", "list"]
        with pytest.raises(KeyError):
            store["set"]


def test_rollback_restores_held_and_new_proxies(store: Any, data: Any) -> None:
    """After rollback old proxies show the committed state and work on; new ones are detached."""
    inner, nested, ann = store["list"][1], store["dict"]["a"], store["ann"]
    with pytest.raises(Stop), store.transaction():
        inner.extend([3, 4])
        nested["born"] = {"k": [1]}
        born = nested["born"]
        deep = born["k"]
        store["fresh"] = [[5]]
        fresh = store["fresh"]
        ann.history.append({"x": 1})
        row = ann.history[0]
        ann.nickname = "annie"
        raise Stop
    assert (inner, nested, ann) == ([2], {"b": 1}, data["ann"])
    assert not hasattr(ann, "nickname")
    assert store["list"][1] is inner
    for gone in (born, deep, fresh, row):
        with pytest.raises(richstore.DetachedError):
            gone.clear()
        assert not richstore.is_tracked(gone)
    assert (born, deep, fresh, row) == ({"k": [1]}, [1], [[5]], {"x": 1})
    inner.append("again")
    assert store["list"] == [1, [2, "again"]]


def test_rollback_revives_what_was_deleted(box: Any, data: Any) -> None:
    """A container deleted in a block that rolls back is part of the store as before."""
    inner = box.store["list"][1]
    with pytest.raises(Stop), box.store.transaction():
        del box.store["list"][1]
        with pytest.raises(richstore.DetachedError):
            inner.append("lost?")
        raise Stop
    inner.append("kept")
    assert box.stored("list") == [1, [2, "kept"]]


def test_deleted_and_put_back_in_one_block(box: Any, data: Any) -> None:
    """Moving containers within a value in a block keeps them the same containers."""
    inner = box.store["list"][1]
    with box.store.transaction():
        top = box.store["list"]
        top[0], top[1] = top[1], top[0]
    inner.append(7)
    assert box.stored("list") == [[2, 7], 1]


def test_nested_failure_undoes_the_inner_part_only(box: Any, data: Any) -> None:
    """An inner block's exception caught outside it undoes what the inner block did."""
    store = box.store
    with store.transaction():
        store["list"].append("outer")
        store["ann"].balance = 1
        with pytest.raises(Stop), store.transaction():
            store["list"].append("inner")
            store["ann"].balance = 2
            store["inner"] = 1
            del store["dict"]
            raise Stop
        assert store["list"] == [1, [2], "outer"]
        assert store["ann"].balance == 1
        assert "inner" not in store
        store["dict"]["a"]["b"] = 5
        with store.transaction():
            store["list"].append("second")
    expected = {**data, "list": [1, [2], "outer", "second"], "dict": {"a": {"b": 5}}}
    expected["ann"].balance = 1
    assert content(store) == expected
    assert content(box.reopen()) == expected


def test_outer_failure_undoes_inner_blocks_that_succeeded(box: Any, data: Any) -> None:
    """A finished inner block is part of the outer one and goes with it."""
    with pytest.raises(Stop), box.store.transaction():
        with box.store.transaction():
            change_everything(box.store)
        with box.store.transaction(), box.store.transaction():
            box.store["deep"] = 1
        raise Stop
    assert content(box.store) == data
    assert content(box.reopen()) == data


def test_failed_operation_inside_a_block(box: Any, data: Any) -> None:
    """An operation that fails in a block undoes itself alone; the block goes on and commits."""
    import threading

    store = box.store
    with store.transaction():
        store["list"].append("before")
        with pytest.raises(richstore.EncodingError):
            store["list"].extend([[1], threading.Lock()])
        with pytest.raises(IndexError):
            store["list"][99] = 1
        with pytest.raises(richstore.EncodingError):
            store["bad"] = threading.Lock()
        with pytest.raises(richstore.EncodingError):
            store["ann"].lock = threading.Lock()
        assert store["list"] == [1, [2], "before"]
        assert "bad" not in store
        assert not hasattr(store["ann"], "lock")
        store["list"].append("after")
    assert box.stored("list") == [1, [2], "before", "after"]
    assert box.stored("ann") == data["ann"]


def test_abort(box: Any, data: Any) -> None:
    """tx.abort() undoes the block, which then ends without an error and without a commit."""
    with box.store.transaction() as tx:
        change_everything(box.store)
        tx.abort()
    assert content(box.store) == data
    assert content(box.reopen()) == data
    box.store["list"].append(1)
    assert box.stored("list") == [1, [2], 1]


def test_savepoint_and_rollback_to(box: Any, data: Any) -> None:
    """rollback_to(savepoint) restores the state of the savepoint, again and again."""
    store = box.store
    with store.transaction() as tx:
        store["list"].append("kept")
        point = tx.savepoint()
        for _attempt in range(3):
            store["list"][1].append("undone")
            store["more"] = [1]
            more = store["more"]
            store["dict"].clear()
            tx.rollback_to(point)
            assert store["list"] == [1, [2], "kept"]
            assert store["dict"] == {"a": {"b": 1}}
            assert "more" not in store
            with pytest.raises(richstore.DetachedError):
                more.append(2)
        later = tx.savepoint()
        store["set"].add(5)
        tx.rollback_to(later)
        store["set"].add(6)
    expected = {**data, "list": [1, [2], "kept"], "set": {1, 6}}
    assert content(store) == expected
    assert content(box.reopen()) == expected


def test_rolling_back_to_an_outer_savepoint_ends_inner_ones(store: Any, data: Any) -> None:
    """After rollback to an earlier savepoint a later one is an error, not a surprise."""
    with store.transaction() as tx:
        first = tx.savepoint()
        store["list"].append(1)
        second = tx.savepoint()
        store["list"].append(2)
        tx.rollback_to(first)
        assert store["list"] == [1, [2]]
        with pytest.raises((ValueError, RuntimeError)):
            tx.rollback_to(second)


def test_finished_transaction_is_refused(store: Any, data: Any) -> None:
    """A transaction or savepoint used after its block is a ClosedError."""
    with store.transaction() as tx:
        point = tx.savepoint()
    for use in (tx.abort, tx.savepoint, lambda: tx.rollback_to(point)):
        with pytest.raises(richstore.ClosedError):
            use()
    assert content(store) == data


def test_overwritten_value_is_detached_on_commit(store: Any, data: Any) -> None:
    """Replacing a value detaches the old containers, at every depth; they still read."""
    top, inner = store["list"], store["list"][1]
    with store.transaction():
        store["list"] = ["new"]
    for gone in (top, inner):
        with pytest.raises(richstore.DetachedError):
            gone.append(1)
    assert top == [1, [2]]
    assert inner == [2]
    assert store["list"] == ["new"]


def test_empty_and_reading_blocks(store: Any, data: Any) -> None:
    """A block that changes nothing commits nothing and does no harm."""
    with store.transaction():
        pass
    with store.transaction():
        assert content(store) == data
    with pytest.raises(Stop), store.transaction():
        raise Stop
    assert content(store) == data


def test_control_flow_out_of_a_block_commits(box: Any) -> None:
    """Leaving a block by return, break or continue is not an exception and commits."""
    box.store["list"] = []

    def leave() -> str:
        with box.store.transaction():
            box.store["list"].append("return")
            return "left"

    assert leave() == "left"
    for number in range(3):
        with box.store.transaction():
            box.store["list"].append(number)
            if number == 1:
                break
    assert box.stored("list") == ["return", 0, 1]


def test_many_changes_in_one_block(box: Any) -> None:
    """A block of thousands of changes over many values is kept whole, and undone whole."""
    store = box.store
    with store.transaction():
        for number in range(2000):
            store.setdefault(f"k{number % 50:02}", []).append({"n": number})
    assert sum(len(rows) for rows in store.values()) == 2000
    with pytest.raises(Stop), store.transaction():
        for rows in store.values():
            rows.clear()
        store.clear()
        raise Stop
    assert len(store) == 50
    assert sum(len(rows) for rows in box.reopen().values()) == 2000


class Shop:
    """A class whose methods are transactions."""

    def __init__(self) -> None:
        self.stock = {"apple": 3}
        self.log: list[Any] = []

    @richstore.transactional
    def sell(self, item: str, number: int = 1) -> int:
        """Take from the stock; the log entry is undone when there is not enough."""
        self.log.append((item, number))
        self.stock[item] -= number
        if self.stock[item] < 0:
            raise Stop(item)
        return self.stock[item]


def test_transactional_method(box: Any) -> None:
    """A @transactional method of a stored instance is all or nothing."""
    box.store["shop"] = Shop()
    shop = box.store["shop"]
    assert shop.sell("apple", number=2) == 1
    with pytest.raises(Stop):
        shop.sell("apple", 2)
    with pytest.raises(KeyError):
        shop.sell("pear")
    assert (shop.stock, shop.log) == ({"apple": 1}, [("apple", 2)])
    assert vars(box.stored("shop")) == {"stock": {"apple": 1}, "log": [("apple", 2)]}


def test_transactional_method_inside_a_block(store: Any) -> None:
    """Inside a block a @transactional method is a savepoint."""
    store["shop"] = Shop()
    with store.transaction():
        store["shop"].sell("apple")
        with pytest.raises(Stop):
            store["shop"].sell("apple", 9)
        store["shop"].log.append("end")
    assert store["shop"].stock == {"apple": 2}
    assert store["shop"].log == [("apple", 1), "end"]


def test_transactional_method_of_a_plain_instance() -> None:
    """On an instance that is in no store a @transactional method is an ordinary method."""
    shop = Shop()
    assert shop.sell("apple") == 2
    assert Shop.sell.__name__ == "sell"
    assert Shop.sell.__doc__ is not None


def test_two_stores_at_once(path: str) -> None:
    """Blocks of two stores nest in any order and each commits or rolls back on its own."""
    with richstore.open(path, synchronous="off") as one, richstore.open("memory:") as two:
        one["k"], two["k"] = [1], [1]
        with one.transaction():
            one["k"].append(2)
            with pytest.raises(Stop), two.transaction():
                two["k"].append(one["k"])
                raise Stop
            two["k"].append("own transaction")
            with two.transaction():
                two["copy"] = one["k"]
                one["k"].append(3)
        assert one["k"] == [1, 2, 3]
        assert two["k"] == [1, "own transaction"]
        assert two["copy"] == [1, 2]
        two["copy"].append("independent")
        assert one["k"] == [1, 2, 3]


def test_two_handles_on_one_file_share_a_block(path: str) -> None:
    """Inside a block of one handle, the other handle of the same file takes part or is refused."""
    with (
        richstore.open(path, synchronous="off") as one,
        richstore.open(path, synchronous="off", timeout=0.2) as two,
    ):
        one["k"] = [1]
        with one.transaction():
            one["k"].append(2)
            try:
                two["k"].append(3)
                expected = [1, 2, 3]
            except richstore.LockTimeoutError:
                expected = [1, 2]
        assert one["k"] == two["k"] == expected


def test_instances_made_in_a_block(box: Any) -> None:
    """Instances and containers born in a block are live in it and stay live after commit."""
    with box.store.transaction():
        box.store["p"] = {"point": Point(1)}
        point = box.store["p"]["point"]
        point.tags.append("in")
        box.store["b"] = Bare(child=point)
        point.tags.append("more")
    point.tags.append("after")
    assert box.store["p"]["point"] is point
    assert box.stored("p") == {"point": Point(1, 0, ["in", "more", "after"])}
    assert box.stored("b").child == Point(1, 0, ["in"])


def test_who_is_in_a_transaction(box: Any, run_thread: Any, tmp_path: Any) -> None:
    """`in_transaction` tells it of a store, its groups and values, in the thread of the block."""
    store = box.store
    store["list"] = [[1]]
    places = [store, store.group("a"), store["list"], store["list"][0]]
    other = richstore.document(tmp_path / "a.json", default=[])

    def asked() -> list[bool]:
        return [richstore.in_transaction(place) for place in places]

    assert asked() == [False] * 4
    with store.transaction():
        assert asked() == [True] * 4
        assert run_thread(asked) == [False] * 4
        assert not richstore.in_transaction(other.value)
        assert not richstore.in_transaction([1])
    assert asked() == [False] * 4
    with other:
        assert richstore.in_transaction(other.value)
