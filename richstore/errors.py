"""Every error that richstore raises, and nothing else.

```
RichStoreError
├── KeyTypeError       (TypeError)     a key of a kind that cannot be ordered and stored
├── EncodingError      (TypeError)     a value that cannot be stored; `path` leads to the culprit
├── MissingClassError  (TypeError)     a use of a placeholder that needs the class it stands for
├── UpgradeError       (RuntimeError)  an old instance that its class cannot upgrade
├── UntrustedClassError                a class or function that the file's `classes` do not allow
├── ReadOnlyError      (TypeError)     a change through a snapshot or a store opened with "r"
├── DetachedError      (RuntimeError)  a change to a container that has left the store
├── ClosedError        (ValueError)    a store or snapshot used after close()
├── LockTimeoutError   (TimeoutError)  another writer held the lock for too long
├── ConflictError      (RuntimeError)  another writer was first; the transaction can be run again
├── CorruptionError    (RuntimeError)  a record that is not what was written
├── OrderError         (TypeError)     a range of keys where the names of keys are encrypted
├── WrongKeyError      (ValueError)    not the key that a store or document is encrypted with
├── ProjectError       (RuntimeError)  open() without a target found no project, or a wrong one
├── FillError          (RuntimeError)  some values could not be made by worker processes
└── FormatError        (ValueError)    not a richstore file, or one of a newer version
```

Each message says what was wrong, where, and what to do. This module imports nothing of richstore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

__all__ = [
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DetachedError",
    "EncodingError",
    "FillError",
    "FormatError",
    "KeyTypeError",
    "LockTimeoutError",
    "MissingClassError",
    "OrderError",
    "PlacedError",
    "ProjectError",
    "ReadOnlyError",
    "RichStoreError",
    "UntrustedClassError",
    "UpgradeError",
    "WrongKeyError",
    "explain",
]


class RichStoreError(Exception):
    """Base of all errors of richstore."""


class KeyTypeError(RichStoreError, TypeError):
    """A key is of a type that a store cannot order and keep.

    Keys are `str`, `bytes`, `int`, `float`, `bool`, `None`, `date`, `datetime`, `UUID`,
    `Enum` members and tuples of these.
    """


class PlacedError(RichStoreError):
    """An error that says where in a value it was: the base of `EncodingError` and another.

    Args:
        reason: what was wrong and what to do, without the place.
        path: the place inside the value, as Python would write it: `['users'][3].handle`.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        return f"at {self.path}: {self.reason}" if self.path else self.reason

    def inside(self, step: str) -> Self:
        """Return the same error as seen from one container further out."""
        return type(self)(self.reason, step + self.path)


class OrderError(RichStoreError, TypeError):
    """A range of keys was asked for in a store whose names of keys are encrypted.

    They have no order there; a store that is made with `encrypt_keys=False` has one.
    """


class WrongKeyError(RichStoreError, ValueError):
    """A store or document was opened with another key than it is encrypted with, or with none.

    Also one that is not encrypted, with a key.
    """


class MissingClassError(RichStoreError, TypeError):
    """A placeholder was used in a way that needs the class or function it stands for."""


class UpgradeError(RichStoreError, RuntimeError):
    """The state of a stored instance cannot be upgraded to the version that its class has now."""


class EncodingError(PlacedError, TypeError):
    """A value cannot be stored."""


class UntrustedClassError(PlacedError):
    """What is stored names a class or function that is not allowed, or would if it were stored.

    Nothing of it was imported or called. What is allowed is said by `classes` of `open()`.
    """


class ReadOnlyError(RichStoreError, TypeError):
    """A change was tried through a snapshot, or through a store opened with `flag="r"`."""


class DetachedError(RichStoreError, RuntimeError):
    """A change was tried on a container that is no longer part of the store."""


class ClosedError(RichStoreError, ValueError):
    """A store, snapshot or transaction was used after it ended."""


class LockTimeoutError(RichStoreError, TimeoutError):
    """The writer's lock was not free in time."""


class ConflictError(RichStoreError, RuntimeError):
    """Another writer committed first; nothing was changed and the work can be run again."""


class CorruptionError(RichStoreError, RuntimeError):
    """A record does not have the content that was written."""


class ProjectError(RichStoreError, RuntimeError):
    """No store was named, and the project that says which it is is missing, or says it wrong."""


class FormatError(RichStoreError, ValueError):
    """The file is not a richstore file, or was written by a newer version."""


class FillError(RichStoreError, RuntimeError):
    """Some of the values that worker processes were to make could not be made.

    Args:
        reason: what went wrong and what to do.
        failures: the errors by key; empty if the workers could not even begin.
    """

    def __init__(self, reason: str, failures: Mapping[Any, BaseException]) -> None:
        super().__init__(reason, failures)
        self.failures = dict(failures)

    def __str__(self) -> str:
        return str(self.args[0])


_IN_VALUE = "in the value at "
_WHILE = "richstore: while reading the value at "


def explain(error: Exception, place: str, path: str = "") -> None:
    """Let an error say which value could not be read, of which file; unless it does so already."""
    if isinstance(error, UntrustedClassError):
        if not error.path:
            error.path = place
    elif not isinstance(error, (CorruptionError, FormatError, UpgradeError)):
        note = f"{_WHILE}{place} of {path}" if path else f"{_WHILE}{place}"
        if not any(one.startswith(_WHILE) for one in getattr(error, "__notes__", ())):
            error.add_note(note)
    elif not str(error).startswith(_IN_VALUE):
        error.args = (f"{_IN_VALUE}{place}: {error}",)
