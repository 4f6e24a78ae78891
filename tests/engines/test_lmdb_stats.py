from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from engines.conformance import fill
from engines.processes import Other
from richstore.engines.base import EngineStats
from richstore.engines.lmdb import LmdbEngine


def used(stats: EngineStats) -> int:
    """Return how many pages hold something."""
    assert stats.pages is not None
    assert stats.pages_free is not None and stats.pages_pinned is not None
    return stats.pages - stats.pages_free - stats.pages_pinned


def churn(engine: LmdbEngine, commits: int) -> None:
    """Replace random values of many sizes, a few a commit."""
    rng = random.Random(commits)
    for _ in range(commits):
        fill(
            engine,
            {b"%03d" % rng.randrange(500): bytes(rng.choice([9, 900, 9_000])) for _ in range(20)},
        )


def test_empty_file(path: str, engine: LmdbEngine) -> None:
    """An empty file has its two first pages, and nothing free."""
    stats = engine.stats()
    assert (stats.pages, stats.pages_free, stats.pages_pinned) == (2, 0, 0)
    assert stats.page_size == 4096
    assert stats.file_size == os.path.getsize(path)
    assert stats.map_size is not None and stats.map_size >= 1 << 40


def test_every_page_is_counted(engine: LmdbEngine) -> None:
    """All pages are those of the tree of keys, free ones, or the few that list the free ones."""
    view = None
    for commits in (50, 2_000):
        churn(engine, commits)
        stats = engine.stats()
        tree = engine._env.stat()  # type: ignore[union-attr]
        keys = tree["branch_pages"] + tree["leaf_pages"] + tree["overflow_pages"]
        assert stats.entries == tree["entries"]
        # with a reader, the list has an entry for every commit, and more than one level
        lists = used(stats) - 2 - keys
        assert 1 <= lists <= 1 + commits // 8
        view = view or engine.read()
    assert stats.pages_pinned is not None and stats.pages_pinned > 20_000
    assert view is not None
    view.close()


def test_a_large_list_of_free_pages(engine: LmdbEngine) -> None:
    """The pages of a value of many megabytes are free when it is gone."""
    fill(engine, {b"a": b"1", b"large": bytes(40_000_000)})
    before = engine.stats()
    transaction = engine.write(None)
    assert transaction.delete(b"large")
    transaction.commit()
    stats = engine.stats()
    assert before.pages_free is not None and stats.pages_free is not None
    assert 40_000_000 // 4096 <= stats.pages_free - before.pages_free < 40_000_000 // 4096 + 30
    assert stats.pages == before.pages or used(stats) < 30


def test_free_pages_are_used_again(engine: LmdbEngine) -> None:
    """Free pages are written to before the file grows; pinned ones not until the reader ends."""
    churn(engine, 100)
    start = engine.stats()
    churn(engine, 100)
    assert start.pages is not None
    level = engine.stats().pages
    assert level is not None and level < 1.2 * start.pages
    view = engine.read()
    churn(engine, 100)
    pinned = engine.stats()
    assert pinned.pages is not None and pinned.pages > 2 * level
    assert pinned.pages_pinned is not None and pinned.pages_free is not None
    assert pinned.pages_pinned > 10 * pinned.pages_free
    assert pinned.oldest_reader_commit == view.id
    view.close()
    freed = engine.stats()
    assert freed.pages_pinned == 0
    assert freed.pages_free == pinned.pages_free + pinned.pages_pinned
    churn(engine, 100)
    assert engine.stats().pages == pinned.pages


def test_reader_of_the_latest_state(engine: LmdbEngine) -> None:
    """A reader of the latest state pins nothing yet."""
    churn(engine, 50)
    view = engine.read()
    stats = engine.stats()
    assert (stats.readers, stats.pages_pinned) == (1, 0)
    churn(engine, 1)
    assert engine.stats().pages_pinned
    view.close()


