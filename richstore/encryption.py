"""How stores use encryption: which names of the key space are secret, and whose key it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from richstore.engines.base import HEADER_KEY, Engine, ReadTransaction
from richstore.errors import LockTimeoutError, WrongKeyError
from richstore.pages import ENTRY, PAGE, SHARED
from richstore.spaces import GROUP, GROUPED, ROOT
from richstore.tracker import COUNT_KEY, LOG_KEY, Tracker

if TYPE_CHECKING:
    from richstore.engines.encrypted import EncryptedEngine, Secret

__all__ = [
    "audit",
    "check_key",
    "check_plain",
    "encrypted",
    "is_encrypted",
    "like",
    "rekey",
    "secret_of",
]

# Of the keys of values and the names of groups (behind the group's number), and of the entries of
# large dicts and sets (behind the container's number), everything is secret; other keys of the
# engine are numbers of our own.
_NUMBERED = 9
_HIDDEN = {ROOT[0]: len(ROOT), **dict.fromkeys((GROUPED[0], GROUP[0], ENTRY[0]), _NUMBERED)}
_RECORDS = frozenset({ROOT[0], GROUPED[0], PAGE[0], SHARED[0]})
# An old change log makes others read again what they have loaded, and nothing worse.
_OUTSIDE = frozenset({LOG_KEY})
_OFTEN = frozenset({LOG_KEY, COUNT_KEY})


def secret_of(key: Any) -> Secret:
    """Return what a user has given as `key`, ready for use.

    Raises:
        ImportError: the extra `secure` is not installed.
        TypeError: it is neither bytes, nor a `Passphrase`, nor a function that returns one.
        ValueError: it does not have 32 bytes.
    """
    try:
        from richstore.engines.encrypted import Secret
    except ImportError as error:
        raise ImportError(
            "encryption needs the package cryptography; install it with: "
            "pip install 'richstore[secure]'"
        ) from error
    return key if isinstance(key, Secret) else Secret(key)


def encrypted(engine: Engine, secret: Secret, *, names: bool = True) -> EncryptedEngine:
    """Return an engine that encrypts what it stores in another one.

    Args:
        engine: the other one; empty, or encrypted before.
        secret: what the user has given.
        names: whether the names of keys are to be encrypted, if it is empty.

    Raises:
        WrongKeyError: it was encrypted with another key, or not at all.
    """
    from richstore.engines.encrypted import EncryptedEngine

    return EncryptedEngine(
        engine,
        secret,
        names=names,
        hidden=_HIDDEN,
        records=_RECORDS,
        outside=_OUTSIDE,
        often=_OFTEN,
    )


def is_encrypted(engine: Engine) -> bool:
    """Tell whether an engine encrypts what it stores."""
    return hasattr(engine, "below")


def like(engine: Engine, other: Engine) -> Engine:
    """Return `other` with the encryption that an engine has."""
    found: Engine = engine.over(other) if hasattr(engine, "over") else other
    return found


def audit(engine: Engine) -> list[str]:
    """Return what was done to the records of an encrypted engine without its key."""
    found: list[str] = engine.audit() if hasattr(engine, "audit") else []
    return found


def rekey(
    tracker: Tracker,
    key: Any,
    timeout: float | None,
    *,
    reencrypt: bool,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Change the key of a store; return how many records were written again."""
    from richstore.engines.encrypted import EncryptedEngine, change_key, encrypt_anew

    engine = tracker.engine
    if not isinstance(engine, EncryptedEngine):
        raise WrongKeyError(
            f"{engine.path} is not encrypted, so it has no key to change; make a new store with "
            f"key=…, and copy what is in this one into it"
        )
    secret = secret_of(key)

    @contextmanager
    def alone() -> Iterator[None]:
        if not tracker.writer.acquire(timeout=-1 if timeout is None else timeout):
            raise LockTimeoutError(
                f"another thread was writing to {engine.path} for more than {timeout} s"
            )
        try:
            yield
        finally:
            tracker.writer.release()
            if tracker.requests:
                tracker.wake_next()

    @contextmanager
    def writing() -> Iterator[Any]:
        with alone():
            transaction = engine.write(timeout)
            try:
                yield transaction
                transaction.commit()
            finally:
                transaction.abort()

    if reencrypt:
        return encrypt_anew(engine, writing, alone, secret, timeout, progress)
    change_key(writing, secret)
    return 0


def check_plain(view: ReadTransaction, path: str) -> None:
    """Raise `WrongKeyError` if what a view sees is encrypted."""
    if view.get(HEADER_KEY) is not None:
        raise WrongKeyError(f"{path} is encrypted; open it with key=…")


def check_key(engine: Engine, key: Any) -> None:
    """Raise `WrongKeyError` unless a key is the one that an open engine was opened with."""
    if not hasattr(engine, "check"):
        if key is not None:
            raise WrongKeyError(f"{engine.path} is not encrypted; open it without a key")
    elif key is None:
        raise WrongKeyError(f"{engine.path} is encrypted; open it with key=…")
    else:
        engine.check(secret_of(key))
