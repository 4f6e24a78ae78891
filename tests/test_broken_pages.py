"""Damage to LMDB's own pages: `check` tells it, or the content is what it was."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_pages import targets
from conftest import child_environment, run_python

import richstore

plain = richstore.plain
HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with branches, leaves, large values and free pages, and its content beside it."""
    path = tmp_path_factory.mktemp("broken") / "store"
    with richstore.open(path, synchronous="off") as store:
        store["gone"] = [{"n": n} for n in range(3000)]
        store["rows"] = [{"n": n, "text": "x" * 20} for n in range(1500)]
        store["table"] = {f"key {n}": [n] for n in range(1000)}
        store["text"] = "x" * 20_000
        store["small"] = {"a": [1, {2}]}
        del store["gone"]
        for n in range(40):
            store[n] = n
        store.compact()
        content = {key: plain(value) for key, value in store.items()}
    path.with_suffix(".expected").write_bytes(pickle.dumps(content))
    return path


def rounds(source: Path, first: int, last: int, fault: str = "") -> tuple[int, dict[str, Any]]:
    """Run `broken_pages.py`; return its exit code, and what it counted."""
    done = subprocess.run(
        [sys.executable, str(HERE / "broken_pages.py"), str(source), str(first), str(last), fault],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_check_tells_or_nothing_is_lost(source: Path, request: pytest.FixtureRequest) -> None:
    """What `check` says is well has the same content; without the pages it would tell less."""
    last = 4000 if request.config.getoption("--long") else 30
    code, found = rounds(source, 0, last)
    assert code == 0, found
    counts = found["counts"]
    assert counts["told"] > last // 4 and counts["fine"] > last // 10, counts
    _, without = rounds(source, 0, last, "no structure")
    assert without["counts"]["told"] < counts["told"]


def test_a_record_that_is_not_found_by_its_key(source: Path, tmp_path: Path) -> None:
    """A branch that leads some keys to the wrong page, in perfect order, is told."""
    content = source.read_bytes()
    told = 0
    for start, end in targets(content)["branch key"][::3]:
        # the way to what comes next begins a little later
        changed = bytearray(content)
        if end - start < 12:
            continue
        changed[end - 1] += 1
        path = tmp_path / "store"
        path.write_bytes(changed)
        path.with_name("store-lock").unlink(missing_ok=True)
        with richstore.open(path, "r") as store:
            found = store.verify().problems
            told += any("not found by its key" in problem for problem in found)
            assert found or all(plain(store[key]) is not None for key in store)
    assert told


def test_the_rounds_find_a_check_that_sees_nothing(source: Path) -> None:
    """A `check` that says of every file that it is well fails the rounds."""
    code, found = rounds(source, 0, 20, "no check")
    assert code == 1 and found["wrong"]


def command(path: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m richstore check`."""
    return run_python(
        "import sys, richstore.__main__ as m; sys.exit(m.main())", "check", "-s", str(path)
    )


def test_a_file_that_ends_the_process(source: Path, tmp_path: Path) -> None:
    """A node whose value is beyond the file brings the library down, and `check` reports it."""
    content = bytearray(source.read_bytes())
    for start, _ in targets(bytes(content))["node"]:
        content[start : start + 4] = struct.pack("<I", 0x7FFFFFFF)
    (tmp_path / "store").write_bytes(content)
    done = command(tmp_path / "store")
    assert done.returncode == 1
    assert "the structure of the file is damaged" in done.stdout
    assert "Traceback" not in done.stderr


def test_verify_reads_no_records_of_a_broken_structure(source: Path, tmp_path: Path) -> None:
    """`verify()` reports a broken structure and leaves the records alone; the rest is read."""
    content = bytearray(source.read_bytes())
    for start, _ in targets(bytes(content))["node"]:
        if content[start + 8] == 0x21 and b"key 500" in content[start + 8 : start + 40]:
            # the key of the entry is said to be longer than the page
            content[start + 6 : start + 8] = b"\xff\xff"
    (tmp_path / "store").write_bytes(content)
    with richstore.open(tmp_path / "store", "r") as store:
        told: list[int] = []
        report = store.verify(progress=lambda count, size: told.append(count))
        assert report.problems and all("structure" in problem for problem in report.problems)
        assert report.records == 0 and told == [0]
        assert plain(store["rows"])[7] == {"n": 7, "text": "x" * 20}


def test_what_a_shrunk_value_keeps_is_no_problem(tmp_path: Path) -> None:
    """Pages that a value keeps from before it shrank, in one transaction, are no damage."""
    path = tmp_path / "store"
    code = """
import sys, richstore
from richstore.engines.lmdb import open_lmdb
with richstore.open(sys.argv[1]) as store:
    store["k"] = "x" * 90_000
engine = open_lmdb(sys.argv[1], "w", synchronous="full", timeout=None)
name = b"\\x10" + b"0k\\0"
writer = engine.write(None)
(name, value), = list(writer.scan(b"\\x10", b"\\x11"))
writer.put(name, bytes(200_000))
writer.put(name, value)
writer.commit()
engine.close()
"""
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr
    from richstore.engines.lmdb.structure import all_findings, structure_problems

    assert all_findings(str(path)), "the premise"
    assert structure_problems(str(path)) == []
    with richstore.open(path) as store:
        assert store.verify().ok
        assert store["k"] == "x" * 90_000


def test_others_may_write_while_the_structure_is_checked(tmp_path: Path) -> None:
    """A file that others write to at full speed has no problems."""
    path = tmp_path / "store"
    code = """
import sys, richstore
with richstore.open(sys.argv[1], synchronous="off") as store:
    store["rows"] = []
    print("ready", flush=True)
    while True:
        store["rows"].append("x" * 500)
        store["text"] = "x" * 30_000
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=child_environment()
    )
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        with richstore.open(path, "r") as store:
            for _ in range(25):
                report = store.verify()
                assert report.ok, report.problems
    finally:
        writer.kill()
        writer.communicate()
