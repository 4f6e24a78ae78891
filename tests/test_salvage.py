"""Salvaging: what can be read is kept, in order; what cannot is told, and nothing else is lost."""

from __future__ import annotations

import collections
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from conftest import check_store
from sample_classes import Bare

import richstore
from richstore.cli import upkeep
from richstore.cli.target import Target
from richstore.nodes.salvage import _Salvage
from richstore.projects import Place

plain = richstore.plain
pytestmark = pytest.mark.timeout(900)
N = 1500
KINDS = (b"\x20", b"\x22", b"\x23")
Entries = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any], Entries]:
    """A store with large values, some in each other and some shared; its content and entries."""
    path = tmp_path_factory.mktemp("salvage") / "store"
    with richstore.open(path, synchronous="off") as store:
        store["rows"] = [{"n": n, "tags": [n]} for n in range(N)]
        for n in (3, N // 2, N - 2):
            store["rows"].append(store["rows"][n])
        store["table"] = {f"key {n}": [n] for n in range(N)}
        store["set"] = {f"element {n}" for n in range(N)}
        store["small"] = {"a": [1, {2}]}
        store["nested"] = {"lists": [[list(range(m, m + N)), f"list {m}"] for m in range(3)]}
        store["person"] = {"p": Bare(name="Ann"), "q": collections.deque([1])}
        store["person"]["p"].large = ["x" * 30 + str(n) for n in range(N)]
        content = {key: plain(value) for key, value in store.items()}
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin() as transaction:
        entries = [row for row in transaction.cursor() if row[0][:1] in KINDS]
    return path, content, entries


def damaged(source: Path, target: Path, names: dict[bytes, bytes | None]) -> Path:
    """Write a copy of a file in which some entries have other values, or are gone."""
    target.write_bytes(source.read_bytes())
    with (
        lmdb.open(str(target), subdir=False, lock=False, map_size=1 << 30) as env,
        env.begin(write=True) as transaction,
    ):
        for name, value in names.items():
            assert transaction.delete(name) if value is None else transaction.put(name, value)
    Path(f"{target}-lock").unlink(missing_ok=True)
    return target


def salvaged(path: Path, capsys: Any) -> tuple[int, list[str], dict[Any, Any]]:
    """Salvage a file; return the exit code, what was said to be lost, and what was kept."""
    target = path.with_suffix(".saved")
    for name in (target, Path(f"{target}-lock")):
        name.unlink(missing_ok=True)
    code = upkeep.salvage_here(Target(Place(str(path))), target)
    lost = [
        line.partition(": lost ")[2]
        for line in capsys.readouterr().out.splitlines()
        if ": lost " in line
    ]
    with richstore.open(target) as store:
        check_store(store)
        return code, lost, {key: plain(value) for key, value in store.items()}


def without(value: Any, place: str, lost: list[str]) -> Any:
    """Return a value less what was said to be lost of it."""
    if isinstance(value, list):
        gone: set[int] = set()
        for line in lost:
            if found := re.match(re.escape(place) + r"\[(\d+)(:?)(\d*)\](?=: )", line):
                start, is_range, end = found.groups()
                last = int(end or len(value)) if is_range else int(start) + 1
                gone.update(range(int(start), last))
        return [
            without(item, f"{place}[{at}]", lost) for at, item in enumerate(value) if at not in gone
        ]
    if isinstance(value, (dict, set)):
        told = [line for line in lost if line.startswith(place)]
        kept = [
            key
            for key in value
            if not any(
                f"{place}[{key!r}]: " in line or re.search(f"items: .*{key!r}[,:]", line)
                for line in told
            )
        ]
        if isinstance(value, set):
            return set(kept)
        return {key: without(value[key], f"{place}[{key!r}]", lost) for key in kept}
    if isinstance(value, Bare):
        state = {
            name: without(item, f"{place}.{name}", lost)
            for name, item in vars(value).items()
            if not any(line.startswith(f"{place}.{name}: ") for line in lost)
        }
        made = object.__new__(Bare)
        made.__dict__.update(state)
        return made
    return value


def same(a: Any, b: Any) -> bool:
    """Compare values, instances by their attributes."""
    if isinstance(a, Bare) and isinstance(b, Bare):
        return same(vars(a), vars(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def atoms(value: Any) -> Iterator[Any]:
    """Yield the strings, numbers and keys in a value, wherever they are."""
    if isinstance(value, Bare):
        value = vars(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, set, collections.deque)):
        for item in value:
            yield from atoms(item)
    else:
        yield value


def one_round(source: Any, path: Path, number: int, capsys: Any) -> int:
    """Damage some records and compare what is kept with what is said; return how much was lost."""
    whole, content, entries = source
    dice = random.Random(number)
    names: dict[bytes, bytes | None] = {}
    for name, value in dice.sample(entries, dice.choice([1, 1, 2, 5])):
        at = dice.randrange(len(value))
        changed = value[:at] + bytes((value[at] ^ 1 << dice.randrange(8),)) + value[at + 1 :]
        names[name] = None if dice.random() < 0.3 else changed
    code, lost, kept = salvaged(damaged(whole, path, names), capsys)
    assert code == 1 and lost, names
    for key, value in content.items():
        if any(line.startswith(f"[{key!r}]") and "the order of" in line for line in lost):
            # how many there were is not known then
            assert not Counter(atoms(kept[key])) - Counter(atoms(value)), (key, lost)
            continue
        assert same(kept[key], without(value, f"[{key!r}]", lost)), (key, lost)
    return len(lost)


def test_what_is_kept_is_what_is_not_said_to_be_lost(
    source: Any, tmp_path: Path, capsys: Any, request: pytest.FixtureRequest
) -> None:
    """Whatever records of large values are damaged: all else is kept, in order, and only that."""
    for number in range(600 if request.config.getoption("--long") else 5):
        one_round(source, tmp_path / "store", number, capsys)


def test_the_rounds_find_a_salvage_that_says_too_little(
    source: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A salvage that keeps one kind of loss to itself is found out."""
    lose = _Salvage.lose

    def forgetful(self: Any, place: str, error: Exception) -> None:
        lose(self, re.sub(r"\[\d+:\d*\]$", "[0:0]", place), error)

    monkeypatch.setattr(_Salvage, "lose", forgetful)
    with pytest.raises(AssertionError):
        for number in range(12):
            one_round(source, tmp_path / "store", number, capsys)


def test_a_page_of_a_list(source: Any, tmp_path: Path, capsys: Any) -> None:
    """A damaged page costs a list its items, and the report gives their range."""
    whole, content, entries = source
    name, value = next(row for row in entries if b"n" in row[1] and row[0][:1] == b"\x20")
    code, lost, kept = salvaged(
        damaged(whole, tmp_path / "store", {name: value[:-2] + b"xx"}), capsys
    )
    found = re.match(r"\['rows'\]\[0:(\d+)\]: record .* checksum", lost[0])
    assert code == 1 and found, lost
    end = int(found[1])
    assert 10 < end < N // 2
    # one of its items was shared and is elsewhere too
    assert kept["rows"] == content["rows"][end:]
    assert {key: value for key, value in kept.items() if key not in ("rows", "person")} == {
        key: value for key, value in content.items() if key not in ("rows", "person")
    }


def test_the_index_of_a_list(tmp_path: Path, capsys: Any) -> None:
    """A list without its index keeps its items, and the report says that their order is lost."""
    path = tmp_path / "store"
    with richstore.open(path, synchronous="off") as store:
        store["rows"] = [{"n": n} for n in range(N)]
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin() as transaction:
        (name,) = [row[0] for row in transaction.cursor() if row[0][:1] == b"\x22"]
    _, lost, kept = salvaged(damaged(path, tmp_path / "damaged", {name: b"x"}), capsys)
    assert len(lost) == 1 and lost[0].startswith("['rows'][0:], the order of these items: ")
    assert sorted(row["n"] for row in kept["rows"]) == list(range(N))


def test_an_attribute_that_cannot_be_read(tmp_path: Path, capsys: Any) -> None:
    """An instance is kept without the attribute whose record is damaged."""
    path = tmp_path / "store"
    with richstore.open(path, synchronous="off") as store:
        store["v"] = {"rows": [{"n": n} for n in range(N)], "p": Bare(name="Ann")}
        store["v"]["p"].row = store["v"]["rows"][7]
    with lmdb.open(str(path), subdir=False, lock=False) as env, env.begin() as transaction:
        names = {row[0]: None for row in transaction.cursor() if row[0][:1] == b"\x23"}
    _, lost, kept = salvaged(damaged(path, tmp_path / "damaged", names), capsys)
    assert [line.partition(": ")[0] for line in lost] == ["['v']['rows'][7]", "['v']['p'].row"]
    assert [row["n"] for row in kept["v"]["rows"]] == [n for n in range(N) if n != 7]
    assert vars(kept["v"]["p"]) == {"name": "Ann"}


def test_a_key_that_cannot_be_read(tmp_path: Path, capsys: Any) -> None:
    """A value whose key is damaged is lost by its engine name, and the others are kept."""
    path = tmp_path / "store"
    with richstore.open(path, synchronous="off") as store:
        store["x" * 600], store["a"] = 1, 2
    content = path.read_bytes().replace(b"x" * 600, b"x" * 300 + b"\xff" * 300)
    path.write_bytes(content)
    code, lost, kept = salvaged(path, capsys)
    assert code == 1 and kept == {"a": 2} and len(lost) == 1
