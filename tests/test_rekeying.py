"""Another key for a store: at once, or with everything encrypted anew, whenever it is killed."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, child_environment, raw, run_python

pytest.importorskip("cryptography", reason="the extra `secure` is not installed")

import richstore
from richstore import Passphrase, WrongKeyError
from richstore.engines.base import HEADER_KEY
from richstore.engines.encrypted import Secret, rekeying
from richstore.engines.encrypted.cipher import Cipher, InvalidTag
from richstore.engines.encrypted.header import Header
from richstore.engines.lmdb import LmdbEngine, open_lmdb
from richstore.engines.lmdb.transactions import LmdbWriteTransaction

pytestmark = pytest.mark.timeout(120)

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def open_store(path: str, key: Any = OLD, **options: Any) -> Any:
    """Open a store with the old key, or another."""
    return richstore.open(path, key=key, **{"synchronous": "off", **options})


def fill(store: Any) -> dict[str, Any]:
    """Store values of all sizes, changed several times; return what there is."""
    store["large"] = {f"key {n}": n for n in range(3000)}
    store["list"] = list(range(3000))
    for n in range(30):
        store[f"key {n}"] = [n]
        store[f"key {n}"].append("more")
    del store["key 7"]
    store["list"].insert(1000, "here")
    return {key: richstore.plain(value) for key, value in store.items()}


def contents(path: str, key: Any) -> dict[str, Any]:
    """Return what a store has, verified."""
    with open_store(path, key) as store:
        check_store(store)
        return {key: richstore.plain(value) for key, value in store.items()}


def refuses(path: str, key: Any) -> bool:
    """Tell whether a key does not open a store."""
    try:
        open_store(path, key).close()
    except WrongKeyError:
        return True
    return False


@pytest.mark.parametrize("reencrypt", [False, True])
@pytest.mark.parametrize("new", [NEW, Passphrase("new")], ids=["bytes", "passphrase"])
def test_another_key(path: str, new: Any, reencrypt: bool) -> None:
    """Afterwards the new key opens the store, the old one does not, and all values are there."""
    with open_store(path) as store:
        expected = fill(store)
        held = store["key 1"]
        count = store.rekey(new, reencrypt=reencrypt)
        assert (count > 60) == reencrypt
        held.append("after")
        expected["key 1"].append("after")
        assert not store.stats().rekeying
        with open_store(path, new) as again:
            assert again["key 1"] == held
        for flag in ("c", "r"):
            with pytest.raises(WrongKeyError):
                open_store(path, flag=flag)
    assert refuses(path, OLD)
    assert contents(path, new) == expected


@pytest.mark.parametrize("names", [True, False])
def test_several_changes(path: str, names: bool) -> None:
    """Keys may be changed again and again, there and back, and readers go on meanwhile."""
    with open_store(path, encrypt_keys=names) as store, open_store(path, flag="r") as reading:
        expected = fill(store)
        for key in (NEW, OLD, bytes(32), NEW):
            for reencrypt in (True, False):
                store.rekey(key, reencrypt=reencrypt)
                store["last"] = expected["last"] = [key.hex(), reencrypt]
                assert reading["last"] == expected["last"]
                assert reading["key 3"] == [3, "more"]
    assert contents(path, NEW) == expected


def test_a_store_without_a_key(path: str) -> None:
    """A plain store, one that is open for reading, and a block have no key to change."""
    with richstore.open(path) as store, pytest.raises(WrongKeyError, match="is not encrypted"):
        store.rekey(NEW)
    with open_store(path + "2") as store:
        store["a"] = 1
        with store.transaction(), pytest.raises(RuntimeError, match="after the block"):
            store.rekey(NEW)
        for key in (b"short", "text"):
            with pytest.raises((TypeError, ValueError)):
                store.rekey(key)
        assert store["a"] == 1
    with (
        open_store(path + "2", flag="r") as store,
        pytest.raises(richstore.ReadOnlyError),
    ):
        store.rekey(NEW)
    assert contents(path + "2", OLD) == {"a": 1}


def test_progress(path: str) -> None:
    """The function for the progress is told records and bytes, which grow to the result."""
    told: list[tuple[int, int]] = []
    with open_store(path) as store:
        fill(store)
        count = store.rekey(NEW, reencrypt=True, progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1][0] == count
    assert told[-1][1] > 10_000


# --- nothing that the old key opens ---


def old_pieces(path: str, key: bytes) -> list[bytes]:
    """Return what identifies each piece of data that is encrypted now: the nonces."""
    found = [stored[1:25] for name, stored in raw(path).items() if name != HEADER_KEY]
    return [*found, raw(path)[HEADER_KEY]]


def left(path: str, pieces: list[bytes]) -> int:
    """Return how many pieces are anywhere in the file, free pages included."""
    data = Path(path).read_bytes()
    wanted = set(pieces)
    found = 0
    # many nonces begin alike
    for front in {piece[:12] for piece in pieces}:
        sizes = {len(piece) for piece in wanted if piece.startswith(front)}
        at = data.find(front)
        while at >= 0:
            found += any(data[at : at + size] in wanted for size in sizes)
            at = data.find(front, at + 1)
    return found


def test_nothing_is_left_for_the_old_key(path: str) -> None:
    """No record and no header of before is anywhere in the file, its free pages included."""
    pieces: list[bytes] = []
    with open_store(path) as store:
        for n in range(5):
            fill(store)
            store["large"] = {f"key {k}": [k] * n for k in range(2000)}
            pieces += old_pieces(path, OLD)
        del store["large"]
        store.compact()
        pieces += old_pieces(path, OLD)
    assert left(path, pieces) > 100
    with open_store(path) as store:
        store.rekey(NEW)
    # the old key and a page that is free now
    assert left(path, pieces) > 100
    with open_store(path, NEW) as store:
        pieces += old_pieces(path, NEW)
        store.rekey(OLD, reencrypt=True)
        size = os.path.getsize(path)
    assert left(path, pieces) == 0
    assert os.path.getsize(path) == size
    # and no header in the file opens with the key of before
    data = Path(path).read_bytes()
    at = data.find(b"richstore key")
    headers = 0
    while at >= 0:
        end = data.find(b"}", at) + 1
        headers += 1
        with pytest.raises((WrongKeyError, richstore.FormatError)):
            Header.unpack(data[at:end], Secret(NEW))
        at = data.find(b"richstore key", end)
    assert headers


def old_names(path: str, names: set[bytes]) -> list[bytes]:
    """Return which names of records are in the bytes of a file, and are of no record in it."""
    data = Path(path).read_bytes()
    return [name for name in names - set(raw(path)) if name in data]


@pytest.mark.parametrize(
    ("is_dict", "map_size"), [(False, 1 << 16), (True, None)], ids=["keys", "large dict"]
)
def test_no_name_is_left(
    path: str, is_dict: bool, map_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name that the old key opens is left in the inner pages of the tree, where one would be."""
    items = {f"key number {n}": n for n in range(2000)}
    with open_store(path, map_size=map_size) as store:
        store.update({"large": items} if is_dict else items)
    names = set(raw(path))
    with open_store(path, map_size=map_size) as store, monkeypatch.context() as patch:
        patch.setattr(rekeying, "_write_anew", lambda below, timeout: None)
        store.rekey(NEW, reencrypt=True)
    assert len(old_names(path, names)) > 5
    names |= set(raw(path))
    with open_store(path, NEW, map_size=map_size) as store:
        store.rekey(OLD, reencrypt=True)
    assert old_names(path, names) == []
    assert contents(path, OLD) == ({"large": items} if is_dict else items)


