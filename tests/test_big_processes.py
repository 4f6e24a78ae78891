"""Big values between real processes: held containers follow, nothing is lost, nothing is half."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import check_store
from test_big import N, numbered, rows
from test_processes import Child

import richstore
from richstore import paging

pytestmark = pytest.mark.timeout(120)

plain = richstore.plain
HELPERS = """
import random
def rows(count, start=0):
    return [{"n": n, "text": f"row {n * 7919 % 100_003:06}"} for n in range(start, start + count)]
"""


@pytest.fixture(params=["same page target", "another page target"])
def child(request: pytest.FixtureRequest, file_box: Any) -> Iterator[Child]:
    """A second process on the file, with the same page target or a smaller one."""
    made = Child(file_box.target)
    made(HELPERS)
    if request.param == "another page target":
        pytest.importorskip("richstore.paging", reason="values spread over no pages yet")
        made("import richstore.paging; richstore.paging.PAGE = 700")
    yield made
    made.end()


@pytest.fixture
def store(file_box: Any) -> Any:
    """An open store on a file."""
    return file_box.store


def test_held_rows_follow_the_other_process(store: Any, child: Child) -> None:
    """Rows held here are the same rows after another process reorganised their list."""
    store["k"] = rows()
    big = store["k"]
    held = {n: big[n] for n in (0, 1, 500, 1500, N - 1)}
    child("for n in range(200): store['k'].insert(n * 3, {'new': n})")
    child("store['k'][1000:1000] = rows(1500, 10_000)")
    child("for row in store['k']:\n    if row.get('n') in (0, 500, 1999): row['theirs'] = True")
    store.refresh()
    assert len(big) == N + 1700
    where = {row["n"]: at for at, row in enumerate(big) if row.get("n") in held}
    for n, row in held.items():
        assert big[where[n]] is row
        assert row.get("theirs", False) == (n in (0, 500, 1999))
        row["ours"] = n
    answer = child("[(row['n'], row['ours']) for row in store['k'] if 'ours' in row]")
    assert sorted(answer) == [(n, n) for n in sorted(held)]
    child("store['k'].sort(key=lambda row: -row.get('n', -1))")
    store.refresh()
    assert big[2500 - 1000 + 0]["n"] == child("store['k'][1500]['n']")
    for n, row in held.items():
        assert big[1500 + N - 1 - n] is row
        assert row["n"] == n
    child("del store['k'][1500:1600]")
    store.refresh()
    assert not richstore.is_tracked(held[N - 1])
    with pytest.raises(richstore.DetachedError):
        held[N - 1]["n"] = 5
    assert held[0]["n"] == 0
    held[0]["last"] = 1
    assert child("[row['n'] for row in store['k'] if 'last' in row]") == [0]


def test_held_dict_follows_the_other_process(store: Any, child: Child) -> None:
    """A dict and its values held here are the same after another process inserted and deleted."""
    store["k"] = numbered()
    big = store["k"]
    held = {key: big[key] for key in list(big)[::250]}
    child("store['k'].update((f'theirs {n}', [n]) for n in range(1500))")
    child("for key in list(store['k'])[1:2000:2]: del store['k'][key]")
    child("store['k']['key 00500'].append('seen')")
    store.refresh()
    assert len(big) == N + 1500 - 1000
    assert list(big)[:2] == ["key 00000", "key 00002"]
    assert list(big)[-1] == "theirs 1499"
    assert big["key 00500"][-1] == "seen"
    for key, value in held.items():
        assert big[key] is value
        value.append("ours")
    assert "key 00001" not in big
    assert child("[v[-1] for v in list(store['k'].values())[:1000] if 'ours' in v]") == (
        ["ours"] * len(held)
    )
    child("x = store['k'].pop('key 00500'); store['k']['key 00500'] = x")
    store.refresh()
    assert list(big)[-1] == "key 00500"
    assert big["key 00500"][2:] == ["seen", "ours"]
    assert not richstore.is_tracked(held["key 00500"])


def test_cleared_and_filled_again_by_the_other_process(store: Any, child: Child) -> None:
    """A list, dict or set that another process cleared and filled is seen through what was held."""
    store.update(list=rows(), dict=numbered(), set={f"m {n}" for n in range(N)})
    big, names, members = store["list"], store["dict"], store["set"]
    row, value = big[1500], names["key 01500"]
    child("store['list'].clear(); store['dict'].clear(); store['set'].clear()")
    store.refresh()
    assert (list(big), dict(names), set(members)) == ([], {}, set())
    for gone in (row, value):
        assert not richstore.is_tracked(gone)
        with pytest.raises(richstore.DetachedError):
            gone.clear()
    assert (row, value) == (rows()[1500], numbered()["key 01500"])
    child(
        "store['list'].extend(rows(3000, 5000)); store['dict'].update(dict.fromkeys(range(3000)))"
    )
    child("store['set'].update(range(3000))")
    store.refresh()
    assert big == rows(3000, 5000)
    assert dict(names) == dict.fromkeys(range(3000))
    assert members == set(range(3000))
    big[1500]["ours"] = True
    assert child("store['list'][1500]['ours']") is True


def test_replaced_by_the_other_process(store: Any, child: Child) -> None:
    """A big value assigned anew by another process detaches the old one, which is never wrong."""
    store["k"] = {"rows": rows()}
    top, big, row = store["k"], store["k"]["rows"], store["k"]["rows"][1500]
    child("store['k'] = {'rows': rows(2500, 7)}")
    child("for n in range(300): store['x'] = n")
    store.refresh()
    for gone in (top, big, row):
        with pytest.raises(richstore.DetachedError):
            gone.clear()
    assert row == rows()[1500]
    try:
        found = plain(big)
    except richstore.DetachedError:  # the records of what nobody here had loaded are gone
        found = rows()
    assert found == rows()
    assert store["k"]["rows"] == rows(2500, 7)


@pytest.mark.parametrize("collection", ["store", "store.group('g')"])
def test_parts_of_what_the_other_process_removed(
    file_box: Any, child: Child, collection: str
) -> None:
    """A change through a part of a big value that another process has removed is refused."""
    child(f"values = {collection}")
    values = eval(collection, {"store": file_box.store})
    values["page"] = rows(300)
    values["inner"] = [{"rows": rows(300)} for _ in range(3)]
    values["shared"] = rows(300)
    values["shared"].append(values["shared"][7])
    # nothing of it is loaded by who removes it
    values = eval(collection, {"store": file_box.reopen()})
    child(
        "held = [values['page'][200], values['shared'][7], values['inner'][2]['rows'][200], "
        "values['inner'][1]['rows'][200]]; read = [dict(one) for one in held]"
    )
    del values["inner"][1]
    with pytest.raises(RuntimeError, match="DetachedError"):
        child("held[3]['theirs'] = True")
    child("held[2]['theirs'] = True")
    values.clear()
    for at, n in enumerate((200, 7, 200, 200)):
        with pytest.raises(RuntimeError, match="DetachedError"):
            child(f"held[{at}]['theirs'] = True")
        assert child(f"(richstore.is_tracked(held[{at}]), held[{at}]['n'])") == (False, n)
    check_store(file_box.store)


def test_gathered_by_the_other_process(store: Any, child: Child) -> None:
    """A big container that another process has made small, or big again, is written as it is."""
    store["k"] = rows(300)
    big = store["k"]
    for n in range(3):
        child("store['k'].clear()")
        big.append(n)
        check_store(store)
        assert child("store['k'][0]") == n
        big.extend(rows(300))
        assert child("len(store['k'])") == 301
        child("store['k'].append([])")
        store.refresh()
        big[-1].append(n)
        check_store(store)
    assert child("store['k'][-1]") == [2]


def test_put_elsewhere_too_by_the_other_process(store: Any, child: Child) -> None:
    """A part of a value that another process put into a second place is the same one here."""
    store["k"] = {"rows": rows(300), "big": {"in": rows(300), "n": 1}}
    store["k"]["rows"][9]["old"] = {"in": rows(300)}
    big, old = store["k"]["big"], store["k"]["rows"][9]["old"]
    held = big["in"][200], old["in"][200]
    child("store['k']['rows'][200]['again'] = store['k']['big']")
    child("store['k']['big']['old'] = store['k']['rows'][9]['old']")
    store.refresh()
    assert store["k"]["rows"][200]["again"] is big
    assert store["k"]["big"]["old"] is old
    assert (big["in"][200] is held[0], old["in"][200] is held[1]) == (True, True)
    for at, row in enumerate(held):
        assert richstore.is_tracked(row)
        row["ours"] = at
    assert child("store['k']['rows'][200]['again']['in'][200]['ours']") == 0
    assert child("store['k']['rows'][9]['old']['in'][200]['ours']") == 1
    assert big["in"] == [*rows(300)[:200], {**rows(300)[200], "ours": 0}, *rows(300)[201:]]


def test_shared_parts_that_leave_later(
    file_box: Any, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only parts of a removed container shared is detached once these are reclaimed."""
    monkeypatch.setattr(paging, "RECLAIM", 0)
    store = file_box.store
    store["k"] = {"a": [rows(300)]}
    store["k"]["a"][0].append(store["k"]["a"][0][3])
    child("held = store['k']['a'][0][3]; n = held['n']")
    # its pages are not loaded by who removes it
    store = file_box.reopen()
    del store["k"]["a"][0]
    store.compact()
    with pytest.raises(RuntimeError, match="DetachedError"):
        child("held['theirs'] = True")
    check_store(store)


