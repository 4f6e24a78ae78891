"""A stash on the files of `shelve`, of whichever dbm they are."""

from __future__ import annotations

import dbm
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from richstore.documents import Codec
from richstore.errors import EncodingError, FormatError, KeyTypeError, ReadOnlyError
from richstore.stash.base import Lock, MutableStash

__all__ = ["ShelveStash"]

# what the modules of dbm make of a name
_SUFFIXES = ("", ".db", ".dat", ".dir", ".pag", "-wal", "-journal")


class ShelveStash(MutableStash[str, Any]):
    """A stash on a file that Python's `shelve` has written, or will read.

    Each call opens the file and closes it, so that what was dumped is in the file when the call
    returns, and nobody is kept out between; inside `with stash:` it stays open, which is much
    quicker for many calls. A value that is read is a new object each time; change it and dump it
    again. Safe to use from many threads, which wait for each other, and for a whole `with` block.

    A shelf is as safe as its dbm: most do not survive a crash in the middle of a write, and not all
    take two processes at once. It is for the files that people have: to move one, `store.update(
    stash)`.

    Args:
        path: as it was given to `shelve.open`, that is, without the suffixes that dbm adds.
        flag: `"r"` reads an existing file, `"w"` reads and writes an existing one, `"c"` makes it
            at the first dump if it is missing.
        classes: which classes and functions the pickles in it may name, as for `richstore.open`: by
            default all in a file that nobody but its owner, who is you, may write, and none in
            every other file.
        keyencoding: of the keys, which are str.

    Raises:
        ValueError: `flag` or `classes` is nothing that it can be.
        FileNotFoundError: the file is missing, with `"r"` or `"w"`.
        FormatError: it is no file of a dbm.
        ModuleNotFoundError: it is the file of a dbm that this Python does not have.

    Example:
        >>> import os, shelve, tempfile
        >>> from richstore.stash import ShelveStash
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "data")
        ...     with shelve.open(path) as shelf:
        ...         shelf["ann"] = {"age": 30}
        ...     dict(ShelveStash(path, "r"))
        {'ann': {'age': 30}}
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        flag: Literal["r", "w", "c"] = "c",
        *,
        classes: Any = None,
        keyencoding: str = "utf-8",
    ) -> None:
        if flag not in ("r", "w", "c"):
            raise ValueError(f"flag is {flag!r}, and must be 'r', 'w' or 'c'")
        self.path = os.path.abspath(path)
        self.flag = flag
        self._codec = Codec("pickle", classes=classes)
        self._keyencoding = keyencoding
        self._lock = Lock()
        # what is open, and in how many `with` blocks
        self._db: Any = None
        self._blocks = 0
        if self._is_missing() and flag != "c":
            raise FileNotFoundError(2, "there is no shelf; make it with flag='c'", self.path)

    def load(self, key: str) -> Any:
        """Return the value of a key.

        Raises:
            KeyError: there is none.
            FormatError: what is there is not a pickle.
            UntrustedClassError: it names classes that are not allowed.
        """
        with self._opened("r") as db:
            name = self._name(key)
            if name is None or name not in db:
                raise KeyError(key)
            data = bytes(db[name])
        return self._codec.loads(data, f"{self.path}[{key!r}]", self._files())

    def exists(self, key: object) -> bool:
        """Tell whether there is a value for a key."""
        with self._opened("r") as db:
            name = self._name(key)
            return name is not None and name in db

    def dump(self, key: str, value: Any) -> None:
        """Write a value.

        Raises:
            KeyTypeError: the key is no str.
            EncodingError: the value cannot be pickled. The old one stays.
            ReadOnlyError: the flag is `"r"`.
        """
        name = self._name(key)
        if name is None:
            raise KeyTypeError(
                f"a key of a shelf is a str that {self._keyencoding} can hold, and {key!r} is not"
            )
        try:
            data = self._codec.dumps(value)
        except EncodingError as error:
            raise error.inside(f"[{key!r}]") from error.__cause__
        with self._opened("w") as db:
            db[name] = data

    def delete(self, key: str) -> None:
        """Remove a key.

        Raises:
            KeyError: it is not there.
            ReadOnlyError: the flag is `"r"`.
        """
        with self._opened("w") as db:
            name = self._name(key)
            if name is None or name not in db:
                raise KeyError(key)
            del db[name]

    def __iter__(self) -> Iterator[str]:
        with self._opened("r") as db:
            names = list(db.keys())
        return (bytes(name).decode(self._keyencoding) for name in names)

    def __len__(self) -> int:
        with self._opened("r") as db:
            return len(db.keys())

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            if self._db is None:
                self._db = self._open("r" if self.flag == "r" else "w")
            self._blocks += 1
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._blocks -= 1
            if not self._blocks:
                db, self._db = self._db, None
                db.close()
        finally:
            self._lock.__exit__(None, None, None)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} {self.path!r}>"

    def _name(self, key: object) -> bytes | None:
        """Return what the file has for a key; None: it can have nothing."""
        try:
            return key.encode(self._keyencoding) if isinstance(key, str) else None
        except UnicodeEncodeError:
            return None

    @contextmanager
    def _opened(self, mode: Literal["r", "w"]) -> Iterator[Any]:
        """Give the open file; nothing that reads makes one."""
        if mode == "w" and self.flag == "r":
            raise ReadOnlyError(f"{self!r} was opened with 'r', and cannot be changed")
        with self._lock:
            if self._db is not None:
                yield self._db
            elif mode == "r" and self._is_missing():
                yield {}
            else:
                db = self._open(mode)
                try:
                    yield db
                finally:
                    db.close()

    def _open(self, mode: Literal["r", "w"]) -> Any:
        return dbm.open(self.path, "c" if mode == "w" and self._is_missing() else mode)

    def _is_missing(self) -> bool:
        """Tell whether there is no file; raise what explains one that cannot be opened."""
        kind = dbm.whichdb(self.path)
        if kind is None:
            if os.path.exists(self.path) and not os.access(self.path, os.R_OK):
                raise PermissionError(13, "the shelf may not be read", self.path)
            return True
        if not kind:
            raise FormatError(f"{self.path} is not the file of a shelf, of any dbm that is known")
        try:
            importlib.import_module(kind)
        except ImportError as error:
            raise ModuleNotFoundError(
                f"{self.path} is a file of {kind}, which this Python was built without; read it "
                f"with another Python (on Debian: apt install python3-gdbm)",
                name=kind,
            ) from error
        return False

    def _files(self) -> list[str]:
        return [name for end in _SUFFIXES if os.path.isfile(name := self.path + end)]
