"""A stash that reads the files in a zip archive."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from typing import Any

from richstore.errors import FormatError
from richstore.stash.base import Lock, Stash

__all__ = ["ZipStash"]


class ZipStash(Stash[str, Any]):
    """The files in a zip archive by their names, read only.

    The archive is opened for each value; its list of names is read again when the archive has
    changed. Directories are no keys. Safe to use from many threads.

    Args:
        path: of the archive.
        root: a directory in it: the keys are the names below that.
        encoding: with one, such as `"utf-8"`, values are str; with None they are bytes.

    Raises:
        ValueError: `root` begins or ends with a slash.

    Example:
        >>> import os, tempfile, zipfile
        >>> from richstore.stash import ZipStash
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "texts.zip")
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("en/hello.txt", "Hello")
        ...     dict(ZipStash(path, "en", encoding="utf-8"))
        {'hello.txt': 'Hello'}
    """

    def __init__(
        self, path: str | os.PathLike[str], root: str | None = None, encoding: str | None = None
    ) -> None:
        if root is not None and (root.startswith("/") or root.endswith("/")):
            raise ValueError(f"root is {root!r}, and must not begin or end with a slash")
        self.path = os.path.abspath(path)
        self._above = f"{root}/" if root else ""
        self._encoding = encoding
        self._lock = Lock()
        # the keys, and the state of the file that they were read from
        self._known: tuple[tuple[int, ...], dict[str, None]] | None = None

    def load(self, key: str) -> Any:
        """Return the content of a file.

        Raises:
            KeyError: there is none of that name.
            OSError: the archive cannot be read.
            FormatError: it is no zip archive, damaged, or has a password.
            UnicodeDecodeError: the content is not of the encoding.
        """
        if not self.exists(key):
            raise KeyError(key)
        try:
            with zipfile.ZipFile(self.path) as archive:
                data = archive.read(self._above + key)
        except (KeyError, OSError):
            raise
        except Exception as error:
            # whatever each way to compress raises for what is damaged, and zipfile for passwords
            raise FormatError(
                f"{self.path} cannot be read at {self._above + key!r}: {error}"
            ) from error
        return data if self._encoding is None else data.decode(self._encoding)

    def exists(self, key: object) -> bool:
        """Tell whether there is a file of that name."""
        return key in self._keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} {os.path.join(self.path, self._above)!r}>"

    def _keys(self) -> dict[str, None]:
        with self._lock:
            found = os.stat(self.path)
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
            if self._known is None or self._known[0] != state:
                self._known = state, dict.fromkeys(self._names())
            return self._known[1]

    def _names(self) -> Iterator[str]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise FormatError(f"{self.path} is not a zip archive: {error}") from error
        above = self._above
        return (
            name[len(above) :]
            for name in names
            if name.startswith(above) and not name.endswith("/")
        )
