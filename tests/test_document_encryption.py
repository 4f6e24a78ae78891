"""Documents with a key: in files, in memory, and on S3."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import child_environment
from document_places import Place

pytest.importorskip("cryptography", reason="the extra `secure` is not installed")

import richstore
from richstore import FormatError, Passphrase, WrongKeyError

KEY, OTHER = bytes(range(32)), bytes(32)
SECRET = "SecretSecret"


@pytest.mark.parametrize(
    "key", [KEY, Passphrase("pass"), lambda: KEY], ids=["bytes", "passphrase", "function"]
)
def test_round_trip(place: Place, key: Any) -> None:
    """What is saved with a key comes back with it, changed in place, and is not in the clear."""
    with place.open(default={}, key=key) as document:
        document.value[SECRET] = [SECRET]
    document = place.open(key=key, autosave=True)
    document.value[SECRET].append(1)
    assert place.open(key=key).value == {SECRET: [SECRET, 1]}
    stored = place.stored()
    assert stored is not None
    assert SECRET.encode() not in stored
    assert KEY not in stored


def test_the_wrong_key(place: Place) -> None:
    """Another key, or none, or one for what is not encrypted, is refused; nothing is changed."""
    with place.open(default=[1], key=KEY) as document:
        document.value.append(2)
    before = place.stored()
    for wrong in (OTHER, Passphrase("wrong"), None):
        with pytest.raises(WrongKeyError):
            place.open(key=wrong, default=[])
    assert place.stored() == before
    place.put(b"[1, 2]")
    with pytest.raises(WrongKeyError, match="is not encrypted; open it without a key"):
        place.open(key=KEY)
    assert place.stored() == b"[1, 2]"
    assert place.open().value == [1, 2]


def test_every_save_is_encrypted_anew(place: Place) -> None:
    """Two saves of one value have nothing in common but the header."""
    document = place.open(default=[1], key=KEY)
    document.save()
    first = place.stored()
    document.value.append(2)
    document.value.pop()
    document.save()
    document.value[0] = 1
    document.value.append(2)
    document.save()
    second = place.stored()
    assert first is not None
    assert second is not None
    head, _, body = first.partition(b"\n")
    assert second.startswith(head)
    assert body[:24] not in second


def test_changed_bytes(place: Place) -> None:
    """A document of which any byte was changed, or that was cut, is not opened."""
    place.open(data={"a": 1}, key=KEY).save()
    stored = place.stored()
    assert stored is not None
    for at in range(0, len(stored), 7):
        changed = stored[:at] + bytes((stored[at] ^ 1,)) + stored[at + 1 :]
        for bad in (changed, stored[:at]):
            if not bad:
                continue
            place.put(bad)
            with pytest.raises((WrongKeyError, FormatError, richstore.CorruptionError)):
                place.open(key=KEY)
    place.put(stored)
    assert place.open(key=KEY).value == {"a": 1}


def test_of_another_document(place: Place) -> None:
    """The data of one document under the header of another one is refused."""
    place.open(data=["first"], key=KEY).save()
    first = place.stored()
    place.open(key=KEY).delete()
    place.open(data=["other"], key=KEY).save()
    second = place.stored()
    assert first is not None
    assert second is not None
    place.put(first.partition(b"\n")[0] + b"\n" + second.partition(b"\n")[2])
    with pytest.raises(richstore.CorruptionError):
        place.open(key=KEY)


def test_formats(place: Place) -> None:
    """Any format can be inside, and what it refuses is refused with its path."""
    for format in ("json", "pickle", "msgpack", "bson", json):
        document = place.open(data={"a": [1]}, key=KEY, format=format)
        document.save()
        assert place.open(key=KEY, format=format).value == {"a": [1]}
    document = place.open(key=KEY)
    with pytest.raises(richstore.EncodingError, match="at \\['t'\\]"), document:
        document.value["t"] = {1, 2}
    with pytest.raises(richstore.EncodingError, match="and in no document"):
        document.value["t"] = richstore.Sealed(1)


def test_two_processes(place: Place) -> None:
    """Two processes with the key lose no change of each other."""
    if not place.is_file:
        pytest.skip("files take a lock, which makes changes of single processes certain")
    work = (
        "import sys, richstore\n"
        "document = richstore.document(sys.argv[1], default=[], key=bytes(range(32)),\n"
        "                              autosave=True)\n"
        "for n in range(30): document.value.append(n)\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", work, place.location], env=child_environment())
        for _ in range(2)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(place.open(key=KEY).value) == sorted([*range(30)] * 2)
