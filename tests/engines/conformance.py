"""What every engine must do: subclass `EngineConformance` and say how one is opened.

```python
class TestMyEngine(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path):
        engine = open_my_engine(tmp_path / "data")
        yield engine
        engine.close()
```
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from richstore.engines.base import Engine, ReadTransaction, WriteTransaction
from richstore.errors import ClosedError

__all__ = ["EngineConformance", "contents", "fill", "now"]

KEYS = [b"\0", b"\0\0", b"a", b"a\0", b"aa", b"ab", b"b", b"\xff", b"\xff" * 511]


def fill(engine: Engine, items: dict[bytes, bytes]) -> int:
    """Store items in one commit; return its number."""
    transaction = engine.write(None)
    for key, value in items.items():
        transaction.put(key, value)
    transaction.commit()
    return transaction.id


def contents(source: ReadTransaction | WriteTransaction) -> dict[bytes, bytes]:
    """Return everything that a transaction sees."""
    return dict(source.scan(b"", None))


def now(engine: Engine) -> dict[bytes, bytes]:
    """Return everything that is committed."""
    view = engine.read()
    try:
        return contents(view)
    finally:
        view.close()


class EngineConformance:
    """The suite; the subclass has a fixture `engine`, an empty engine that it closes."""

    # --- an empty engine ---

    def test_empty(self, engine: Engine) -> None:
        """A new engine has commit number 0, and nothing in it."""
        view = engine.read()
        assert (engine.last_commit(), view.id, view.get(b"a")) == (0, 0, None)
        assert list(view.scan(b"", None)) == list(view.scan(b"", None, reverse=True)) == []
        view.close()

    # --- commits and their numbers ---

    def test_commits_are_numbered(self, engine: Engine) -> None:
        """A commit that wrote has the number that its transaction said, one more than before."""
        for number in range(1, 6):
            transaction = engine.write(None)
            assert transaction.id == number
            transaction.put(b"key", b"%d" % number)
            assert engine.last_commit() == number - 1
            transaction.commit()
            assert engine.last_commit() == transaction.id == number
            view = engine.read()
            assert (view.id, view.get(b"key")) == (number, b"%d" % number)
            view.close()

    def test_empty_commit(self, engine: Engine) -> None:
        """A commit without writes changes nothing and the next one is still numbered rightly."""
        fill(engine, {b"a": b"1"})
        engine.write(None).commit()
        number = fill(engine, {b"a": b"2"})
        assert engine.last_commit() == number
        assert now(engine) == {b"a": b"2"}

    def test_committed(self, engine: Engine) -> None:
        """A write transaction knows whether it was committed, whatever came after that."""
        for value, aborted in ((b"1", False), (b"2", True)):
            transaction = engine.write(None)
            transaction.put(b"a", value)
            assert not transaction.committed
            if aborted:
                transaction.abort()
            else:
                transaction.commit()
            with pytest.raises(ClosedError):
                transaction.commit()
            assert transaction.committed is not aborted
        assert now(engine) == {b"a": b"1"}

    def test_abort(self, engine: Engine) -> None:
        """What is aborted is not there, takes no number, and a second abort does nothing."""
        fill(engine, {b"a": b"1", b"b": b"2"})
        transaction = engine.write(None)
        transaction.put(b"a", b"changed")
        transaction.put(b"c", b"new")
        assert transaction.delete(b"b")
        transaction.abort()
        transaction.abort()
        assert engine.last_commit() == 1
        assert now(engine) == {b"a": b"1", b"b": b"2"}
        assert fill(engine, {b"d": b"4"}) == 2

    def test_abort_after_commit(self, engine: Engine) -> None:
        """Aborting what was committed does nothing."""
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        transaction.commit()
        transaction.abort()
        assert now(engine) == {b"a": b"1"}

    @pytest.mark.parametrize("end", ["commit", "abort"])
    def test_ended_write_transaction(self, engine: Engine, end: str) -> None:
        """A write transaction that has ended refuses every use with ClosedError."""
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        getattr(transaction, end)()
        for use in (
            lambda: transaction.get(b"a"),
            lambda: transaction.put(b"a", b"2"),
            lambda: transaction.put_many([(b"a", b"2")]),
            lambda: transaction.delete(b"a"),
            lambda: list(transaction.scan(b"", None)),
            lambda: transaction.commit(),
        ):
            with pytest.raises(ClosedError):
                use()
        assert engine.last_commit() == (1 if end == "commit" else 0)

    def test_dropped_write_transaction(self, engine: Engine) -> None:
        """A write transaction that is dropped is aborted, and the next one can begin."""
        transaction = engine.write(None)
        transaction.put(b"a", b"1")
        del transaction
        gc.collect()
        assert fill(engine, {b"b": b"2"}) == 1
        assert now(engine) == {b"b": b"2"}

    # --- reading and writing ---

    def test_values(self, engine: Engine) -> None:
        """Any bytes are a value: empty, with zeros, of megabytes; overwriting replaces them."""
        values = [b"", b"\0", b"x" * 4095, b"y" * 100_000, bytes(3_000_000), b"z"]
        for value in values:
            fill(engine, {b"key": value})
            view = engine.read()
            assert view.get(b"key") == value
            view.close()

    def test_keys(self, engine: Engine) -> None:
        """Keys of 1 to 511 bytes are kept in the order of their bytes."""
        fill(engine, {key: key[::-1] for key in KEYS})
        view = engine.read()
        assert list(view.scan(b"", None)) == [(key, key[::-1]) for key in sorted(KEYS)]
        assert all(view.get(key) == key[::-1] for key in KEYS)
        view.close()

    @pytest.mark.parametrize("key", [b"", b"x" * 512])
    def test_key_too_short_or_long(self, engine: Engine, key: bytes) -> None:
        """A key of no bytes or of 512 is refused with ValueError, and the rest goes on."""
        transaction = engine.write(None)
        with pytest.raises(ValueError, match="1 to 511 bytes"):
            transaction.put(key, b"")
        transaction.abort()
        assert fill(engine, {b"a": b"1"}) == 1

    def test_own_writes(self, engine: Engine) -> None:
        """A write transaction reads its own writes; nobody else does before the commit."""
        fill(engine, {b"a": b"1", b"b": b"2", b"c": b"3"})
        transaction = engine.write(None)
        transaction.put(b"a", b"new")
        transaction.put(b"d", b"4")
        assert transaction.delete(b"b")
        assert (transaction.get(b"a"), transaction.get(b"b")) == (b"new", None)
        expected = {b"a": b"new", b"c": b"3", b"d": b"4"}
        assert contents(transaction) == expected
        backwards = list(transaction.scan(b"", None, reverse=True))
        assert backwards == sorted(expected.items(), reverse=True)
        assert now(engine) == {b"a": b"1", b"b": b"2", b"c": b"3"}
        transaction.commit()
        assert now(engine) == expected

    def test_delete(self, engine: Engine) -> None:
        """Deleting tells whether the key was there, for own writes as well."""
        fill(engine, {b"a": b"1"})
        transaction = engine.write(None)
        assert [transaction.delete(b"a"), transaction.delete(b"a")] == [True, False]
        transaction.put(b"b", b"2")
        assert [transaction.delete(b"b"), transaction.delete(b"b")] == [True, False]
        transaction.put(b"a", b"again")
        transaction.commit()
        assert now(engine) == {b"a": b"again"}

    def test_delete_and_come_back(self, engine: Engine) -> None:
        """A key that was deleted in a commit can be stored again in a later one."""
        fill(engine, {b"a": b"1", b"b": b"2"})
        transaction = engine.write(None)
        transaction.delete(b"a")
        transaction.commit()
        assert now(engine) == {b"b": b"2"}
        fill(engine, {b"a": b"3"})
        assert now(engine) == {b"a": b"3", b"b": b"2"}

    # --- many at once ---

    def test_put_many(self, engine: Engine) -> None:
        """Many items are stored as one after the other would be: the last value of a key counts."""
        fill(engine, {b"0007": b"old", b"other": b"1"})
        transaction = engine.write(None)
        transaction.put_many([])
        transaction.put_many((b"%04d" % i, b"first") for i in range(1_000))
        transaction.put_many([(b"%04d" % (i % 500), bytes(i)) for i in range(2_000)])
        assert transaction.get(b"0007") == bytes(1_507)
        transaction.commit()
        expected = {b"%04d" % i: bytes(1_500 + i) for i in range(500)}
        expected |= {b"%04d" % i: b"first" for i in range(500, 1_000)}
        assert now(engine) == expected | {b"other": b"1"}

    def test_put_many_of_an_iterable_that_reads(self, engine: Engine) -> None:
        """The iterable may read and write the transaction that it is stored in."""
        fill(engine, {b"%05d" % i: b"old" for i in range(1_000)})
        transaction = engine.write(None)

        def changed() -> Iterator[tuple[bytes, bytes]]:
            for key, value in transaction.scan(b"", None):
                if value == b"old":
                    transaction.put(b"x" + key, b"added")
                    yield key, b"new"

        transaction.put_many(changed())
        transaction.commit()
        keys = [b"%05d" % i for i in range(1_000)]
        assert now(engine) == dict.fromkeys(keys, b"new") | {b"x" + key: b"added" for key in keys}

    def test_put_many_of_an_iterable_that_ends_it(self, engine: Engine) -> None:
        """When the iterable ends the transaction, that is a ClosedError and nothing is stored."""
        transaction = engine.write(None)

        def ending() -> Iterator[tuple[bytes, bytes]]:
            for i in range(1_000):
                if i == 700:
                    transaction.abort()
                yield b"%04d" % i, b""

        with pytest.raises(ClosedError):
            transaction.put_many(ending())
        assert now(engine) == {}

    def test_put_many_that_fails(self, engine: Engine) -> None:
        """An error of the iterable, or a key that is none, comes out, and the rest can go on."""
        transaction = engine.write(None)

        def failing() -> Iterator[tuple[bytes, bytes]]:
            yield b"a", b"1"
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            transaction.put_many(failing())
        for key in (b"", b"x" * 512):
            with pytest.raises(ValueError, match="1 to 511 bytes"):
                transaction.put_many([(b"b", b"2"), (key, b"")])
        transaction.put(b"c", b"3")
        transaction.abort()
        assert fill(engine, {b"d": b"4"}) == 1

    # --- scans ---

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("write", [False, True])
    def test_ranges(self, engine: Engine, reverse: bool, write: bool) -> None:
        """A scan gives the keys from start on and before stop, whichever of them exist."""
        fill(engine, dict.fromkeys(KEYS[:-1], b"v"))
        source: Any = engine.write(None) if write else engine.read()
        bounds = [b"", *KEYS, b"0", b"z", b"aaa"]
        for start, stop in itertools.product(bounds, [*bounds, None]):
            expected = sorted(
                (key for key in KEYS[:-1] if key >= start and (stop is None or key < stop)),
                reverse=reverse,
            )
            found = [key for key, _ in source.scan(start, stop, reverse=reverse)]
            assert found == expected, (start, stop)
        (source.abort if write else source.close)()

    def test_scan_is_lazy(self, engine: Engine) -> None:
        """Many scans can be begun and left at their first item, at a cost that does not grow."""
        fill(engine, {b"%06d" % i: bytes(100) for i in range(20_000)})
        view = engine.read()
        for _ in range(2_000):  # reading everything each time would be 40 million items
            assert next(view.scan(b"", None))[0] == b"000000"
        view.close()

    def test_scans_side_by_side(self, engine: Engine) -> None:
        """Scans of one view are independent of each other."""
        fill(engine, {b"%03d" % i: b"" for i in range(200)})
        view = engine.read()
        ahead, back = view.scan(b"", None), view.scan(b"", None, reverse=True)
        pairs = [(a, b) for (a, _), (b, _) in zip(ahead, back, strict=True)]
        assert pairs == [(b"%03d" % i, b"%03d" % (199 - i)) for i in range(200)]
        view.close()

    @pytest.mark.parametrize("reverse", [False, True])
    def test_scan_while_writing(self, engine: Engine, reverse: bool) -> None:
        """A scan inside a write transaction goes on from where it is, whatever is written."""
        fill(engine, {b"%05d" % i: b"old" for i in range(2, 2_002, 2)})
        transaction = engine.write(None)
        step = -1 if reverse else 1
        seen = []
        for key, value in transaction.scan(b"", None, reverse=reverse):
            number = int(key)
            seen.append((number, value))
            if value == b"old":
                assert transaction.delete(key)
                transaction.put(b"%05d" % (number + step), b"ahead")
                transaction.put(b"%05d" % (number - step), b"behind")
                if number % 100 == 50:
                    assert transaction.delete(b"%05d" % (number + 2 * step))
        met = []
        for number in range(2, 2_002, 2)[::step]:
            if (number - 2 * step) % 100 != 50:
                met += [(number, b"old"), (number + step, b"ahead")]
        assert seen == met
        transaction.abort()

    def test_scan_clears_as_it_goes(self, engine: Engine) -> None:
        """Deleting every item that a scan gives leaves nothing."""
        fill(engine, {b"%05d" % i: bytes(i % 3000) for i in range(3_000)})
        transaction = engine.write(None)
        for key, _ in transaction.scan(b"", None):
            assert transaction.delete(key)
        transaction.commit()
        assert now(engine) == {}

    # --- views ---

    def test_views_are_frozen(self, engine: Engine) -> None:
        """Each view shows the state after its commit, however many commits follow."""
        rng = random.Random(1)
        model: dict[bytes, bytes] = {}
        views = []
        for number in range(60):
            transaction = engine.write(None)
            for _ in range(10):
                key = b"%02d" % rng.randrange(40)
                if rng.random() < 0.4:
                    assert transaction.delete(key) == (model.pop(key, None) is not None)
                else:
                    model[key] = value = b"%d" % rng.randrange(1000)
                    transaction.put(key, value)
            transaction.put(b"n", b"%d" % number)
            model[b"n"] = b"%d" % number
            transaction.commit()
            views.append((engine.read(), dict(model)))
        rng.shuffle(views)
        for view, expected in views:
            assert contents(view) == expected
            assert all(view.get(b"%02d" % i) == expected.get(b"%02d" % i) for i in range(40))
            backwards = dict(view.scan(b"", None, reverse=True))
            assert backwards == expected
            view.close()

    def test_view_during_write(self, engine: Engine) -> None:
        """A view can be begun while a write transaction is open, and is not disturbed by it."""
        fill(engine, {b"a": b"1"})
        transaction = engine.write(None)
        transaction.put(b"a", b"2")
        view = engine.read()
        scan = view.scan(b"", None)
        transaction.commit()
        assert (view.id, view.get(b"a"), list(scan)) == (1, b"1", [(b"a", b"1")])
        view.close()

    def test_closed_view(self, engine: Engine) -> None:
        """A closed view, and a scan that it had begun, raise ClosedError; again is fine."""
        fill(engine, {b"%03d" % i: b"1" for i in range(200)})
        view = engine.read()
        scan = view.scan(b"", None)
        assert next(scan) == (b"000", b"1")
        view.close()
        view.close()
        with pytest.raises(ClosedError):
            view.get(b"000")
        with pytest.raises(ClosedError):
            list(view.scan(b"", None))
        with pytest.raises(ClosedError):
            list(scan)

    def test_dropped_views(self, engine: Engine) -> None:
        """Views that are dropped without being closed do not use anything up."""
        fill(engine, {b"a": b"1"})
        for _ in range(3_000):
            view = engine.read()
            assert next(view.scan(b"", None)) == (b"a", b"1")
        del view
        assert now(engine) == {b"a": b"1"}

    # --- statistics ---

    def test_stats(self, engine: Engine) -> None:
        """The statistics count commits and stored keys."""
        stats = engine.stats()
        assert (stats.commits, stats.entries, stats.readers) == (0, 0, 0)
        fill(engine, {b"%d" % i: bytes(i) for i in range(100)})
        transaction = engine.write(None)
        transaction.put(b"7", b"changed")
        transaction.put(b"new", b"")
        for key in (b"8", b"9", b"10"):
            assert transaction.delete(key)
        transaction.commit()
        stats = engine.stats()
        assert (stats.commits, stats.entries, stats.readers) == (2, 98, 0)

    def test_stats_of_readers(self, engine: Engine) -> None:
        """The statistics count the readers, and tell the oldest and its age."""
        fill(engine, {b"a": b"1"})
        before = time.monotonic()
        first = engine.read()
        after = time.monotonic()
        fill(engine, {b"a": b"2"})
        views = [engine.read() for _ in range(3)]
        stats = engine.stats()
        assert (stats.readers, stats.oldest_reader_commit) == (4, 1)
        assert stats.oldest_reader_pid == os.getpid()
        end = time.monotonic()
        assert stats.oldest_reader_age is not None
        assert 0 <= stats.oldest_reader_age <= end - before
        first.close()
        stats = engine.stats()
        assert (stats.readers, stats.oldest_reader_commit) == (3, 2)
        assert stats.oldest_reader_age is not None
        assert stats.oldest_reader_age <= time.monotonic() - after
        for view in views:
            view.close()
        stats = engine.stats()
        assert (stats.readers, stats.oldest_reader_commit) == (0, None)
        assert (stats.oldest_reader_pid, stats.oldest_reader_age) == (None, None)

    # --- threads ---

    def test_view_in_other_threads(self, engine: Engine) -> None:
        """One view can be read by many threads, also while another one is closing it."""
        expected = {b"%04d" % i: bytes(i) for i in range(500)}
        fill(engine, expected)
        view = engine.read()
        problems: list[object] = []

        def read_all() -> None:
            try:
                for _ in range(20):
                    if contents(view) != expected or view.get(b"0007") != bytes(7):
                        problems.append("wrong content")
                while True:
                    view.get(b"0007")
            except ClosedError:
                return
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=read_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            fill(engine, {b"%04d" % number: b"changed"})
        view.close()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_scans_in_other_threads(self, engine: Engine) -> None:
        """Many threads can scan one view, both ways, until another one closes it under them."""
        expected = [(b"%04d" % i, b"%d" % i * 50) for i in range(2_000)]
        fill(engine, dict(expected))
        problems: list[object] = []

        def scan(view: ReadTransaction, begun: threading.Barrier, reverse: bool) -> None:
            wanted = expected[::-1] if reverse else expected
            begun.wait(10)
            try:
                while True:
                    for found, item in zip(
                        view.scan(b"", None, reverse=reverse), wanted, strict=True
                    ):
                        if found != item:
                            problems.append((found, item))
            except ClosedError:
                return
            except BaseException as error:
                problems.append(error)

        for _ in range(20):
            view, begun = engine.read(), threading.Barrier(5)
            threads = [
                threading.Thread(target=scan, args=(view, begun, bool(i % 2))) for i in range(4)
            ]
            for thread in threads:
                thread.start()
            begun.wait(10)
            view.close()
            for number in range(5):
                changed = [(key, b"%d" % number * 100) for key, _ in expected]
                fill(engine, dict(changed))
            for thread in threads:
                thread.join()
            fill(engine, dict(expected))
        assert problems == []

    def test_readers_see_whole_commits(self, engine: Engine) -> None:
        """Threads that read while one writes see each commit wholly or not at all."""
        keys = [b"%02d" % i for i in range(20)]
        fill(engine, dict.fromkeys(keys, b"0"))
        done = threading.Event()
        problems: list[object] = []

        def watch() -> None:
            last = 0
            while not done.is_set():
                number = engine.last_commit()
                view = engine.read()
                values = set(contents(view).values())
                if len(values) != 1 or view.id < number or number < last:
                    problems.append((values, view.id, number, last))
                last = number
                view.close()

        threads = [threading.Thread(target=watch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            fill(engine, dict.fromkeys(keys, b"%d" % number))
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_writers_in_turn(self, engine: Engine) -> None:
        """Threads that take turns by a lock can all write."""
        lock = threading.Lock()

        def add() -> None:
            for _ in range(50):
                with lock:
                    transaction = engine.write(None)
                    count = int(transaction.get(b"n") or b"0")
                    transaction.put(b"n", b"%d" % (count + 1))
                    transaction.commit()

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert now(engine) == {b"n": b"200"}
        assert engine.last_commit() == 200

    # --- the end ---

    def test_close(self, engine: Engine) -> None:
        """Closing ends the engine and its transactions: all raise ClosedError; again is fine."""
        fill(engine, {b"%03d" % i: b"1" for i in range(200)})
        view, transaction = engine.read(), engine.write(None)
        transaction.put(b"b", b"2")
        scan = view.scan(b"", None)
        next(scan)
        engine.close()
        engine.close()
        uses = [
            engine.last_commit,
            engine.read,
            lambda: engine.write(None),
            lambda: engine.write(1.0),
            lambda: view.get(b"000"),
            lambda: list(view.scan(b"", None)),
            lambda: list(scan),
            lambda: transaction.get(b"000"),
            lambda: transaction.put(b"a", b"1"),
            lambda: transaction.put_many([(b"a", b"1")]),
            lambda: transaction.delete(b"000"),
            transaction.commit,
            engine.stats,
        ]
        for use in uses:
            with pytest.raises(ClosedError):
                use()
        transaction.abort()
        view.close()

    # --- against a model ---

    @given(data=st.data())
    @settings(
        max_examples=60,
        deadline=None,
        # the engine is emptied at the beginning of every example; every subclass is an executor
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    def test_model(self, engine: Engine, data: st.DataObject) -> None:
        """Whatever is done, the engine and a plain dict agree, in every view and every scan."""
        clear(engine)
        keys = st.binary(min_size=1, max_size=3) | st.sampled_from(KEYS)
        bound = st.just(b"") | keys
        model: dict[bytes, bytes] = {}
        views: list[tuple[ReadTransaction, dict[bytes, bytes]]] = []
        for _ in range(data.draw(st.integers(1, 6))):
            transaction, draft = engine.write(None), dict(model)
            for _ in range(data.draw(st.integers(0, 12))):
                key = data.draw(keys)
                if data.draw(st.booleans()):
                    value = data.draw(st.binary(max_size=8))
                    transaction.put(key, value * 500)
                    draft[key] = value * 500
                else:
                    assert transaction.delete(key) == (draft.pop(key, None) is not None)
            check_scan(transaction, draft, data, bound)
            if data.draw(st.booleans()):
                transaction.commit()
                model = draft
            else:
                transaction.abort()
            if data.draw(st.booleans()):
                views.append((engine.read(), model))
        views.append((engine.read(), model))
        for view, expected in views:
            assert contents(view) == expected
            assert all(view.get(key) == expected.get(key) for key in [*KEYS, *expected])
            check_scan(view, expected, data, bound)
            view.close()


def clear(engine: Engine) -> None:
    """Delete everything."""
    transaction = engine.write(None)
    for key, _ in transaction.scan(b"", None):
        transaction.delete(key)
    transaction.commit()


def check_scan(
    source: ReadTransaction | WriteTransaction,
    expected: dict[bytes, bytes],
    data: st.DataObject,
    bound: st.SearchStrategy[bytes],
) -> None:
    """Compare a scan of a drawn range, both ways, with what it should give."""
    start, stop = data.draw(bound), data.draw(st.none() | bound)
    inside = [i for i in expected.items() if i[0] >= start and (stop is None or i[0] < stop)]
    assert list(source.scan(start, stop)) == sorted(inside)
    assert list(source.scan(start, stop, reverse=True)) == sorted(inside, reverse=True)