def test_moved_by_the_other_process(store: Any, child: Child) -> None:
    """A big list that another process moved inside its value is followed by what is held of it."""
    store["k"] = {"a": rows(), "b": []}
    big, row = store["k"]["a"], store["k"]["a"][1500]
    child("store['k']['b'].append({'here': store['k']['a']}); del store['k']['a']")
    child("store['k']['b'][0]['here'].insert(0, 'first')")
    row["ours"] = True
    big.append("last")
    assert store["k"]["b"][0]["here"] is big
    assert "a" not in store["k"]
    assert child("store['k']['b'][0]['here'][1501]['ours']") is True
    assert child("store['k']['b'][0]['here'][-1]") == "last"


def test_iteration_beside_the_other_process(store: Any, child: Child) -> None:
    """A loop walks the list it began with, whatever another process commits meanwhile."""
    store["k"] = rows()
    big = store["k"]
    iterator = iter(big)
    first = plain([next(iterator) for _ in range(100)])
    child("store['k'].reverse(); del store['k'][:1900]")
    child("store.compact() if hasattr(store, 'compact') else 0")
    store.refresh()
    assert first + plain(list(iterator)) == rows()
    assert big == rows(100)[::-1]


def test_a_view_in_the_other_process_keeps_its_state(store: Any, child: Child) -> None:
    """A snapshot that another process holds shows the big value as it was."""
    store["k"] = rows()
    child("view = store.snapshot(); seen = view['k'][3]['n']")
    store["k"].clear()
    store["k"].extend(rows(100))
    for n in range(200):
        store["n"] = n
    assert child("[len(view['k']), view['k'][1500]['n'], view['k'] == rows(2000)]") == [
        N,
        1500,
        True,
    ]
    assert child("len(store['k'])") == 100
    child("view.close()")


