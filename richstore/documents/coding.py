"""The formats of documents, their class policies and keys, for values that others keep.

A document is one value in one place. Who keeps many values in places of his own (a directory of
files, the records of a dbm file) has here what turns each into bytes and back, by the same rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from richstore.codec.policy import ANY, NONE, ClassPolicy, policy_of
from richstore.documents.encryption import EncryptedFormat
from richstore.documents.formats import Format, resolve
from richstore.encryption import secret_of
from richstore.errors import EncodingError
from richstore.nodes import plain
from richstore.opening import Classes
from richstore.ownership import default_policy
from richstore.passphrase import KeySource

__all__ = ["Codec"]


class Codec:
    """Turns values into bytes and back, as a document does. Safe to use from many threads.

    Args:
        format: as for `richstore.document`: `"json"`, `"pickle"`, `"bson"`, `"msgpack"`, or a
            module or object with `dump` and `load` or `dumps` and `loads`.
        is_binary: whether a module or object works on bytes; None: JSON does not, all others do.
        load_kwargs: options for reading the format.
        dump_kwargs: options for writing it.
        lossy: whether what the format would not give back equal is taken all the same.
        key: encrypts the bytes: 32 bytes, a `Passphrase`, or a function that returns one of these.
        classes: which classes and functions a pickle may name, as for `open()`. By default
            `"any"` for files that nobody but their owner, who is you, may write, and for what a
            key opens; and `"none"` for all other bytes.

    Raises:
        ValueError: `format` or `classes` is none of these.

    Example:
        >>> from richstore.documents import Codec
        >>> codec = Codec("json")
        >>> codec.dumps({"a": [1, 2]})
        b'{"a": [1, 2]}'
        >>> codec.loads(b'{"a": [1, 2]}', "what came by post")
        {'a': [1, 2]}
    """

    def __init__(
        self,
        format: Any,
        *,
        is_binary: bool | None = None,
        load_kwargs: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
        lossy: bool = False,
        key: KeySource | None = None,
        classes: Classes | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "is_binary": is_binary,
            "load_kwargs": load_kwargs,
            "dump_kwargs": dump_kwargs,
            "lossy": lossy,
        }
        found = resolve(format, "", **options)
        # what makes it again in another process: functions of formats cannot be pickled
        self._made_of = format, options | {"classes": classes}
        self._has_key = key is not None
        self._format: Format | EncryptedFormat = found
        self._classes: ClassPolicy | None = None
        if key is not None:
            self._format = EncryptedFormat(found, secret_of(key))
            # whoever has written what a key opens has the key
            self._classes = ANY
        if classes is not None:
            self._classes = policy_of(classes)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._has_key:
            raise TypeError("what has a key is not pickled, for the key would be in the pickle")
        return _made, self._made_of

    @property
    def name(self) -> str:
        """What errors call the format."""
        return self._format.name

    def dumps(self, value: Any) -> bytes:
        """Return the bytes of a value; what is tracked in it is stored as plain data.

        Raises:
            EncodingError: the format cannot hold it, or would give something else back.
            UntrustedClassError: it could not be read again under the `classes` that were given.
        """
        try:
            copy = plain(value)
        except TypeError as error:
            # as copy.deepcopy says it, of what it finds anywhere inside
            raise EncodingError(
                f"{self.name} cannot hold it ({error}); store another type there"
            ) from error
        return self._format.encode(copy, self._classes or ANY)

    def loads(self, data: bytes, location: str, files: Iterable[str] = ()) -> Any:
        """Return the value that bytes stand for.

        Args:
            data: the bytes.
            location: where they come from, for errors.
            files: the files they were in. Where no `classes` were given, who else may write these
                decides; without files nothing is known of the writer.

        Raises:
            FormatError: they are not of this format.
            WrongKeyError: they are encrypted with another key, or a key is missing.
            UntrustedClassError: they name what is not allowed.
        """
        policy = self._classes or _strictest(
            default_policy(os.stat(file), os.path.realpath(file)) for file in files
        )
        return self._format.decode(data, location, policy)

    def load(self, path: str) -> Any:
        """Return the value in a file.

        Raises:
            OSError: as `open()` would.
            FormatError: what is there is not of this format.
            WrongKeyError: it is encrypted with another key, or a key is missing.
            UntrustedClassError: it names what is not allowed.
        """
        with open(path, "rb") as file:
            # of the file that is read, whatever has its name by now
            status = os.fstat(file.fileno())
            data = file.read()
        policy = self._classes or default_policy(status, os.path.realpath(path))
        return self._format.decode(data, path, policy)


def _made(format: Any, options: dict[str, Any]) -> Codec:
    return Codec(format, **options)


def _strictest(policies: Iterable[ClassPolicy]) -> ClassPolicy:
    found: ClassPolicy = NONE
    for found in policies:
        if found.strict:
            break
    return found
