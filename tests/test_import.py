"""Files that `richstore.transfer.load` reads: wrong ones, hostile ones, and long ones."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_classes
from conftest import child_environment
from exports import HEADER, MADE, lines

import richstore
from richstore.codec.from_text import from_text
from richstore.codec.policy import policy_of
from richstore.codec.to_text import to_text
from richstore.transfer import export, filling, load


@pytest.fixture
def store() -> Iterator[richstore.Store]:
    """A store in memory."""
    with richstore.open("memory:") as made:
        yield made


# --- what is wrong with a file

GOOD = b'{"key": "a", "value": 1}\n'
WRONG = {
    "nothing": (b"", "ends too early"),
    "no header": (GOOD, "line 1: an export begins with"),
    "a newer version": (b'{"richstore": "export", "version": 2}\n', "line 1: a newer version"),
    "no end": (HEADER + GOOD, "ends too early; it is not complete"),
    "cut off": (HEADER + GOOD + b'{"key": "b", "val', "line 3: it is not JSON"),
    "another count": (HEADER + GOOD + b'{"end": 2}\n', "line 3: 2 items are said, and 1 are there"),
    "two of them": (2 * (HEADER + GOOD + b'{"end": 1}\n'), "line 4: there is more behind the end"),
    "no object": (HEADER + b"[1]\n", "line 2: it is not an object, but list"),
    "no value": (HEADER + b'{"key": 1}\n', "line 2: it has to have a key and a value"),
    "a stray part": (HEADER + b'{"key": 1, "value": 1, "x": 1}\n', "line 2: it has to have"),
    "a group of one name": (
        HEADER + b'{"group": "g", "key": 1, "value": 1}\n',
        "line 2: its group is not a list",
    ),
    "a long name of a group": (
        HEADER + b'{"group": ["%s"], "key": 1, "value": 1}\n{"end": 1}\n' % (b"g" * 1000),
        "line 2.*name of a group has 1,000",
    ),
    "a key of a dict twice": (
        HEADER + b'{"key": "a", "value": {"x": 1, "x": 2}}\n',
        "line 2: an object has the key 'x' twice",
    ),
    "bytes": (HEADER + b"\xff\xfe\n", "line 2: it is not JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file(store: richstore.Store, tmp_path: Path, name: str) -> None:
    """What is wrong is said with its line, and the store stays as it was."""
    data, said = WRONG[name]
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(data)
    store["before"] = [1]
    for atomic in (False, True):
        with pytest.raises(richstore.FormatError, match=f"wrong.jsonl.*{said}"):
            load(path, store, replace=True, atomic=atomic)
        assert store.copy() == {"before": [1]}


WRONG_VALUES: list[tuple[Any, str]] = [
    ({"$new": 1}, r"there is no tag '\$new'; has a newer version written it"),
    ({"$tuple": 1}, "it is no such value .TypeError: a list has to be there, not int"),
    ({"$tuple": ["x", {"$bytes": "?"}]}, r"at \[1\]: it is no such value"),
    ({"$ref": 1}, r"nothing before it has the \$id 1"),
    ([{"$list": [], "$id": 1}, {"$list": [], "$id": 1}], r"at \[1\]: the \$id 1 is given twice"),
    ({"$date": "yesterday"}, "it is no such value"),
    ({"$datetime": "2024-01-01T00:00:00", "zone": "../../etc/passwd"}, "it is no such value"),
    ({"$fraction": [1, 0]}, "it is no such value"),
    ({"$path": "a", "kind": "Path"}, "it is no such value"),
    ({"$set": [[]]}, "it is no such value"),
    ({"$dict": [1]}, "it is no such value"),
    ({"$object": "Account"}, "'Account' is no name of a class"),
    ({"$object": ["a:b"]}, "it is no such value"),
    ({"$call": "fractions:Fraction", "args": ["1e999999999"]}, "it is no such value"),
    ({"$call": "builtins:bytearray", "args": [10**12]}, "it is no such value"),
    ({"a": {"b": {"$enum": "sample_classes:Color", "name": 1}}}, r"at \['a'\]\['b'\]: "),
]


@pytest.mark.parametrize(("form", "said"), WRONG_VALUES)
def test_a_wrong_value(store: richstore.Store, form: Any, said: str) -> None:
    """A form that no export has is refused, with line, key and place."""
    with pytest.raises(richstore.RichStoreError, match=rf"line 3, \['k'\]: {said}"):
        load(lines({"key": "a", "value": 1}, {"key": "k", "value": form}), store)
    assert not store


def test_a_wrong_key(store: richstore.Store) -> None:
    """A key that is none is refused, with its line, whether it is found when read or stored."""
    with pytest.raises(richstore.FormatError, match="line 2, the key: there is no tag"):
        load(lines({"key": {"$x": 1}, "value": 1}), store)
    with pytest.raises(richstore.KeyTypeError, match=r"line 3, \[\['list'\]\]: .*list"):
        load(lines({"key": 1, "value": 1}, {"key": ["list"], "value": 1}), store)
    assert not store


@pytest.mark.usefixtures("small_batches")
def test_a_wrong_key_behind_the_first_transaction(store: richstore.Store) -> None:
    """A key that is none is found before anything is changed, however far behind it is."""
    store["before"] = 1
    rows = [{"key": number, "value": number} for number in range(150)]
    with pytest.raises(richstore.KeyTypeError, match="line 152"):
        load(lines(*rows, {"key": ["list"], "value": 1}), store, replace=True)
    assert store.copy() == {"before": 1}


# --- whose code runs

PROGRAMS: list[Any] = [
    {"$call": "os:mkdir", "args": ["ran"]},
    {"$call": "posix:mkdir", "args": ["ran"]},
    {"$object": "subprocess:Popen", "args": ["mkdir ran"], "named": {"shell": True}},
    {"$call": "builtins:eval", "args": ["__import__('os').mkdir('ran')"]},
    {"$call": "builtins:getattr", "args": [{"$name": "builtins:str"}, "format"]},
    {"$name": "os:system"},
    {"$container": "sample_classes:LoudDict", "content": {}},
    {"$object": "sample_classes:Account", "state": {"name": "ann"}},
    {"$enum": "sample_classes:Color", "name": "RED"},
    {"$call": "richstore.codec.records:load_blob", "args": [{"$bytes": "Y29zCm1rZGlyCikuUg=="}]},
]  # fmt: skip


@pytest.mark.parametrize("form", PROGRAMS)
def test_no_code_runs(
    store: richstore.Store, form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that others can write names no class, whatever it tries."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sent.jsonl"
    path.write_bytes(lines({"key": "k", "value": [form]}).getvalue())
    path.chmod(0o666)
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises((richstore.UntrustedClassError, richstore.FormatError)):
            load(source, store)
    assert not Path("ran").exists() and not store


def test_mutated_forms() -> None:
    """Whatever a file has in the place of what an export wrote, errors are those of richstore."""
    choice = random.Random(1)
    forms = [to_text(make()) for make in MADE.values()]
    parts = [part for form in forms for part in parts_of(form)]
    names = [
        {"$name": name} for name in ("os:system", "builtins:type", "uuid:UUID", "richstore.:w")
    ]

    def mutated(form: Any) -> Any:
        if choice.random() < 0.1:
            return choice.choice([*parts, *names, None, -1, 10**30, "x", [], {}])
        if isinstance(form, list):
            return [mutated(item) for item in form]
        if isinstance(form, dict):
            kept = {key: item for key, item in form.items() if choice.random() < 0.95}
            return {key: mutated(item) for key, item in kept.items()}
        return form

    made = 0
    for _ in range(3):
        for form in forms:
            for classes in ("none", [sample_classes]):
                with contextlib.suppress(richstore.RichStoreError):
                    from_text(json.loads(json.dumps(mutated(form))), policy_of(classes))
                    made += 1
    assert made > 50


def parts_of(form: Any) -> Iterator[Any]:
    """Yield a form and all that is inside."""
    yield form
    for part in form.values() if isinstance(form, dict) else form if type(form) is list else ():
        yield from parts_of(part)


def test_classes_that_are_allowed(store: richstore.Store, tmp_path: Path) -> None:
    """`classes` allows what it lists, in a file of one's own all is allowed, and errors name it."""
    store["ann"] = {"who": [sample_classes.Account("ann")]}
    path = tmp_path / "mine.jsonl"
    export(store, path)
    with pytest.raises(richstore.UntrustedClassError) as caught:
        load(path, store, classes="none")
    assert caught.value.path == f"{path}, line 2, ['ann']['who'][0]"
    for classes in (None, "any", [sample_classes], lambda name: name.endswith(".Account")):
        store.clear()
        load(path, store, classes=classes)
        assert store["ann"]["who"][0].name == "ann"
    path.chmod(0o666)
    with pytest.raises(richstore.UntrustedClassError, match=r"everybody can write it"):
        load(path, store)


