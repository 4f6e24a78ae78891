"""A directory of numbered files."""

from __future__ import annotations

import os
from typing import Any

from richstore.documents import Codec
from richstore.errors import KeyTypeError
from richstore.stash.directory import NAME, Files, suffix_of
from richstore.stash.files import add

__all__ = ["IncrementKeyDirectoryStash"]


class IncrementKeyDirectoryStash(Files[int]):
    """A directory of numbered files: `append` gives each value the next number.

    Two processes that append at once get two numbers. Each `append`, and `last_key`, reads the
    list of the files. All else is as in a `DirectoryStash`; keys are int.

    Args:
        path: the directory.
        name: what the names of files begin with.
        format: as for a `DirectoryStash`, and so are the others.

    Example:
        >>> import os, tempfile
        >>> from richstore.stash import IncrementKeyDirectoryStash
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     results = IncrementKeyDirectoryStash(directory, "result", format="json")
        ...     results.append({"loss": 0.5}), results.append({"loss": 0.25})
        ...     results.last_key, results.last(), sorted(os.listdir(directory))
        (1, 2)
        (2, {'loss': 0.25}, ['result-1.json', 'result-2.json'])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str = "data",
        *,
        format: Any = "pickle",
        classes: Any = None,
        lossy: bool = False,
        key: Any = None,
    ) -> None:
        codec = Codec(format, lossy=lossy, key=key, classes=classes)
        super().__init__(path, f"{name}-{NAME}{suffix_of(format)}", _Numbers(), codec)

    @property
    def last_key(self) -> int | None:
        """The greatest number; None if there is none."""
        return max(self, default=None)

    def last(self) -> Any:
        """Return the value of the greatest number.

        Raises:
            KeyError: there is none.
        """
        key = self.last_key
        if key is None:
            raise KeyError(f"{self.path} has no file yet")
        return self.load(key)

    def append(self, value: Any) -> int:
        """Keep a value under the next number, and return that: one more than the greatest, or 1.

        Raises:
            EncodingError: the format cannot hold the value.
            OSError: the file cannot be written.
        """
        data: bytes | None = None
        while True:
            key = (self.last_key or 0) + 1
            if data is None:
                data = self._encode(key, value)
            try:
                self._write(key, data, add)
            except FileExistsError:
                continue  # another process was first
            return key


class _Numbers:
    """Numbers as names."""

    def name(self, key: Any) -> str:
        """Return the digits of a number."""
        if type(key) is not int:
            raise KeyTypeError(f"a key here is an int, and {key!r} is a {type(key).__name__}")
        return str(key)

    def key(self, name: str) -> int | None:
        """Return the number of digits."""
        try:
            key = int(name)
        except ValueError:
            return None
        return key if str(key) == name else None