def test_processes_add_to_one_container(file_box: Any) -> None:
    """What three processes append, insert, set and add to the same big containers is all kept."""
    file_box.store.update(list=rows(1500), dict=numbered(1500), set=set(range(1500)), count=[0])
    code = """
big, names, members = store["list"], store["dict"], store["set"]
held = big[100 * (NAME + 1)]
for n in range(80):
    big.append((NAME, n))
    big.insert(n * 11, {"by": (NAME, n)})
    names[f"{NAME} {n} of another process"] = [NAME, n]
    members.add((NAME, n))
    with store.transaction():
        store["count"][0] += 1
        held["count"] = held.get("count", 0) + 1
"""
    children = [Child(file_box.target) for _ in range(3)]
    first, pages = children[0], True
    try:
        first("import richstore.paging")
    except RuntimeError:
        pages = False
    if pages:
        first("richstore.paging.PAGE = 300")
    own = [file_box.store["list"][100 * (name + 1)] for name in range(3)]
    for name, child in enumerate(children):
        child.send(code.replace("NAME", str(name)))
    for child in children:
        child.answer()
        child.end()
    file_box.store.refresh()
    assert [row["n"] for row in own] == [100, 200, 300]
    if hasattr(file_box.store, "verify"):
        check_store(file_box.store)
    everything = [(name, n) for name in range(3) for n in range(80)]
    big = file_box.stored("list")
    assert len(big) == 1500 + 480
    assert sorted(x for x in big if isinstance(x, tuple)) == everything
    assert sorted(x["by"] for x in big if isinstance(x, dict) and "by" in x) == everything
    assert [x["n"] for x in big if isinstance(x, dict) and "n" in x] == list(range(1500))
    for name in range(3):
        assert [n for who, n in (x for x in big if isinstance(x, tuple)) if who == name] == list(
            range(80)
        )
    names = file_box.stored("dict")
    assert len(names) == 1500 + 240
    assert list(names)[:1500] == list(numbered(1500))
    assert all(names[f"{name} {n} of another process"] == [name, n] for name, n in everything)
    assert file_box.stored("set") == {*range(1500), *everything}
    assert file_box.stored("count") == [240]


