"""The key header: how the key that a user gives leads to the keys that data is encrypted with.

Data is encrypted with *data keys*, which are random and never leave the process in the clear. The
header, a piece of JSON that lies in the clear in a store or document, has them encrypted with the
key of the user. So changing the user's key is writing another header; and a key that is not the
right one is told from the right one at once, as the header does not open.

A header may have several data keys, of successive *generations*: data is written with the newest,
and each piece of data says the generation it was written with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final
from unicodedata import normalize

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from richstore.engines.base import HEADER_MAGIC
from richstore.engines.encrypted.cipher import Cipher, InvalidTag
from richstore.errors import CorruptionError, FormatError, WrongKeyError
from richstore.passphrase import KeySource, Passphrase

__all__ = ["Header", "Secret", "derive", "new_generation", "open_alone", "seal_alone"]

_VERSION: Final = 1
KEY_SIZE: Final = 32

# What RFC 9106 recommends where memory is not plenty (its second choice); memory in KiB.
_ARGON: Final = {"iterations": 3, "lanes": 4, "memory": 64 * 1024}
# What a header may ask for, which whoever can write the file may have written.
_MOST: Final = {"iterations": 64, "lanes": 64, "memory": 1024 * 1024}


def derive(key: bytes, purpose: str, size: int = KEY_SIZE) -> bytes:
    """Return the key for one purpose that belongs to a key (HKDF with SHA-256)."""
    return HKDF(SHA256(), size, salt=None, info=f"richstore {purpose}".encode()).derive(key)


class Secret:
    """What a user has given, ready to open headers with; its `repr` shows nothing of it."""

    __slots__ = ("_derived", "_given")

    def __init__(self, key: KeySource) -> None:
        given: object = key() if callable(key) else key
        if not isinstance(given, (bytes, Passphrase)):
            raise TypeError(
                f"key must be {KEY_SIZE} bytes, a richstore.Passphrase, or a function that returns "
                f"one of these, not {type(given).__name__}"
            )
        if isinstance(given, bytes) and len(given) != KEY_SIZE:
            raise ValueError(
                f"key has {len(given)} bytes, and must have {KEY_SIZE} (secrets.token_bytes"
                f"({KEY_SIZE}) makes one); for a passphrase use richstore.Passphrase"
            )
        self._given: bytes | Passphrase = given
        # of the parameters seen last: Argon2 is slow on purpose
        self._derived: tuple[Any, bytes] = (None, b"")

    def __repr__(self) -> str:
        return "<Secret>"

    def parameters(self) -> dict[str, Any] | None:
        """Return how a new header is to derive its key from this secret."""
        if isinstance(self._given, bytes):
            return None
        return {"name": "argon2id", "salt": os.urandom(16).hex(), **_ARGON}

    def key(self, parameters: Mapping[str, Any] | None) -> bytes:
        """Return the key that opens a header with these parameters.

        Raises:
            WrongKeyError: the header is for a passphrase, and this is none; or the other way round.
        """
        if isinstance(self._given, bytes):
            if parameters is not None:
                raise WrongKeyError("the key is 32 bytes, and a passphrase is needed")
            return derive(self._given, "key of a header")
        if parameters is None:
            raise WrongKeyError("the key is a passphrase, and 32 bytes are needed")
        known, derived = self._derived
        if known != parameters:
            derived = Argon2id(
                salt=bytes.fromhex(parameters["salt"]),
                length=KEY_SIZE,
                iterations=parameters["iterations"],
                lanes=parameters["lanes"],
                memory_cost=parameters["memory"],
            ).derive(normalize("NFC", self._given.reveal()).encode("utf-8", "surrogatepass"))
            self._derived = dict(parameters), derived
        return derived


class Header:
    """The header of a store or document, opened.

    Attributes:
        identity: 16 random bytes: part of what every piece of data is authenticated with, so that
            none can be moved between stores.
        names: whether the names of keys are encrypted.
        generations: the data keys by generation, the newest last.
        is_clean: whether nothing in the file is encrypted with data keys of before, free pages
            included.
    """

    __slots__ = ("generations", "identity", "is_clean", "names")

    def __init__(
        self,
        identity: bytes,
        generations: dict[int, bytes],
        *,
        names: bool,
        is_clean: bool = True,
    ) -> None:
        self.identity = identity
        self.generations = generations
        self.names = names
        self.is_clean = is_clean

    def __repr__(self) -> str:
        return f"<Header {self.identity.hex()}>"

    @classmethod
    def new(cls, *, names: bool) -> Header:
        """Return the header of something new."""
        return cls(os.urandom(16), {1: os.urandom(KEY_SIZE)}, names=names)

    def pack(self, secret: Secret) -> bytes:
        """Return the header as it is stored, to be opened with a secret."""
        shown: dict[str, Any] = {
            "version": _VERSION,
            "identity": self.identity.hex(),
            "names": self.names,
            "clean": self.is_clean,
            "kdf": secret.parameters(),
            "generations": list(self.generations),
            "digest": self._digest(),
        }
        place = HEADER_MAGIC + _json(shown)
        sealed = Cipher(secret.key(shown["kdf"])).seal(b"".join(self.generations.values()), place)
        return HEADER_MAGIC + _json({**shown, "keys": sealed.hex()})

    @classmethod
    def unpack(cls, stored: bytes, secret: Secret) -> Header:
        """Open a header.

        Raises:
            WrongKeyError: it was not packed with this secret, or has been changed since.
            FormatError: it is not a header, or of a newer version.
        """
        shown = _shown(stored)
        try:
            sealed = bytes.fromhex(shown.pop("keys"))
            _check_cost(shown["kdf"])
            opened = Cipher(secret.key(shown["kdf"])).open(sealed, HEADER_MAGIC + _json(shown))
            keys = [opened[at : at + KEY_SIZE] for at in range(0, len(opened), KEY_SIZE)]
            generations = dict(zip(shown["generations"], keys, strict=True))
            made = cls(
                bytes.fromhex(shown["identity"]),
                generations,
                names=shown["names"],
                is_clean=shown["clean"],
            )
        except InvalidTag:
            raise WrongKeyError(
                "it was encrypted with another key (or the header that says how was damaged)"
            ) from None
        except WrongKeyError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"its key header is damaged ({error})") from None
        return made

    def has_same_keys(self, stored: bytes) -> bool:
        """Tell whether a stored header, which need not open, has the same data keys."""
        digest = _shown(stored).get("digest")
        return isinstance(digest, str) and digest == self._digest()

    def as_in(self, stored: bytes) -> Header:
        """Return this header with what a stored one, which has the same data keys, says of it."""
        is_clean = _shown(stored).get("clean") is True
        return Header(self.identity, self.generations, names=self.names, is_clean=is_clean)

    def _digest(self) -> str:
        """Return what tells sets of data keys apart, and nothing about them."""
        keys = b"".join(self.generations.values())
        return hashlib.blake2b(derive(keys, "digest"), digest_size=16).hexdigest()


def new_generation(header: Header) -> Header:
    """Return a header with one more data key, which is the one to write with."""
    number = max(header.generations) % 255 + 1
    while number in header.generations:
        number = number % 255 + 1
    generations = {**header.generations, number: os.urandom(KEY_SIZE)}
    return Header(header.identity, generations, names=header.names, is_clean=False)


def _shown(stored: bytes) -> dict[str, Any]:
    try:
        if not stored.startswith(HEADER_MAGIC):
            raise ValueError("it does not begin as one")
        shown = json.loads(stored[len(HEADER_MAGIC) :])
        version = shown["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"its key header is damaged ({error})") from None
    if version != _VERSION:
        raise FormatError(
            f"its key header has version {version}, and this richstore reads {_VERSION}; use a "
            f"newer one"
        )
    found: dict[str, Any] = shown
    return found


def _check_cost(parameters: Any) -> None:
    """Refuse parameters with which deriving the key would take all memory, or for ever."""
    if parameters is None:
        return
    if parameters["name"] != "argon2id":
        raise ValueError(f"kdf {parameters['name']!r}")
    for name, most in _MOST.items():
        if not isinstance(parameters[name], int) or not 0 < parameters[name] <= most:
            raise ValueError(f"{name} of argon2id")


def _json(shown: Mapping[str, Any]) -> bytes:
    return json.dumps(shown, sort_keys=True).encode()


# --- one piece of data by itself ---


def seal_alone(data: bytes, header: Header, packed: bytes) -> bytes:
    """Return data sealed with the newest key of a header, behind that header.

    Args:
        data: what is to be kept secret.
        header: the header.
        packed: the header as `pack` made it.
    """
    key = list(header.generations.values())[-1]
    return packed + b"\n" + Cipher(derive(key, "document")).seal(data, packed)


def open_alone(stored: bytes, secret: Secret) -> tuple[bytes, Header, bytes]:
    """Return the data that `seal_alone` sealed, the header, and the header as it is stored.

    Raises:
        WrongKeyError: it was sealed with another key.
        FormatError: its header is damaged.
        CorruptionError: the rest of it is.
    """
    packed, _, sealed = stored.partition(b"\n")
    header = Header.unpack(packed, secret)
    key = list(header.generations.values())[-1]
    try:
        return Cipher(derive(key, "document")).open(sealed, packed), header, packed
    except InvalidTag:
        raise CorruptionError("it was changed or cut; restore it from a copy") from None
