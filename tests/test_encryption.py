"""Stores with a key: nothing readable without it, and nothing that can be changed unseen."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from conftest import check_store, child_environment, raw, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_classes import Account
from test_machine import StoreMachine

pytest.importorskip("cryptography", reason="the extra `secure` is not installed")

import richstore
from richstore import Passphrase, WrongKeyError
from richstore.engines.base import HEADER_KEY
from richstore.engines.encrypted.engine import _LEDGER_KEY, EncryptedEngine
from richstore.engines.lmdb import open_lmdb
from richstore.tracker import LOG_KEY

pytestmark = pytest.mark.timeout(120)

KEY = bytes(range(32))
OTHER = bytes(32)


def open_store(path: str, **options: Any) -> Any:
    """Open a store with the key."""
    return richstore.open(path, **{"key": KEY, "synchronous": "off", **options})


@pytest.fixture(params=[True, False], ids=["names", "clear"])
def store(request: pytest.FixtureRequest, path: str) -> Iterator[Any]:
    """An empty store with encrypted names of keys, and one without."""
    with open_store(path, encrypt_keys=request.param) as made:
        yield made
        if not made.closed:
            check_store(made)


# --- as without a key ---


def test_values_of_all_kinds(store: Any, path: str) -> None:
    """What is stored with a key comes back as it was, changed in place, from another opening."""
    large = {f"key {n}": [n] for n in range(5000)}
    store.update(
        numbers=[1, 2.5], account=Account("ann"), large=large, text="é", items=list(range(20_000))
    )
    store["account"].deposit(5)
    store["large"]["key 17"].append("more")
    large["key 17"].append("more")
    del store["large"]["key 18"], large["key 18"]
    store["items"].insert(10_000, "here")
    store.close()
    with open_store(path) as again:
        assert again["account"].balance == 5
        assert again["large"] == large
        assert again["items"][10_000] == "here"
        assert again["numbers"] == [1, 2.5]
        assert len(again) == 5
        assert set(again) == {"numbers", "account", "large", "text", "items"}
        check_store(again)


def test_keys_of_all_types(store: Any) -> None:
    """Keys of every type are found, looped over with their types, and deleted."""
    keys = ["", "a" * 600, "a" * 601, b"b", 1, 2.5, None, ("t", 1), date(2026, 1, 2), -(10**40)]
    for at, key in enumerate(keys):
        store[key] = at
    assert [store[key] for key in keys] == list(range(len(keys)))
    found = dict(store.items())
    assert found == {key: at for at, key in enumerate(keys)}
    assert sorted(map(repr, found)) == sorted(map(repr, keys))
    for key in keys:
        del store[key]
    assert len(store) == 0
    assert list(store) == []


def test_blocks_and_snapshots(store: Any) -> None:
    """A block shows its own changes among the stored keys; what is rolled back is as before."""
    store.update(a=[1], b=[2], c=[3])
    held = store["a"]
    with store.snapshot() as view, pytest.raises(KeyError), store.transaction():
        held.append(2)
        store["d"] = []
        del store["b"]
        assert dict(store) == {"a": [1, 2], "c": [3], "d": []}
        assert sorted(view) == ["a", "b", "c"]
        raise KeyError
    assert dict(store) == {"a": [1], "b": [2], "c": [3]}
    assert held == [1]


def test_order_and_ranges(path: str, tmp_path: Path) -> None:
    """Ranges need names in the clear: without, they are refused with what to do."""
    names = [f"user {n:03}" for n in range(100)]
    with open_store(path) as store, open_store(str(tmp_path / "2"), encrypt_keys=False) as clear:
        for one in (store, clear):
            one.update(dict.fromkeys(names, 0))
        assert list(clear) == names
        assert list(clear.keys("user 010", "user 013")) == names[10:13]
        assert list(clear.keys(prefix="user 09", reverse=True)) == names[99:89:-1]
        assert set(store) == set(names)
        assert list(store) == list(store)
        assert list(store) != names
        assert list(reversed(store)) == list(store)[::-1]
        for bounds in ({"start": "a"}, {"stop": "z"}, {"prefix": "user"}):
            with pytest.raises(richstore.OrderError, match="encrypt_keys=False"):
                list(store.keys(**bounds))


class EncryptedMachine(StoreMachine):
    """The random machine on stores with a key."""

    options = {"key": KEY, "encrypt_keys": False, "synchronous": "off"}


TestEncryptedMachine = EncryptedMachine.TestCase
TestEncryptedMachine.settings = settings(max_examples=max(25, settings().max_examples // 12))
TestEncryptedMachine.__doc__ = "Any sequence of calls leaves encrypted store and model equal."
TestEncryptedMachine = pytest.mark.timeout(0)(TestEncryptedMachine)


def test_two_processes(path: str) -> None:
    """Processes with the same key see each other's changes, and lose none."""
    work = (
        "import sys, richstore\n"
        "with richstore.open(sys.argv[1], key=bytes(range(32)), synchronous='off') as store:\n"
        "    for n in range(200): store['list'].append((sys.argv[2], n))\n"
    )
    with open_store(path) as store:
        store["list"] = []
        held = store["list"]
        workers = [
            subprocess.Popen([sys.executable, "-c", work, path, name], env=child_environment())
            for name in "ab"
        ]
        for n in range(200):
            held.append(("here", n))
        assert [worker.wait(60) for worker in workers] == [0, 0]
        for name in ("a", "b", "here"):
            assert [n for who, n in store["list"] if who == name] == list(range(200))
        check_store(store)