def test_pieces_are_found_without_overwriting(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds old records when free pages are not overwritten."""
    monkeypatch.setattr(rekeying, "_overwrite_unused", lambda below, timeout: None)
    with open_store(path) as store:
        fill(store)
        pieces = old_pieces(path, OLD)
        store.rekey(NEW, reencrypt=True)
    assert left(path, pieces) > 10


def test_old_data_keys_open_nothing(path: str) -> None:
    """Who has the old data key itself can open no record, nor find a name, once it is replaced."""
    with open_store(path) as store:
        fill(store)
    header = Header.unpack(raw(path)[HEADER_KEY], Secret(OLD))
    with open_store(path) as store:
        store.rekey(NEW, reencrypt=True)
    again = Header.unpack(raw(path)[HEADER_KEY], Secret(NEW))
    assert not set(header.generations.values()) & set(again.generations.values())
    assert again.is_clean
    assert len(again.generations) == 1
    cipher = Cipher(next(iter(header.generations.values())))
    for name, stored in raw(path).items():
        with pytest.raises(InvalidTag):
            cipher.open(stored[1:], header.identity + b"\x01" + name)


def test_snapshots_keep_old_pages(path: str) -> None:
    """With a snapshot open it says so, all but the free pages is done, and it can be run again."""
    with open_store(path) as store:
        expected = fill(store)
        pieces = old_pieces(path, OLD)
        with store.snapshot() as view:
            with pytest.raises(richstore.RichStoreError, match="close these, and call rekey again"):
                store.rekey(NEW, reencrypt=True)
            assert view["key 1"] == expected["key 1"]
            assert store.stats().rekeying
        assert left(path, pieces) > 0
        store["key 1"].append("between")
        expected["key 1"].append("between")
        store.rekey(NEW, reencrypt=True)
        assert not store.stats().rekeying
    assert left(path, pieces) == 0
    assert contents(path, NEW) == expected


# --- others meanwhile ---


def test_threads_go_on(path: str) -> None:
    """Threads that read and write meanwhile lose nothing, and get no error."""
    with open_store(path) as store:
        expected = fill(store)
        store["count"] = [0]
        failures: list[BaseException] = []
        done = threading.Event()

        def work(write: bool) -> None:
            try:
                while not done.is_set():
                    if write:
                        store["count"][0] += 1
                        store[f"new {store['count'][0]}"] = [1]
                    else:
                        assert store["key 5"] == expected["key 5"]
                        assert store["large"]["key 77"] == 77
                        with store.snapshot(max_age=20) as view:
                            assert view["list"][1000] == "here"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(write,)) for write in (True, False)]
        for thread in threads:
            thread.start()
        try:
            for turn, key in enumerate(itertools.cycle((NEW, OLD))):
                if turn > 2 and (failures or store["count"][0] > 5):
                    break
                try:
                    store.rekey(key, reencrypt=True)
                except richstore.RichStoreError as error:
                    # the reader's snapshot was open just then
                    assert "call rekey again" in str(error)
                store.rekey(key)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert failures == []
        store.rekey(NEW, reencrypt=True)
        count = store["count"][0]
        assert sum(isinstance(key, str) and key.startswith("new") for key in store) == count
    found = contents(path, NEW)
    assert {key: found[key] for key in expected} == expected


CHILD = """
import sys, richstore
store = richstore.open(sys.argv[1], key=bytes(range(32)), synchronous="off")
held = store["key 1"]
print(len(held), flush=True)
sys.stdin.readline()
for work in (lambda: held.append("child"), lambda: store["key 2"], lambda: list(store),
             lambda: store.__setitem__("x", 1), lambda: len(store), lambda: "key 1" in store):
    try:
        work()
        print("done")
    except richstore.WrongKeyError as error:
        print("refused")
store.close()
"""


@pytest.mark.parametrize("reencrypt", [False, True])
def test_another_process_with_the_old_key(path: str, reencrypt: bool) -> None:
    """A process that opened it before goes on with the data key, and is shut out with another."""
    with open_store(path) as store:
        fill(store)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "2\n"
        store.rekey(NEW, reencrypt=reencrypt)
        said, _ = child.communicate("\n", timeout=60)
        assert child.returncode == 0
        assert said.split() == (["refused"] if reencrypt else ["done"]) * 6
        assert ("child" in store["key 1"]) is not reencrypt
        check_store(store)


KILLED = """
import sys, richstore
with richstore.open(sys.argv[1], key=bytes(range(32)), synchronous="off") as store:
    print("ready", flush=True)
    store.rekey(bytes(range(32, 64)), reencrypt=True, progress=lambda *_: print(".", flush=True))
"""


def kill_one(path: str, delay: float) -> None:
    """Let a child change the key and kill it after a while."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, env=child_environment()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_killed_at_any_moment(
    path: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Killed whenever, the store is whole with one of the keys; run again it comes to its end."""
    unfinished = 0
    rounds = 60 if request.config.getoption("--long") else 6
    for at in range(rounds):
        place = f"{path}{at}"
        with open_store(place) as store:
            expected = fill(store)
            pieces = old_pieces(place, OLD)
        kill_one(place, random.uniform(0, 0.15))
        key = NEW if refuses(place, OLD) else OLD
        with open_store(place, key) as store:
            unfinished += store.stats().rekeying
        assert contents(place, key) == expected
        with open_store(place, key) as store:
            store["key 1"].append("between")
            store.rekey(NEW, reencrypt=True)
            assert not store.stats().rekeying
        expected["key 1"].append("between")
        assert contents(place, NEW) == expected
        assert left(place, pieces) == 0
    assert unfinished or rounds < 60


def stop_after(monkeypatch: pytest.MonkeyPatch, commits: int) -> Callable[[], bool]:
    """Let the process that changes a key end after so many commits; return whether it has."""
    from richstore.engines.encrypted.engine import EncryptedWriteTransaction

    commit = EncryptedWriteTransaction.commit
    left = [commits]

    def counted(self: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(self)

    monkeypatch.setattr(EncryptedWriteTransaction, "commit", counted)
    return lambda: not left[0]


def test_interrupted_between_any_commits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before each of its commits, the store goes on, and the change can be finished."""
    monkeypatch.setattr(rekeying, "_RECORDS", 150)
    with open_store(path) as store:
        before = fill(store)
        pieces = old_pieces(path, OLD)
    expected = {**before, "key 1": [*before["key 1"], "between"]}
    stopped = True
    commits = 0
    while stopped:
        place = f"{path}{commits}"
        shutil.copyfile(path, place)
        with open_store(place) as store:
            with monkeypatch.context() as patch:
                ended = stop_after(patch, commits)
                try:
                    store.rekey(NEW, reencrypt=True)
                    stopped = False
                except KeyboardInterrupt:
                    assert ended()
            store["key 1"].append("between")
            check_store(store)
        key = NEW if refuses(place, OLD) else OLD
        assert (key is OLD) == (commits == 0)
        assert contents(place, key) == expected
        with open_store(place, key) as store:
            store.rekey(NEW, reencrypt=True)
        assert left(place, pieces) == 0
        commits += 2 if commits else 1
    assert commits > 15


def test_a_damaged_record(path: str) -> None:
    """A record that does not open ends it with an error that says which; nothing is lost."""
    with open_store(path) as store:
        fill(store)
    below = open_lmdb(path, "w", synchronous="off", timeout=None)
    name = next(name for name in raw(path) if name[:1] == b"\x10")
    transaction = below.write(None)
    transaction.put(name, transaction.get(name)[:-1])
    transaction.commit()
    below.close()
    with open_store(path) as store:
        with pytest.raises(richstore.CorruptionError):
            store.rekey(NEW, reencrypt=True)
        assert store.stats().rekeying
        assert len([key for key in store if _reads(store, key)]) == 30


def _reads(store: Any, key: Any) -> bool:
    try:
        store[key]
    except richstore.CorruptionError:
        return False
    return True


def test_forgotten_key_of_a_child(path: str) -> None:
    """A process that opens with the old key afterwards is told so, in words."""
    with open_store(path) as store:
        fill(store)
        store.rekey(NEW)
    code = "import sys, richstore\nrichstore.open(sys.argv[1], key=bytes(range(32)))"
    said = run_python(code, path)
    assert said.returncode
    assert "WrongKeyError" in said.stderr


# --- what comes between ---


@pytest.mark.parametrize("commit", [1, 2, 3])
@pytest.mark.parametrize("reencrypt", [False, True])
def test_interrupted_just_after_a_commit(
    path: str, reencrypt: bool, commit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted when a commit is done and not noted, the open store goes on with the new key."""
    done = [0]
    whole = LmdbWriteTransaction.commit

    def commit_and_stop(self: Any) -> None:
        whole(self)
        done[0] += 1
        if done[0] == commit:
            raise KeyboardInterrupt

    with open_store(path) as store:
        store["a"] = [1]
        held = store["a"]
        with monkeypatch.context() as patch:
            patch.setattr(LmdbWriteTransaction, "commit", commit_and_stop)
            try:
                store.rekey(NEW, reencrypt=reencrypt)
            except KeyboardInterrupt:
                assert done[0] == commit
        held.append(2)
        store.backup(path + ".copy")
        check_store(store)
    assert refuses(path, OLD)
    assert contents(path, NEW) == contents(path + ".copy", NEW) == {"a": [1, 2]}


def test_a_view_of_the_moment_before(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that began just before the key is changed, and looks just after, is readable."""
    read = LmdbEngine.read
    changed: list[bool] = []

    def read_and_change(self: Any) -> Any:
        view = read(self)
        if not changed:
            changed.append(True)
            with pytest.raises(richstore.RichStoreError, match="call rekey again"):
                store.rekey(NEW, reencrypt=True)
        return view

    with open_store(path) as store:
        store["a"] = [1]
        with monkeypatch.context() as patch:
            patch.setattr(LmdbEngine, "read", read_and_change)
            view = store.snapshot()
        store["a"].append(2)
        with view:
            assert view["a"] == [1]
        assert store["a"] == [1, 2]
    assert contents(path, NEW) == {"a": [1, 2]}


def change_elsewhere(path: str, old: bytes, new: bytes) -> None:
    """Change the key in another process."""
    code = (
        "import sys, richstore\n"
        "old, new = map(bytes.fromhex, sys.argv[2:])\n"
        "with richstore.open(sys.argv[1], key=old) as store: store.rekey(new)\n"
    )
    done = run_python(code, path, old.hex(), new.hex())
    assert done.returncode == 0, done.stderr


def test_backup_after_another_process_has_changed_the_key(path: str) -> None:
    """A process that goes on after another one has changed the key makes backups as before."""
    with open_store(path) as store:
        store["a"] = [1]
        change_elsewhere(path, OLD, NEW)
        store["a"].append(2)
        store.backup(path + "1")
        store.backup(path + "2", compact=True)
    for copy in ("1", "2"):
        assert refuses(path + copy, OLD)
        assert contents(path + copy, NEW) == {"a": [1, 2]}


def test_two_changes_at_once(path: str) -> None:
    """A key that another process sets while everything is encrypted anew is not undone."""
    third = bytes(range(64, 96))
    changed: list[bool] = []

    def change_once(records: int, size: int) -> None:
        if not changed:
            changed.append(True)
            change_elsewhere(path, NEW, third)

    with open_store(path) as store:
        expected = fill(store)
        pieces = old_pieces(path, OLD)
        with pytest.raises(richstore.RichStoreError, match="changed again"):
            store.rekey(NEW, reencrypt=True, progress=change_once)
        assert store.stats().rekeying
        check_store(store)
    assert refuses(path, NEW)
    assert contents(path, third) == expected
    with open_store(path, third) as store:
        store.rekey(third, reencrypt=True)
    assert left(path, pieces) == 0
    assert contents(path, third) == expected