def test_processes_take_from_one_container(file_box: Any) -> None:
    """Items that three processes pop from one big list and dict are each got by one of them."""
    file_box.store.update(list=list(range(1800)), dict=numbered(600))
    code = """
got = [], []
while True:
    try:
        got[0].append(store["list"].pop(len(got[0]) * 7 % 50))
        got[0].append(store["list"].pop())
        got[0].append(store["list"].pop(0))
        got[1].append(store["dict"].popitem()[0])
    except (IndexError, KeyError):
        break
"""
    children = [Child(file_box.target) for _ in range(3)]
    for child in children:
        child.send(code)
    got: tuple[list[int], list[str]] = [], []
    for child in children:
        child.answer()
        found = child("[list(kind) for kind in got]")
        got[0].extend(found[0])
        got[1].extend(found[1])
        child.end()
    left = file_box.stored("list"), file_box.stored("dict")
    assert sorted(got[0] + left[0]) == list(range(1800))
    assert sorted(got[1] + list(left[1])) == list(numbered(600))
    assert len(left[0]) < 60


@pytest.mark.parametrize("after", [0.05, 0.3, 0.8])
def test_killed_in_the_middle_of_a_big_extend(file_box: Any, after: float) -> None:
    """A process killed while it extends a big list leaves the list as it was, and nothing else."""
    file_box.store["k"] = rows()
    child = Child(file_box.target)
    child(HELPERS)
    child.send("""
def endless():
    n = 0
    while True:
        n += 1
        yield {"n": n, "text": "x" * 50}
store["k"].extend(endless())
""")
    time.sleep(after)
    assert child.process.poll() is None
    child.process.kill()
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        pipe.close()
    store = file_box.reopen()
    assert store["k"] == rows()
    store["k"].insert(1000, "alive")
    report = store.verify()
    assert report.problems == []
    assert (report.unreachable, report.waiting) == (0, 0)
    assert len(file_box.stored("k")) == N + 1


def test_killed_between_commits(file_box: Any) -> None:
    """A process killed among many commits to a big list leaves whole commits only."""
    file_box.store["k"] = {"rows": rows(1500), "n": 0}
    child = Child(file_box.target)
    child.send("""
k = store["k"]
while True:
    with store.transaction():
        k["n"] += 1
        for at in range(20):
            k["rows"].insert(at * 70, [k["n"], at])
        if k["n"] % 2:
            del k["rows"][700:720]
            k["rows"].extend([k["n"], "e"] for _ in range(20))
""")
    until = time.monotonic() + 30
    while file_box.store["k"]["n"] <= 3 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.3)
    child.process.kill()
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout):
        assert pipe is not None
        pipe.close()
    k = file_box.reopen()["k"]
    turns = k["n"]
    assert turns > 3
    assert len(k["rows"]) == 1500 + 20 * turns
    last = [x for x in plain(k["rows"]) if isinstance(x, list) and x[0] == turns]
    assert len(last) == (40 if turns % 2 else 20) or turns % 2
    assert file_box.store.verify().problems == []