def test_forked_child(path: str) -> None:
    """The child of a fork reads and writes, with nonces of its own."""
    with open_store(path) as store:
        store["list"] = [0]
        child = os.fork()
        if not child:
            try:
                store["list"].append(1)
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store["list"].append(2)
        assert store["list"] == [0, 1, 2]
        check_store(store)
    assert len(set(nonces(path))) == len(nonces(path))


def nonces(path: str) -> list[bytes]:
    """Return the nonces of all records."""
    return [stored[1:25] for name, stored in raw(path).items() if name != HEADER_KEY]


def test_nonces_are_never_used_twice(path: str) -> None:
    """Every write of every record has another nonce, in each opening and each commit."""
    found: list[bytes] = []
    for _ in range(3):
        with open_store(path) as store:
            for n in range(50):
                store["a"] = n
                found += nonces(path)
    # a record that was not written again has its old one still
    last = dict.fromkeys(found)
    assert len(last) > 3 * 50 * 3


# --- the right key ---

KEYS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: KEY,
    "passphrase": lambda: Passphrase("correct horse ü"),
    "function": lambda: lambda: KEY,
    "function with a passphrase": lambda: lambda: Passphrase("correct horse ü"),
}


@pytest.mark.parametrize("name", KEYS)
def test_kinds_of_keys(name: str, path: str) -> None:
    """A store opens again with a key of each kind, and with no other."""
    with open_store(path, key=KEYS[name]()) as store:
        store["a"] = 1
    with open_store(path, key=KEYS[name]()) as store:
        assert store["a"] == 1
    before = Path(path).read_bytes()
    for wrong in (OTHER, Passphrase("wrong"), lambda: OTHER):
        with pytest.raises(WrongKeyError, match="cannot be opened"):
            open_store(path, key=wrong)
    with pytest.raises(WrongKeyError, match="is encrypted; open it with key="):
        richstore.open(path)
    assert Path(path).read_bytes() == before


def test_normal_forms_of_a_passphrase(path: str) -> None:
    """A passphrase opens the store in whichever Unicode form a keyboard gives it."""
    open_store(path, key=Passphrase("caf\u00e9")).close()
    open_store(path, key=Passphrase("cafe\u0301")).close()


@pytest.mark.parametrize("flag", ["r", "w", "c"])
def test_a_key_for_a_plain_store(flag: str, path: str) -> None:
    """A plain store is not opened with a key, and not changed."""
    with richstore.open(path) as store:
        store["a"] = 1
    before = Path(path).read_bytes()
    with pytest.raises(WrongKeyError, match="is not encrypted; open it without a key"):
        open_store(path, flag=flag)
    assert Path(path).read_bytes() == before
    with richstore.open(path) as store:
        with pytest.raises(WrongKeyError, match="is not encrypted"):
            open_store(path)
        assert store["a"] == 1


