"""An engine that encrypts: the same interface, over another engine.

Theory of operation
-------------------

Under each of its keys the engine below has the *generation* (a byte) and the sealed value
(`cipher`), for which the identity of the store, the version of this format and the key are the
place. So a value opens under
its own key alone, in its own store alone. Of keys that hold what users call things, the part behind
a fixed number of bytes is encrypted too, deterministically (AES-SIV), so that a look-up is one
read; what is in front stays in order, what is behind does not.

An old value under its own key would open as well. So there is a *ledger*: a sum of keyed hashes,
one for each key and value that is stored, which every commit brings up to date (an incremental
hash of a multiset: M. Bellare, D. Micciancio 1997; D. Clarke et al. 2003). `audit` computes it
anew. A value, or several, put back to what they were, removed or doubled are found there; a whole
file that was put back is not.

Whoever changes the data keys (`rekey`) writes another header. Every transaction looks at it first,
so that nobody goes on with keys that are no longer good.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from richstore.engines.base import (
    HEADER_KEY,
    Engine,
    EngineStats,
    ReadTransaction,
    WriteTransaction,
)
from richstore.engines.encrypted.cipher import OVERHEAD, Cipher, InvalidTag
from richstore.engines.encrypted.header import Header, Secret, derive
from richstore.errors import CorruptionError, OrderError, WrongKeyError

__all__ = ["EncryptedEngine"]

_LEDGER_KEY: Final = b"\x00ledger"
_OWN: Final = (HEADER_KEY, _LEDGER_KEY)
# How many names are kept.
_NAMES: Final = 4096
# Of how many headers the keys are kept: a change of keys writes three.
_RECENT: Final = 4
FORMAT: Final = 1
"""The version of what is described here."""
_SUM: Final = 32
_MODULUS: Final = 1 << (8 * _SUM)


class _Generation:
    """One data key, and the keys for each purpose that are derived from it."""

    __slots__ = ("_ledger", "cipher", "names", "number")

    def __init__(self, number: int, key: bytes) -> None:
        self.number = bytes((number,))
        self.cipher = Cipher(derive(key, "values"))
        self.names = AESSIV(derive(key, "names", 64))
        self._ledger = derive(key, "ledger")

    def entry(self, name: bytes, stored: bytes) -> int:
        """Return what a stored value adds to the ledger."""
        # nonce and tag stand for the value
        marks = stored[1:25] + stored[-16:] + name
        return int.from_bytes(hashlib.blake2b(marks, key=self._ledger, digest_size=_SUM).digest())


class _Kept(NamedTuple):
    """A stored value, what it opens to, and what it adds to the ledger."""

    stored: bytes
    value: bytes
    entry: int


class _Keys:
    """The keys of a header, and what is done with them; never changed.

    Args:
        header: the header, opened.
        stored: the header as it is stored.
        hidden: for first bytes of keys that are encrypted: how many bytes stay in the clear.
        records: first bytes of keys whose values are checked by the layers above.
        secret: what the user has given for it, or for one before with the same data keys.
    """

    def __init__(
        self,
        header: Header,
        stored: bytes,
        hidden: Mapping[int, int],
        records: frozenset[int],
        secret: Secret,
    ) -> None:
        self.header = header
        self.secret = secret
        # what every place begins with: store and version of the format
        self._place = header.identity + bytes((FORMAT,))
        self.stored = stored
        self.records = records
        self.hidden = hidden if header.names else {}
        self.generations = [_Generation(*one) for one in header.generations.items()]
        self.newest = self.generations[-1]
        # names that were used lately: encrypting one takes as long as the rest of a look-up
        self._names: dict[bytes, bytes] = {}
        # what this process has written last under keys that every commit reads
        self.kept: dict[bytes, _Kept] = {}
        self.older = self.generations[-2::-1]
        self._by_number = {one.number: one for one in self.generations}

    def name(self, key: bytes, generation: _Generation) -> bytes:
        """Return the key of the engine below."""
        shown = self.hidden.get(key[0]) if key else None
        if shown is None or len(key) <= shown:
            return key
        head = key[:shown]
        return head + generation.names.encrypt(key[shown:], [self._place, head])

    def newest_name(self, key: bytes) -> bytes:
        """Return the key of the engine below under which a value is written."""
        if not key or key[0] not in self.hidden:
            return key
        name = self._names.get(key)
        if name is None:
            if len(self._names) >= _NAMES:
                self._names.clear()
            name = self._names[key] = self.name(key, self.newest)
        return name

    def names(self, key: bytes) -> list[bytes]:
        """Return the keys under which a value may be, the newest first."""
        found = [self.newest_name(key)]
        if self.older and key and key[0] in self.hidden:
            found += [self.name(key, one) for one in self.older]
        return found

    def key(self, name: bytes, stored: bytes) -> bytes:
        """Return the key that `name` made a name of the engine below of."""
        shown = self.hidden.get(name[0])
        if shown is None or len(name) <= shown:
            return name
        head = name[:shown]
        try:
            generation = self._by_number[stored[:1]]
            opened = generation.names.decrypt(name[shown:], [self._place, head])
        except (KeyError, InvalidTag):
            raise CorruptionError(
                f"the name of the record {name!r} was not written with the key of this store"
            ) from None
        return head + opened

    def seal(self, key: bytes, value: bytes) -> bytes:
        """Return a value as it is stored under a key."""
        newest = self.newest
        return newest.cipher.seal(value, self._place + key, newest.number)

    def open(self, key: bytes, stored: bytes) -> bytes:
        """Return the value that is stored under a key.

        Raises:
            CorruptionError: it was not stored there with one of the keys.
        """
        try:
            generation = self._by_number[stored[:1]]
            return generation.cipher.open(stored, self._place + key, 1)
        except (KeyError, InvalidTag):
            raise CorruptionError(
                f"the record {key!r} was changed, moved here, or written with another key"
            ) from None

    def read(self, key: bytes, stored: bytes) -> bytes:
        """As `open`; of a record that the layers above check, nothing: they say whose it is."""
        try:
            return self.open(key, stored)
        except CorruptionError:
            if key[0] in self.records:
                return b""
            raise

    def entry(self, name: bytes, stored: bytes) -> int:
        """Return what a stored value adds to the ledger."""
        generation = self._by_number.get(stored[:1])
        if generation is None or len(stored) < 1 + OVERHEAD:
            raise CorruptionError(f"the record {name!r} was not written with a key of this store")
        return generation.entry(name, stored)

    def check_bound(self, bound: bytes | None) -> None:
        """Raise `OrderError` for the bound of a scan that is among encrypted names."""
        if bound and len(bound) > self.hidden.get(bound[0], len(bound)):
            raise OrderError(
                "the names of the keys of this store are encrypted, so they have no order and no "
                "ranges; make the store with encrypt_keys=False to have them"
            )


class _Reading:
    """What both kinds of transactions read with."""

    __slots__ = ("_keys", "_txn", "id")

    _txn: ReadTransaction | WriteTransaction
    _keys: _Keys
    id: int

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        keys = self._keys
        if not keys.older:
            stored = self._txn.get(keys.newest_name(key))
            if stored is None:
                return None
            kept = keys.kept.get(key)
            return kept.value if kept and kept.stored == stored else keys.read(key, stored)
        for name in keys.names(key):
            stored = self._txn.get(name)
            if stored is not None:
                return keys.read(key, stored)
        return None

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items with `start <= key < stop`; encrypted names are in no order."""
        keys = self._keys
        keys.check_bound(start)
        keys.check_bound(stop)
        return self._items(self._txn.scan(start, stop, reverse=reverse))

    def _items(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys
        foreign: CorruptionError | None = None
        for name, stored in items:
            if name in _OWN:
                continue
            try:
                key = keys.key(name, stored)
            except CorruptionError as error:
                # whoever put it there shall not keep the rest from being read
                foreign = error
                continue
            yield key, keys.read(key, stored)
        if foreign is not None:
            raise foreign


class EncryptedReadTransaction(_Reading):
    """A frozen view of one committed state; safe to use from many threads."""

    __slots__ = ("__weakref__",)

    _txn: ReadTransaction

    def __init__(self, engine: EncryptedEngine) -> None:
        self._txn = txn = engine.below.read()
        try:
            self.id = commit = txn.id
            known = engine.latest
            self._keys = known[1] if known[0] == commit else engine.keys(txn, commit)
        except BaseException:
            txn.close()
            raise

    def copy(self, fd: int) -> bool:
        """Write a file with the state of this view, encrypted as it is, to a descriptor."""
        return self._txn.copy(fd)

    def close(self) -> None:
        """End the view; calling it again does nothing."""
        self._txn.close()


class _Ledger(NamedTuple):
    """The ledger after a commit."""

    commit: int
    total: int


class EncryptedWriteTransaction(_Reading):
    """The write transaction of an engine; for the thread that began it."""

    __slots__ = ("__weakref__", "_engine", "_total")

    _txn: WriteTransaction

    def __init__(self, engine: EncryptedEngine, txn: WriteTransaction) -> None:
        self._engine = engine
        self._txn = txn
        self.id = txn.id
        self._keys = engine.keys(txn, txn.id - 1)
        # None until something is written
        self._total: int | None = None

    @property
    def committed(self) -> bool:
        """Whether `commit` was done, for certain, also when an interrupt or an error ended it."""
        return self._txn.committed

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self._txn.put(*self._sealed(key, value))

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key, taking a few items at a time from the iterable."""
        for key, value in items:
            self.put(key, value)

    def _sealed(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Return name and value as they are stored, and note them in the ledger."""
        keys = self._keys
        stored = keys.seal(key, value)
        name = keys.newest_name(key)
        entry = 0
        if key not in self._engine.outside:
            change = entry = keys.newest.entry(name, stored)
            old = self._txn.get(name)
            if old is not None:
                kept = keys.kept.get(key)
                change -= kept.entry if kept and kept.stored == old else keys.entry(name, old)
            self._note(change)
        if key in self._engine.often:
            keys.kept[key] = _Kept(stored, value, entry)
        if keys.older:
            for older in keys.names(key)[1:]:
                self._remove(key, older)
        return name, stored

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""
        found = [self._remove(key, name) for name in self._keys.names(key)]
        return any(found)

    def _remove(self, key: bytes, name: bytes) -> bool:
        old = self._txn.get(name)
        if old is None:
            return False
        if key not in self._engine.outside:
            self._note(-self._keys.entry(name, old))
        return self._txn.delete(name)

    def _note(self, change: int) -> None:
        if self._total is None:
            self._total = self._engine.total(self)
        self._total = (self._total + change) % _MODULUS

    def read_total(self) -> int:
        """Return the ledger's sum as it is stored."""
        if self._txn.get(HEADER_KEY) is None:
            # the first transaction of all
            self._txn.put(HEADER_KEY, self._keys.stored)
            return 0
        stored = self._txn.get(_LEDGER_KEY)
        if stored is None:
            raise CorruptionError(
                f"{self._engine.path} has no ledger of its records; restore it from a copy"
            )
        return int.from_bytes(self._keys.open(_LEDGER_KEY, stored))

    def write_total(self) -> None:
        """Store the ledger's sum."""
        if self._total is not None:
            total = self._total.to_bytes(_SUM)
            self._txn.put(_LEDGER_KEY, self._keys.seal(_LEDGER_KEY, total))

    # --- for `rekeying` ---

    @property
    def header(self) -> Header:
        """The header that it writes with."""
        return self._keys.header

    @property
    def stored_header(self) -> bytes:
        """The header that it writes with, as it is stored."""
        return self._keys.stored

    def write_header(self, header: Header, secret: Secret) -> None:
        """Store a header that a secret opens, and write with its keys."""
        self._keys = self._engine.packed(header, secret)
        self._txn.put(HEADER_KEY, self._keys.stored)
        # the ledger is encrypted with the newest data key as well
        self._note(0)

    def rewrite(self, start: bytes, records: int, size: int) -> tuple[bytes | None, int, int]:
        """Write again what older data keys have encrypted, from a name of the engine below on.

        Args:
            start: the name.
            records: the most that are looked at.
            size: bytes after which no more are looked at.

        Returns:
            The name to go on from, None at the end; how many were written again, and their bytes.
        """
        keys = self._keys
        taken = 0
        old: list[tuple[bytes, bytes]] = []
        name: bytes | None = None
        for seen, (name, stored) in enumerate(self._txn.scan(start, None)):
            if seen >= records or taken >= size:
                break
            taken += len(stored)
            if name not in _OWN and stored[:1] != keys.newest.number:
                old.append((name, stored))
        else:
            name = None
        written = 0
        for place, stored in old:
            key = keys.key(place, stored)
            value = keys.open(key, stored)
            self.put(key, value)
            written += len(value)
        return name, len(old), written

    def commit(self) -> None:
        """Make the writes durable as the engine below does, visible at once, and end."""
        self.write_total()
        self._txn.commit()
        engine = self._engine
        if self._total is not None:
            engine.ledger = _Ledger(self.id, self._total)
            if self._keys is not engine.latest[1]:
                engine.latest = self.id, self._keys

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""
        self._txn.abort()


class EncryptedEngine:
    """An engine over another one, in which everything is encrypted; safe to use from many threads.

    Args:
        below: the engine that stores what is encrypted.
        secret: what the user has given.
        names: whether the names of keys are to be encrypted, if it is empty.
        hidden: for first bytes of keys that are secret too: how many bytes stay in the clear.
        records: first bytes of keys whose values are checked by the layers above, which say whose
            they are: there, what does not open reads as nothing.
        outside: keys that are not in the ledger, as it does no harm when they are put back.
        often: keys that nearly every commit reads and writes.
        known: the keys of another engine, of which the engine below is a copy.

    Raises:
        WrongKeyError: the engine below was encrypted with another key, or not at all.
    """

    def __init__(
        self,
        below: Engine,
        secret: Secret,
        *,
        names: bool,
        hidden: Mapping[int, int],
        records: frozenset[int] = frozenset(),
        outside: frozenset[bytes] = frozenset(),
        often: frozenset[bytes] = frozenset(),
        known: Any = None,
    ) -> None:
        self.below = below
        self.outside = outside
        self.often = often
        self.path = below.path
        self.last_commit = below.last_commit
        self.slow_commits: bool = getattr(below, "slow_commits", False)
        self.ledger = _Ledger(-1, 0)
        self._hidden = hidden
        self._records = records
        self._secret = secret
        # by the header as it is stored, the newest last
        self._recent: dict[bytes, _Keys] = {}
        self._lock = threading.Lock()
        self._names = names
        # the last commit whose header was looked at, and the keys of that
        self.latest: tuple[int, Any] = (-1, known)
        self.read().close()

    def __repr__(self) -> str:
        return f"<EncryptedEngine over {self.below!r}>"

    @property
    def readonly(self) -> bool:
        """Whether write transactions are refused."""
        return self.below.readonly

    @property
    def is_ordered(self) -> bool:
        """Whether keys of users are in order; their names are not encrypted then."""
        keys: _Keys = self.latest[1]
        return not keys.header.names

    def over(self, below: Engine) -> EncryptedEngine:
        """Return an engine with the same key over another one, such as a copy of this one's."""
        known: _Keys = self.latest[1]
        return EncryptedEngine(
            below,
            known.secret,
            names=known.header.names,
            hidden=self._hidden,
            records=self._records,
            outside=self.outside,
            often=self.often,
            known=known,
        )

    def check(self, secret: Secret) -> None:
        """Raise `WrongKeyError` unless a secret opens the header as well."""
        view = self.below.read()
        try:
            stored = view.get(HEADER_KEY)
        finally:
            view.close()
        if stored is None:
            # nothing was written yet, or all was removed: it will be with these keys
            stored = self.latest[1].stored
        self._opened(stored, None, secret)

    def packed(self, header: Header, secret: Secret) -> _Keys:
        """Return the keys of a header, packed for a secret; known from now on."""
        made = self._made(header, header.pack(secret), secret)
        with self._lock:
            self._remember(made)
        return made

    def _remember(self, keys: _Keys) -> None:
        """Keep keys, so that their header needs no secret; `_lock` is held.

        A view of a moment ago has the header of before; and an interrupt may come between a commit
        and the note of what it has changed.
        """
        self._recent[keys.stored] = keys
        while len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]

    @property
    def is_clean(self) -> bool:
        """Whether no change of the data keys is unfinished."""
        view = self.read()
        try:
            keys: _Keys = self.latest[1]
            return keys.header.is_clean and not keys.older
        finally:
            view.close()

    def read(self) -> EncryptedReadTransaction:
        """Begin a read transaction on the latest committed state."""
        return EncryptedReadTransaction(self)

    def write(self, timeout: float | None) -> EncryptedWriteTransaction:
        """Begin the write transaction, waiting for that of another process at most `timeout` s."""
        txn = self.below.write(timeout)
        try:
            return EncryptedWriteTransaction(self, txn)
        except BaseException:
            txn.abort()
            raise

    def stats(self) -> EngineStats:
        """Return how the engine below stands; header and ledger are not counted."""
        found = self.below.stats()
        return replace(found, entries=max(0, found.entries - len(_OWN)))

    def problems(self) -> list[str]:
        """Return what is wrong with the file itself, below the records."""
        return self.below.problems()

    def audit(self) -> list[str]:
        """Return a sentence for each record that is not authentic, and for the ledger."""
        view = self.below.read()
        try:
            return self._audit(view)
        finally:
            view.close()

    def reopen_after_fork(self) -> None:
        """Replace, in the child of a fork, what belongs to the parent."""
        self._lock = threading.Lock()
        self.below.reopen_after_fork()

    def close(self, noted: list[bool] | None = None) -> None:
        """Release the engine below."""
        self.below.close(noted)

    # --- for the transactions ---

    def keys(self, view: ReadTransaction | WriteTransaction, commit: int) -> _Keys:
        """Return the keys of the header that a transaction sees; of a new one, if it sees nothing.

        Args:
            view: the transaction.
            commit: the last commit it sees.

        Raises:
            WrongKeyError: it does not open with the secret this was opened with.
        """
        stored = view.get(HEADER_KEY)
        with self._lock:
            known: _Keys | None = self.latest[1]
            if stored is None:
                if next(iter(view.scan(b"\0", None)), None) is not None:
                    raise WrongKeyError(
                        f"{self.path} is not encrypted; open it without a key, and copy what is "
                        f"in it into a new store that has one"
                    )
                if known is None:
                    header = Header.new(names=self._names)
                    known = self._made(header, header.pack(self._secret), self._secret)
                    self._remember(known)
            elif known is None or known.stored != stored:
                if known is not None:
                    self._remember(known)
                known = self._recent.get(stored) or self._opened(stored, known)
                self._remember(known)
            self.latest = commit, known
            return known

    def _opened(self, stored: bytes, known: _Keys | None, secret: Secret | None = None) -> _Keys:
        secret = secret or (known.secret if known is not None else self._secret)
        if known is not None and known.header.has_same_keys(stored):
            # only the user's key was changed, and this was opened with the one before
            return self._made(known.header.as_in(stored), stored, known.secret)
        try:
            header = Header.unpack(stored, secret)
        except WrongKeyError as error:
            changed = "; its key was changed since this process opened it" if known else ""
            raise WrongKeyError(f"{self.path} cannot be opened: {error}{changed}") from None
        return self._made(header, stored, secret)

    def _made(self, header: Header, stored: bytes, secret: Secret) -> _Keys:
        return _Keys(header, stored, self._hidden, self._records, secret)

    def total(self, transaction: EncryptedWriteTransaction) -> int:
        """Return the sum of the ledger before a write transaction."""
        ledger = self.ledger
        if ledger.commit == transaction.id - 1:
            return ledger.total
        return transaction.read_total()

    def _audit(self, view: ReadTransaction) -> list[str]:
        found: list[str] = []
        keys = self.keys(view, view.id)
        total = 0
        stored_total = None
        for name, stored in view.scan(b"\0", None):
            try:
                if name == HEADER_KEY:
                    continue
                key = keys.key(name, stored)
                value = keys.open(key, stored)
                if name == _LEDGER_KEY:
                    stored_total = int.from_bytes(value)
                elif key not in self.outside:
                    total += keys.entry(name, stored)
            except CorruptionError as error:
                found.append(str(error))
        if stored_total is None and view.id:
            found.append("the ledger of the records is missing")
        elif not found and total % _MODULUS != (stored_total or 0):
            found.append(
                "records were put back to what they were before, removed, or copied: what is "
                "stored is not what was written last"
            )
        return found
