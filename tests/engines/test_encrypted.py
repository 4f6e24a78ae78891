"""The engine that encrypts: the conformance suite, and what nobody may do to its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="the extra `secure` is not installed")

from richstore.engines.base import Engine
from richstore.engines.encrypted import EncryptedEngine, Secret
from richstore.engines.encrypted.cipher import Cipher, InvalidTag
from richstore.engines.lmdb import open_lmdb
from richstore.engines.memory import MemoryEngine

from .conformance import EngineConformance

SECRET = Secret(bytes(range(32)))


def encrypted(below: Engine, secret: Secret = SECRET, *, names: bool = False) -> EncryptedEngine:
    """Return an encrypted engine over an empty one, or over one that has a header."""
    return EncryptedEngine(
        below, secret, names=names, hidden={0x10: 1}, outside=frozenset({b"outside"})
    )


class TestEncryptedMemory(EngineConformance):
    """The suite, over an engine in memory."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        """An empty engine."""
        made = encrypted(MemoryEngine())
        yield made
        made.close()


class TestEncryptedLmdb(EngineConformance):
    """The suite, over LMDB."""

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        """An empty engine."""
        below = open_lmdb(str(tmp_path / "e.db"), "c", synchronous="off", timeout=None)
        made = encrypted(below)
        yield made
        made.close()


# The vectors of the specification: key byte, place, what the message of 12 bytes becomes.
VECTORS = [
    (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
]


@pytest.mark.parametrize(("byte", "place", "expected"), VECTORS)
def test_cipher_is_xaes(byte: int, place: bytes, expected: str) -> None:
    """The cipher opens what the specification of XAES-256-GCM says a message becomes."""
    sealed = b"ABCDEFGHIJKLMNOPQRSTUVWX" + bytes.fromhex(expected)
    assert Cipher(bytes([byte]) * 32).open(sealed, place) == b"XAES-256-GCM"
    with pytest.raises(InvalidTag):
        Cipher(bytes([byte]) * 32).open(sealed, place + b"x")