def test_keys_beside_an_open_store(path: str) -> None:
    """A second opening in the process needs the key as the first did."""
    with open_store(path) as store:
        store["a"] = [1]
        with open_store(path, flag="r") as reading, open_store(path) as again:
            again["a"].append(2)
            assert reading["a"] == store["a"] == [1, 2]
        for wrong in (OTHER, Passphrase("wrong"), None):
            for flag in ("c", "r"):
                with pytest.raises(WrongKeyError):
                    open_store(path, key=wrong, flag=flag)
        store["a"].append(3)
        assert store["a"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"short", ValueError),
        (bytes(33), ValueError),
        ("a string", TypeError),
        (bytearray(32), TypeError),
        (lambda: "a string", TypeError),
        (lambda: None, TypeError),
    ],
)
def test_what_is_no_key(key: Any, error: type[Exception], path: str) -> None:
    """What is no key is refused before there is a file that says otherwise."""
    with pytest.raises(error) as caught:
        open_store(path, key=key)
    assert "a string" not in str(caught.value)
    with open_store(path) as store:
        assert len(store) == 0


def test_a_function_that_fails(path: str) -> None:
    """The error of a function that fetches the key comes through as it is."""

    def fetch() -> bytes:
        raise ConnectionError("no keyring")

    with pytest.raises(ConnectionError, match="no keyring"):
        open_store(path, key=fetch)
    open_store(path).close()


def test_made_anew_with_a_key(path: str) -> None:
    """Flag `n` makes any store anew, with a key or without."""
    with richstore.open(path) as plain:
        plain["a"] = 1
    with open_store(path, flag="n") as store:
        assert dict(store) == {}
        store["b"] = 2
    with open_store(path, flag="n", key=OTHER) as store:
        assert dict(store) == {}
    with richstore.open(path, "n") as plain:
        assert dict(plain) == {}


def test_made_anew_beside_an_open_store(path: str) -> None:
    """Flag `n` that is refused beside an open store, or for its key, has emptied nothing."""

    def fetch() -> bytes:
        raise ConnectionError("no keyring")

    with open_store(path) as store:
        store["a"] = [1]
        for wrong in (OTHER, None, b"short", fetch):
            with pytest.raises((ValueError, ConnectionError)):
                open_store(path, flag="n", key=wrong)
        with pytest.raises(ValueError, match="other classes"):
            open_store(path, flag="n", classes="none")
        store["a"].append(2)
        assert dict(store) == {"a": [1, 2]}
        with open_store(path, flag="n") as anew:
            assert dict(anew) == dict(store) == {}
            store["b"] = 1
            assert anew["b"] == 1
        check_store(store)
    for wrong in (b"short", fetch):
        with pytest.raises((ValueError, ConnectionError)):
            open_store(path, flag="n", key=wrong)
    with open_store(path) as store:
        assert dict(store) == {"b": 1}
    plain = f"{path}2"
    with richstore.open(plain) as store:
        store["a"] = [1]
        with pytest.raises(WrongKeyError, match="is not encrypted"):
            open_store(plain, flag="n", synchronous="full")
        assert dict(store) == {"a": [1]}


def test_two_that_make_a_store_at_once(path: str) -> None:
    """Whoever makes the file first decides on its keys, and all others take these."""
    work = (
        "import sys, richstore\n"
        "for n in range(5):\n"
        "    with richstore.open(f'{sys.argv[1]}{n}', key=bytes(range(32))) as store:\n"
        "        store[sys.argv[2]] = n\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", work, path, str(at)], env=child_environment())
        for at in range(4)
    ]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    for n in range(5):
        with open_store(f"{path}{n}") as store:
            assert dict(store) == {str(at): n for at in range(4)}
            check_store(store)


# --- nothing in the clear ---

SECRET = "SecretSecret"


def leaks(*places: Path) -> list[str]:
    """Return the files among some, and below some folders, that have the secret in them."""
    forms = [SECRET.encode(), SECRET.encode("utf-16-le"), SECRET.lower().encode()]
    files = [file for place in places for file in [place, *place.rglob("*")] if file.is_file()]
    return [str(file) for file in files if any(form in file.read_bytes() for form in forms)]


def fill_with_secrets(store: Any) -> None:
    """Store the secret as keys, values, attributes and parts of large containers, and change it."""
    store[SECRET] = [SECRET]
    store[SECRET, 1] = {SECRET: {SECRET}}
    store["account"] = Account(SECRET)
    store["large"] = {f"{SECRET} {n}": SECRET for n in range(3000)}
    store["large"][SECRET] = 1
    del store[SECRET]
    with store.transaction():
        store["list"] = [SECRET] * 3000
    store["list"].insert(5, SECRET * 3)


