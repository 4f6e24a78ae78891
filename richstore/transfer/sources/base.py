"""What the readers of files of other packages have in common."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from richstore.codec import foreign
from richstore.codec.policy import ANY, ClassPolicy
from richstore.errors import FormatError, PlacedError, RichStoreError
from richstore.ownership import default_policy
from richstore.transfer.files import policy_for

__all__ = ["SQLITE", "Opened", "is_sqlite", "sqlite", "tables"]

SQLITE = b"SQLite format 3\0"


class Opened:
    """What is being converted: where it is, what it may name, and what there is to tell.

    Args:
        path: as it was given.
        files: those that are read at once, for the default of `classes`.
        classes: as in `richstore.open`.
        decode: makes a value of what is stored; None: it is a pickle.
        key: the key that values are encrypted with.
    """

    def __init__(
        self,
        path: Path,
        files: list[Path],
        classes: Any = None,
        decode: Callable[[Any], Any] | None = None,
        key: str | None = None,
    ) -> None:
        self.path = path
        self.policy: ClassPolicy = policy_for(files, classes)
        self.decode = decode
        self.key = key
        self.notes: dict[str, int] = {}
        self._by_default = classes is None

    def note(self, text: str) -> None:
        """Count something that did not come along."""
        self.notes[text] = self.notes.get(text, 0) + 1

    def policy_of(self, file: Path) -> ClassPolicy:
        """Return what one more file may name."""
        if self._by_default and self.policy is ANY:
            return default_policy(file.stat(), os.path.realpath(file))
        return self.policy

    def value(self, stored: Any, place: str) -> Any:
        """Return the value of what is stored: of a pickle, if there is no `decode`."""
        if self.decode is None:
            return self.unpickled(stored, place)
        with said(place):
            return self.decode(stored)

    def unpickled(
        self,
        stored: Any,
        place: str,
        *,
        policy: ClassPolicy | None = None,
        stand_ins: Mapping[tuple[str, str], Any] | None = None,
    ) -> Any:
        """Return the value of a pickle.

        Args:
            stored: it.
            place: where it is, for errors.
            policy: what it may name; None: what all may.
            stand_ins: what is taken for some classes.

        Raises:
            FormatError: it is no pickle, or names what cannot be imported.
            UntrustedClassError: it names what is not allowed.
        """
        with said(place):
            if type(stored) is not bytes:
                raise ValueError(f"it is no pickle, but {type(stored).__name__}")
            return foreign.load(stored, policy or self.policy, stand_ins=stand_ins)


@contextmanager
def said(place: str) -> Iterator[None]:
    """Let errors in what is read say where it was."""
    try:
        yield
    except PlacedError as error:
        raise error.inside(place) from error.__cause__
    except (ImportError, AttributeError) as error:
        raise FormatError(
            f"{place}: what it names cannot be imported ({error}); put its module on the path, or "
            f"say what it is called now with richstore.renamed"
        ) from error
    except RichStoreError as error:
        if str(error).startswith(place):
            raise
        raise FormatError(f"{place}: {error}") from error
    except Exception as error:
        # whatever pickle, and the classes of users, raise
        raise FormatError(
            f"{place}: it cannot be read ({type(error).__name__}: {error})"
        ) from error


def is_sqlite(path: Path) -> bool:
    """Tell whether a file is a database of SQLite."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


@contextmanager
def sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of SQLite for reading; what is wrong with it is a `FormatError`."""
    try:
        # what has not come into the file yet is in one beside it; without it, none is to be made
        mode = "mode=ro" if len(files_beside(path)) > 1 else "immutable=1"
        with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True)) as database:
            # the schema may be a stranger's
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.Error as error:
        raise FormatError(f"{path}: SQLite cannot read it ({error})") from error


def tables(database: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the names of the columns of all tables."""
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: [row[1] for row in database.execute(f"PRAGMA table_info({quoted(name)})")]
        for (name,) in names
    }


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def files_beside(path: Path) -> list[Path]:
    """Return a database of SQLite, and what it keeps beside."""
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
    return [path, *(one for one in beside if one.exists())]