def test_the_store_has_a_say(tmp_path: Path) -> None:
    """What the store could not read again is refused, with the line, also of a trusted file."""
    text = lines({"key": "k", "value": {"$object": "sample_classes:Bare", "state": {"a": 1}}})
    with richstore.open(tmp_path / "s.db", classes="none") as store:
        with pytest.raises(richstore.UntrustedClassError, match=r"line 2, \['k'\].*Bare"):
            load(text, store, classes="any")
        assert not store


# --- many items


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transactions take 100 items where they take 10,000."""
    monkeypatch.setattr(filling, "BATCH", 100)


def many(count: int) -> io.BytesIO:
    """Return an export of so many items."""
    return lines(*({"key": number, "value": [number]} for number in range(count)))


@pytest.mark.usefixtures("small_batches")
def test_many_items_are_several_transactions(store: richstore.Store) -> None:
    """More than a batch of items are several commits, unless they are to be one."""
    commits = store.stats().commits
    assert load(many(101), store) == 101
    assert store.stats().commits == commits + 2
    assert load(many(101), store, atomic=True) == 101
    assert store.stats().commits == commits + 3
    with store.transaction():
        load(many(101), store)
    assert store.stats().commits == commits + 4
    assert len(store) == 101 and store[100] == [100]


@pytest.mark.usefixtures("small_batches")
def test_an_error_behind_the_first_transaction(tmp_path: Path) -> None:
    """An error of the store itself, which no check can foresee, says how much is stored."""
    rows: list[dict[str, Any]] = [{"key": number, "value": 1} for number in range(100)]
    rows.append({"key": "k", "value": {"$object": "sample_classes:Bare"}})
    with richstore.open(tmp_path / "s.db", classes="none") as store:
        with pytest.raises(richstore.UntrustedClassError, match="line 102") as caught:
            load(lines(*rows), store, classes="any")
        assert caught.value.__notes__ == ["richstore: the 100 items before are in the store"]
        assert len(store) == 100
        store.clear()
        with pytest.raises(richstore.UntrustedClassError, match="line 102"):
            load(lines(*rows), store, classes="any", atomic=True)
        assert not store


@pytest.mark.usefixtures("small_batches")
def test_a_load_that_is_killed_can_be_run_again(tmp_path: Path) -> None:
    """A process that is killed while it loads leaves whole transactions, and a second completes."""
    path, target = tmp_path / "many.jsonl", tmp_path / "many.db"
    path.write_bytes(many(250).getvalue())
    code = (
        "import sys, richstore, richstore.transfer, time\n"
        "from richstore.transfer import filling\n"
        "filling.BATCH = 100\n"
        "def tell(count):\n"
        "    if count == 150:\n"
        "        print('there', flush=True)\n"
        "        time.sleep(60)\n"
        "with richstore.open(sys.argv[2], synchronous='off') as store:\n"
        "    richstore.transfer.load(sys.argv[1], store, progress=tell)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path, target], stdout=subprocess.PIPE, env=child_environment()
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGKILL)
    with richstore.open(target, synchronous="off") as store:
        assert len(store) == 100
        assert load(path, store) == 250
        assert len(store) == 250 and store[249] == [249]
        assert store.verify().ok


@pytest.mark.usefixtures("small_batches")
def test_a_pipe(store: richstore.Store) -> None:
    """What can be read only once is loaded in one transaction."""
    reading, writing = os.pipe()
    data = many(101).getvalue() + b"more"

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(data)

    for expected in (0, 101):
        with open(reading, "rb") as file:
            thread = threading.Thread(target=write)
            thread.start()
            if expected:
                assert load(file, store) == expected
            else:
                with pytest.raises(richstore.FormatError, match="line 104"):
                    load(file, store)
            thread.join()
        assert len(store) == expected
        reading, writing = os.pipe()
        data = data.removesuffix(b"more")
    os.close(reading)
    os.close(writing)