def test_no_plaintext_in_any_file(tmp_path: Path) -> None:
    """The file, the lock file and backups have no key and no value in them."""
    with open_store(str(tmp_path / "test.db")) as store:
        fill_with_secrets(store)
        assert leaks(tmp_path) == []
        store.backup(tmp_path / "copy.db")
        store.backup(tmp_path / "small.db", compact=True)
    richstore.restore(tmp_path / "copy.db", tmp_path / "restored.db", key=KEY)
    assert len(list(tmp_path.glob("*.db"))) == 4
    assert leaks(tmp_path) == []
    assert not any(KEY in file.read_bytes() for file in tmp_path.iterdir())
    with open_store(str(tmp_path / "restored.db"), flag="r") as store:
        assert store["list"][5] == SECRET * 3


def test_plaintext_is_found(tmp_path: Path) -> None:
    """The search finds values without a key, and names of keys where they are left in the clear."""
    with richstore.open(tmp_path / "plain.db") as store:
        store["a"] = SECRET
    with open_store(str(tmp_path / "clear.db"), encrypt_keys=False) as store:
        store[SECRET] = 1
    assert len(leaks(tmp_path)) == 2


def test_nothing_in_reprs_and_errors(path: str) -> None:
    """No repr, error or traceback that the library makes has the key or the passphrase in it."""
    passphrase = Passphrase(SECRET)
    store = open_store(path, key=passphrase)
    store["a"] = [1]
    texts = [repr(passphrase), str(passphrase), repr(store), repr(store._tracker.engine)]
    texts += [repr(store.stats()), repr(vars(store)), repr(vars(store._tracker))]
    for wrong in (Passphrase(SECRET + "2"), SECRET.encode() * 2, SECRET.encode()):
        try:
            open_store(path, key=wrong)
        except ValueError as error:
            texts += traceback.format_exception(error)
    store.close()
    # the lines of this file are in the tracebacks
    shown = [line for text in texts for line in text.splitlines() if "SECRET" not in line]
    assert len(shown) > 10
    assert not any(SECRET in line for line in shown)
    with (
        open_store(path, key=passphrase) as store,
        pytest.raises(TypeError, match="not stored nor pickled"),
    ):
        store["p"] = passphrase


def test_a_passphrase_is_slow_to_try(path: str) -> None:
    """Trying a passphrase takes the memory and time of Argon2id, each one with another salt."""
    passphrase = Passphrase("x")
    headers = []
    for name in ("1", "2"):
        open_store(path + name, key=passphrase).close()
        headers.append(raw(path + name)[HEADER_KEY])
    salts = [re.search(rb'"salt": "([0-9a-f]{32})"', header) for header in headers]
    assert salts[0]
    assert salts[1]
    assert salts[0][1] != salts[1][1]
    assert all(b'"memory": 65536' in header and b"argon2id" in header for header in headers)
    start = time.process_time()
    with pytest.raises(WrongKeyError):
        open_store(path + "1", key=Passphrase("y"))
    assert time.process_time() - start > 0.02


# --- what others do to the file ---


def change(path: str, work: Callable[[Any, dict[bytes, bytes]], None]) -> None:
    """Change what is stored as somebody does who has the file and no key."""
    below = open_lmdb(path, "w", synchronous="off", timeout=None)
    view = below.read()
    items = dict(view.scan(b"\0", None))
    view.close()
    transaction = below.write(None)
    work(transaction, items)
    transaction.commit()
    below.close()


def root_names(items: dict[bytes, bytes]) -> list[bytes]:
    """Return the names of the records of values."""
    return [name for name in items if name[:1] == b"\x10"]


def test_records_that_were_swapped(path: str, tmp_path: Path) -> None:
    """A record under another key, or of another store with the same key, is not read."""
    other = str(tmp_path / "other.db")
    for place in (path, other):
        with open_store(place) as store:
            store.update(a=[1], b=[2], c=[3])

    def swap(transaction: Any, items: dict[bytes, bytes]) -> None:
        first, second, _ = root_names(items)
        transaction.put(first, items[second])
        transaction.put(second, items[first])

    change(path, swap)
    with open_store(path) as store:
        readable = [key for key in "abc" if reads(store, key)]
        assert len(readable) == 1
        assert sorted(store) == ["a", "b", "c"]
        assert len(store.verify().problems) == 2
    from_other = raw(other)

    def take(transaction: Any, items: dict[bytes, bytes]) -> None:
        for name in root_names(items):
            transaction.delete(name)
        for name in root_names(from_other):
            transaction.put(name, from_other[name])

    change(path, take)
    with open_store(path) as store:
        assert not any(key in store for key in "abc")
        with pytest.raises(richstore.CorruptionError, match="not written with the key"):
            list(store)
        assert len(store.verify().problems) >= 3