def test_reader_of_another_process(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """The oldest reader is found in whichever process it is; its age is known in this one only."""
    fill(engine, {b"a": b"1"})
    process = other()
    process.do("views = [e.read() for _ in range(3)]")
    churn(engine, 20)
    own = engine.read()
    stats = engine.stats()
    assert (stats.readers, stats.oldest_reader_commit) == (4, 1)
    assert (stats.oldest_reader_pid, stats.oldest_reader_age) == (process.process.pid, None)
    assert stats.pages_pinned
    said = process.do(
        "s = e.stats(); say(s.readers, s.oldest_reader_pid == os.getpid(), s.pages_pinned, "
        "s.oldest_reader_age > 0)"
    )
    assert said == f"4 True {stats.pages_pinned} True"
    process.do("for view in views: view.close()")
    stats = engine.stats()
    assert (stats.readers, stats.oldest_reader_commit, stats.pages_pinned) == (1, 21, 0)
    assert stats.oldest_reader_pid == os.getpid()
    own.close()


def test_oldest_in_both_processes(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """When two processes have a reader equally old, that of this one is told, with its age."""
    fill(engine, {b"a": b"1"})
    view = engine.read()
    other().do("view = e.read()")
    time.sleep(0.05)
    stats = engine.stats()
    assert (stats.readers, stats.oldest_reader_pid) == (2, os.getpid())
    assert stats.oldest_reader_age is not None and stats.oldest_reader_age >= 0.05
    view.close()


def test_reader_of_a_dead_process(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """Readers of a process that was killed are not counted, and pin nothing any more."""
    fill(engine, {b"a": b"1"})
    process = other()
    process.do("views = [e.read() for _ in range(3)]")
    churn(engine, 20)
    assert engine.stats().readers == 3
    process.kill()
    stats = engine.stats()
    assert (stats.readers, stats.oldest_reader_commit, stats.pages_pinned) == (0, None, 0)


def test_table_of_readers_is_full(engine: LmdbEngine) -> None:
    """When there is no room for one more reader, all but the free pages is told."""
    fill(engine, {b"a": b"1"})
    views = [engine.read() for _ in range(1024)]
    stats = engine.stats()
    assert (stats.readers, stats.pages_free, stats.pages_pinned) == (1024, None, None)
    assert (stats.commits, stats.entries) == (1, 1) and stats.pages is not None
    for view in views:
        view.close()
    assert engine.stats().pages_free is not None


def test_while_another_process_commits(engine: LmdbEngine, other: Callable[..., Other]) -> None:
    """The statistics are of one state, whatever another process commits meanwhile."""
    process = other()
    process.tell(
        "for i in range(3_000): t = e.write(None); t.put(b'%d' % i, bytes(5_000)); t.commit()"
    )
    last = 0
    while last < 3_000:
        stats = engine.stats()
        if stats.pages_free is not None:
            assert stats.entries == stats.commits >= last
            assert used(stats) >= 2 + 2 * stats.entries
        last = stats.commits
    assert process.out.readline() == "done\n"


def test_map_grown_by_another_process(tiny: LmdbEngine, other: Callable[..., Other]) -> None:
    """The statistics follow when another process has grown the file beyond the map."""
    assert tiny.stats().map_size == 1 << 16
    other(1 << 16).do("t = e.write(None); t.put(b'a', bytes(1_000_000)); t.commit()")
    stats = tiny.stats()
    assert (stats.commits, stats.entries) == (1, 1)
    assert stats.pages is not None and stats.pages > 1_000_000 // 4096


def test_stats_after_a_fork(engine: LmdbEngine) -> None:
    """The child of a fork counts with an environment of its own."""
    fill(engine, {b"a": b"1"})
    view = engine.read()
    expected = engine.stats()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            stats = engine.stats()
            same = (stats.entries, stats.pages) == (expected.entries, expected.pages)
            parent = (stats.oldest_reader_pid, stats.oldest_reader_age) == (os.getppid(), None)
            code = 0 if same and parent else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    view.close()
