"""A stash whose values are files in a directory, each replaced in one step."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

from richstore.documents import Codec
from richstore.errors import EncodingError, UntrustedClassError
from richstore.stash.base import MutableStash
from richstore.stash.files import make_directories, remove_left, replace, sync_directory
from richstore.stash.names import Escaped, Verbatim

__all__ = ["NAME", "DirectoryStash", "Files", "suffix_of"]

K = TypeVar("K")
NAME = "{name}"
# what the system says of a file that does not exist, or cannot
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class Names(Protocol):
    """How keys are names of files."""

    def name(self, key: Any) -> str:
        """Return the name of a key; raise TypeError or ValueError if it has none."""

    def key(self, name: str) -> Any:
        """Return the key of a name; None: no key has it."""


class Files(MutableStash[K, Any]):
    """What the stashes on directories have in common.

    Args:
        path: the directory.
        pattern: what the names of files are, with `{name}` in it.
        names: turns keys into names and back.
        codec: turns values into bytes and back.
    """

    def __init__(
        self, path: str | os.PathLike[str], pattern: str, names: Names, codec: Codec
    ) -> None:
        self.path = os.path.abspath(path)
        begin, found, end = pattern.partition(NAME)
        if not found or NAME in end or "/" in pattern or "\0" in pattern or begin[:1] == ".":
            raise ValueError(
                f"pattern is {pattern!r}, and must be the name of a file that has {NAME!r} in it "
                f"once, does not begin with a dot, and has no slash"
            )
        self.pattern = pattern
        self._begin, self._end = begin, end
        self._names = names
        self._codec = codec
        self._has_cleaned = False

    def path_of(self, key: K) -> str:
        """Return the path of the file of a key, which may be there or not.

        Raises:
            KeyTypeError: the key is of another type than the keys of this stash.
            ValueError: the key cannot be the name of a file.
        """
        name = self._names.name(key)
        above, slash, last = name.rpartition("/")
        return os.path.join(self.path, f"{above}{slash}{self._begin}{last}{self._end}")

    def load(self, key: K) -> Any:
        """Return the value in the file of a key: a new one each time.

        Raises:
            KeyError: there is no such file.
            OSError: it cannot be read.
            FormatError: what is in it is not of the format.
            UntrustedClassError: it names classes that are not allowed.
            WrongKeyError: it is encrypted with another key, or a key is missing.
        """
        path = self._path_of_file(key)
        if path is None:
            raise KeyError(key)
        try:
            return self._codec.load(path)
        except FileNotFoundError:
            raise KeyError(key) from None

    def exists(self, key: object) -> bool:
        """Tell whether there is a file for a key.

        Raises:
            OSError: that cannot be told, as one may not look into the directory.
        """
        return self._path_of_file(key) is not None

    def dump(self, key: K, value: Any) -> None:
        """Write the file of a key, durably; whoever reads it gets the old value or the new one.

        Raises:
            KeyTypeError: the key is of another type than the keys of this stash.
            ValueError: the key cannot be the name of a file.
            EncodingError: the format cannot hold the value. The file is as it was.
            OSError: the file cannot be written, or is write-protected. It is as it was.
        """
        self._write(key, self._encode(key, value), replace)

    def _encode(self, key: K, value: Any) -> bytes:
        try:
            return self._codec.dumps(value)
        except (EncodingError, UntrustedClassError) as error:
            raise error.inside(f"[{key!r}]") from error.__cause__

    def _write(self, key: K, data: bytes, write: Any) -> None:
        path = self.path_of(key)
        try:
            make_directories(os.path.dirname(path))
            if not self._has_cleaned:
                remove_left(self.path)
                self._has_cleaned = True
            write(path, data, self.path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise ValueError(
                f"a key of {len(str(key))} characters makes a path too long for the file system; "
                f"use shorter keys, or a hash of them"
            ) from error

    def delete(self, key: K) -> None:
        """Remove the file of a key.

        Raises:
            KeyError: there is none.
            OSError: it cannot be removed.
        """
        path = self._path_of_file(key)
        try:
            if path is None:
                raise FileNotFoundError
            os.unlink(path)
        except FileNotFoundError:
            raise KeyError(key) from None
        sync_directory(os.path.dirname(path))

    def _path_of_file(self, key: Any) -> str | None:
        """Return the path of the file of a key; None: there is none."""
        try:
            path = self.path_of(key)
        except (TypeError, ValueError):
            return None
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return None
        # nothing else is opened: a FIFO would wait for its other end
        return path if stat.S_ISREG(mode) else None

    def __iter__(self) -> Iterator[K]:
        return self._keys_in(self.path, "")

    def _keys_in(self, directory: str, above: str) -> Iterator[K]:
        try:
            with os.scandir(directory) as found:
                # of now: a loop may delete what it finds
                entries = list(found)
        except FileNotFoundError:
            return
        for entry in entries:
            name = entry.name
            if name.endswith("%") and entry.is_dir():
                yield from self._keys_in(entry.path, f"{above}{name}/")
            elif name.startswith(self._begin) and name.endswith(self._end) and entry.is_file():
                inner = name[len(self._begin) : len(name) - len(self._end)]
                key = self._names.key(above + inner)
                if key is not None:
                    yield key

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} {os.path.join(self.path, self.pattern)!r}>"


class DirectoryStash(Files[str]):
    """A stash whose values are files in a directory: readable by others, and one at a time.

    A value is written beside its place, put on disk and given its name in one step, so that readers
    get the old one or the new one, a dump that fails leaves the old one, and so does a process that
    is killed. Keys are strings, any of them: what could lead out of the directory, or be the same
    name on a file system that ignores case, is escaped. What a value is read into is a new object
    each time; change it and dump it again.

    Safe to use from many threads and processes: of two who dump under one key at once, one is the
    last. A loop goes through the keys of the moment it begins; a key that another process deletes
    meanwhile is a `KeyError` when its value is read.

    Args:
        path: the directory; it is made by the first dump.
        pattern: what the names of files are; by default `{name}.json` for JSON, and so on.
        format: `"pickle"`, `"json"`, `"bson"`, `"msgpack"`, or a module or object with `dump` and
            `load` or `dumps` and `loads`, as for `richstore.document`.
        escape: whether keys are escaped. With False a key is the name as it is, for directories
            that others have made; then keys that can be no names raise `ValueError`.
        classes: which classes and functions a pickle may name, as for `richstore.document`: by
            default all in a file that nobody but its owner, who is you, may write, and none in
            every other file.
        lossy: whether what the format would not give back equal is stored all the same.
        key: encrypts the files (not their names): 32 bytes, a `Passphrase`, or a function that
            returns one of these. Needs the extra `secure`.
        is_binary: whether a module or object works on bytes; None: JSON does not, all others do.
        load_kwargs: options for reading the format.
        dump_kwargs: options for writing it.

    Raises:
        ValueError: `pattern`, `format` or `classes` is nothing that it can be.

    Example:
        >>> import os, tempfile
        >>> from richstore.stash import DirectoryStash
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     stash = DirectoryStash(directory, format="json")
        ...     stash["../Ann"] = {"age": 30}
        ...     stash["../Ann"], os.listdir(directory)
        ({'age': 30}, ['%2e.%2f%41nn.json'])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        pattern: str | None = None,
        *,
        format: Any = "pickle",
        escape: bool = True,
        classes: Any = None,
        lossy: bool = False,
        key: Any = None,
        is_binary: bool | None = None,
        load_kwargs: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        codec = Codec(
            format,
            is_binary=is_binary,
            load_kwargs=load_kwargs,
            dump_kwargs=dump_kwargs,
            lossy=lossy,
            key=key,
            classes=classes,
        )
        names: Names = Escaped() if escape else Verbatim()
        super().__init__(path, pattern or NAME + suffix_of(format), names, codec)


def suffix_of(format: Any) -> str:
    """Return the suffix for a format, as documents have it."""
    name = format if isinstance(format, str) else getattr(format, "__name__", "dat")
    return f".{name.rpartition('.')[2].lower()}"