def reads(store: Any, key: Any) -> bool:
    """Tell whether a value can be read; if not, the error says which one it was."""
    try:
        store[key]
    except richstore.CorruptionError as error:
        assert repr(key) in str(error)
        return False
    return True


def put_back(old: dict[bytes, bytes], names: list[bytes]) -> Any:
    """Return a change that puts some records back to what they were."""

    def work(transaction: Any, items: dict[bytes, bytes]) -> None:
        for name in names:
            if name in old:
                transaction.put(name, old[name])
            else:
                transaction.delete(name)

    return work


@pytest.mark.parametrize("with_ledger", [False, True])
def test_records_that_were_put_back(
    path: str, with_ledger: bool, request: pytest.FixtureRequest
) -> None:
    """verify() tells of any single record that was put back to an older state, or removed."""
    with open_store(path) as store:
        store.update({f"key {n}": [n] for n in range(5)})
        store["large"] = {f"key {n}": n for n in range(2000)}
    old = raw(path)
    with open_store(path) as store:
        for n in range(5):
            store[f"key {n}"].append("newer")
        store["new"] = 1
        store["large"].update({f"key {n}": "newer" for n in range(2000)}, more=1)
        check_store(store)
    new = raw(path)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    changed.remove(_LEDGER_KEY)
    changed.remove(LOG_KEY)
    assert len(changed) > 10
    tried = changed if request.config.getoption("--long") else random.sample(changed, 8)
    for name in tried:
        change(path, put_back(old, [name, _LEDGER_KEY] if with_ledger else [name]))
        with open_store(path) as store:
            problems = store.verify().problems
        assert len(problems) == 1
        assert "put back to what they were" in problems[0]
        change(path, put_back(new, [name, _LEDGER_KEY]))
    with open_store(path) as store:
        check_store(store)


def test_records_that_were_removed_or_changed(path: str) -> None:
    """verify() tells of each record that was removed, cut, or changed in one bit, ledger too."""
    with open_store(path) as store:
        store.update({f"key {n}": [n] for n in range(3)})
    whole = raw(path)
    for name in whole:
        if name in (HEADER_KEY, LOG_KEY):
            continue
        stored = whole[name]
        for bad in (None, stored[:-1], stored[:20], b"", _flipped(stored, 0), _flipped(stored, 30)):
            change(path, put_back({} if bad is None else {name: bad}, [name]))
            try:
                with open_store(path, flag="r") as store:
                    problems = store.verify().problems
            except (richstore.CorruptionError, richstore.FormatError) as error:
                # one of those that opening reads
                assert name[:1] == b"\0"
                problems = [str(error)]
            assert problems != []
            change(path, put_back(whole, [name]))
    with open_store(path) as store:
        check_store(store)


def _flipped(stored: bytes, at: int) -> bytes:
    return stored[:at] + bytes((stored[at] ^ 1,)) + stored[at + 1 :]


def test_an_old_change_log_does_no_harm(path: str) -> None:
    """A change log that was put back, which the ledger leaves out, hides no change from anybody."""
    with open_store(path, flag="c") as store:
        store["a"] = [1]
        old = raw(path)
        code = (
            "import sys, richstore\n"
            "with richstore.open(sys.argv[1], key=bytes(range(32))) as store:\n"
            "    store['a'].append(2)\n"
        )
        assert store["a"] == [1]
        assert run_python(code, path).returncode == 0
        change(path, put_back(old, [LOG_KEY]))
        assert store["a"] == [1, 2]


@pytest.mark.parametrize("what", ["removed", "of another store", "changed", "cut"])
def test_header_that_was_changed(what: str, path: str, tmp_path: Path) -> None:
    """A store whose key header was changed is not opened, and not changed."""
    with open_store(path) as store:
        store["a"] = 1
    header = raw(path)[HEADER_KEY]
    open_store(str(tmp_path / "other.db"), key=OTHER).close()
    bad = {
        "removed": None,
        "of another store": raw(str(tmp_path / "other.db"))[HEADER_KEY],
        "changed": header.replace(b'"names": true', b'"names": false'),
        "cut": header[:-9],
    }[what]
    assert bad != header
    change(path, put_back({} if bad is None else {HEADER_KEY: bad}, [HEADER_KEY]))
    with pytest.raises((WrongKeyError, richstore.FormatError)):
        open_store(path)
    change(path, put_back({HEADER_KEY: header}, [HEADER_KEY]))
    with open_store(path) as store:
        assert store["a"] == 1


def test_costly_header(path: str) -> None:
    """A header that asks for all memory or for hours is refused, not obeyed."""
    with open_store(path, key=Passphrase("x")) as store:
        store["a"] = 1
    header = raw(path)[HEADER_KEY]
    for old, new in ((b'"memory": 65536', b'"memory": 99999999'), (b'"lanes": 4', b'"lanes": -1')):
        bad = header.replace(old, new)
        assert bad != header
        change(path, put_back({HEADER_KEY: bad}, [HEADER_KEY]))
        with pytest.raises(richstore.FormatError, match="header is damaged"):
            open_store(path, key=Passphrase("x"))


@pytest.mark.parametrize("noise", [b"[" * 100_000, b'{"version": 1, "digest": "\xc3\xa9"}'])
def test_header_that_python_stumbles_over(noise: bytes, path: str) -> None:
    """A header that is nested without end, or has other letters, is damaged as any other is."""
    with open_store(path) as store:
        store["a"] = 1
    change(path, put_back({HEADER_KEY: b"richstore key\0" + noise}, [HEADER_KEY]))
    with pytest.raises(richstore.FormatError, match="header is damaged"):
        open_store(path)


@given(noise=st.binary(max_size=300))
def test_any_header(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands for a header gives a clear error."""
    path = str(tmp_path_factory.mktemp("header") / "test.db")
    with open_store(path) as store:
        store["a"] = 1
    header = raw(path)[HEADER_KEY]
    change(path, put_back({HEADER_KEY: header[: len(noise)] + noise}, [HEADER_KEY]))
    with pytest.raises((WrongKeyError, richstore.FormatError)):
        open_store(path)


# --- around it ---


def test_commands(path: str, tmp_path: Path) -> None:
    """The commands take the key from the environment, and say when it is missing or wrong."""
    with open_store(path) as store:
        store[SECRET] = [1]

    def run(*words: str, key: str | None) -> tuple[int, str]:
        environment = child_environment()
        if key is not None:
            environment["RICHSTORE_KEY"] = key
        done = subprocess.run(
            [sys.executable, "-m", "richstore", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    copy = str(tmp_path / "copy.db")
    for words in (
        ["check", "-s", path],
        ["backup", copy, "-s", path],
        ["restore", path, "-s", copy],
    ):
        code, said = run(*words, key=None)
        assert code
        assert "is encrypted; open it with key=" in said
        code, said = run(*words, key=OTHER.hex())
        assert code
        assert "cannot be opened" in said
        code, said = run(*words, key=KEY.hex())
        assert (code, "Traceback" in said) == (0, False)
        Path(copy).unlink(missing_ok=True)
    code, said = run("check", "-s", path, key="no hexadecimal")
    assert code
    assert "RICHSTORE_KEY must have 64 hexadecimal digits" in said
    assert "Traceback" not in said
    code, said = run("salvage", str(tmp_path / "new.db"), "-s", path, key=KEY.hex())
    assert code == 0
    with open_store(str(tmp_path / "new.db"), flag="r") as store:
        assert store[SECRET] == [1]
    assert leaks(tmp_path) == []


def test_without_the_package(path: str) -> None:
    """Without cryptography everything else works, and a key says what to install."""
    code = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "import richstore\n"
        "with richstore.open(sys.argv[1]) as store: store['a'] = 1\n"
        "try: richstore.open(sys.argv[1], key=bytes(32))\n"
        "except ImportError as error: print(error)\n"
    )
    assert "pip install 'richstore[secure]'" in run_python(code, path).stdout


def test_importing_richstore_imports_no_cryptography() -> None:
    """Cryptography is imported when a key is given, not before."""
    code = "import sys, richstore; print('cryptography' in sys.modules)"
    assert run_python(code).stdout == "False\n"


def test_memory_store(path: str) -> None:
    """A store in memory may have a key as well; its backup is a file with that key."""
    with richstore.open("memory:", key=KEY) as store:
        store[SECRET] = [SECRET]
        assert isinstance(store._tracker.engine, EncryptedEngine)
        store.backup(path)
    assert leaks(Path(path).parent) == []
    with open_store(path) as store:
        assert dict(store) == {SECRET: [SECRET]}
