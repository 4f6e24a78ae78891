"""The file format of ZODB's FileStorage, read without ZODB: the last state of each object.

A file is a row of transactions, each a row of data records: an object id and a pickle, or where an
older record of the same object has it (an undone change).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from richstore.errors import FormatError

__all__ = ["ROOT", "FileStorage", "is_file_storage"]

_MAGIC = (b"FS21", b"FS30")
# id, length without the eight bytes at the end, status, lengths of user, description, extension
_TRANSACTION = struct.Struct(">8sQcHHH")
# object id, transaction, previous record, transaction's place, length of version, of the pickle
_RECORD = struct.Struct(">8s8sQQHQ")
_PLACE = struct.Struct(">Q")
_UNFINISHED, _UNDONE = b"c", b"u"

# The id of the mapping in which everything is.
ROOT = bytes(8)


def is_file_storage(path: Path) -> bool:
    """Tell whether a file is one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


class FileStorage:
    """The objects in a file.

    Args:
        file: it, open for reading bytes; transactions that others append are not seen.
        name: what errors call it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        # where the last record of each object is
        self._places: dict[bytes, int] = {}
        if file.read(4) not in _MAGIC:
            raise FormatError(f"{name} is not a FileStorage of ZODB")
        size = os.fstat(file.fileno()).st_size
        place = 4
        while place + _TRANSACTION.size <= size:
            place = self._read_transaction(place, size)

    def _read_transaction(self, start: int, size: int) -> int:
        """Take note of the records of a transaction; return where the next one is."""
        length: int
        _, length, status, *texts = _TRANSACTION.unpack(self._at(start, _TRANSACTION.size))
        end = start + length
        if status == _UNFINISHED or end + _PLACE.size > size:
            # its writer was interrupted, or is at it
            return size
        if length < _TRANSACTION.size or self._at(end, _PLACE.size) != _PLACE.pack(length):
            raise FormatError(f"{self._name}: the transaction at byte {start} is damaged")
        place = start + _TRANSACTION.size + sum(texts)
        while status != _UNDONE and place < end:
            oid, _, _, _, version, pickled = _RECORD.unpack(self._at(place, _RECORD.size))
            if version:
                raise FormatError(f"{self._name}: it has versions, which ZODB no longer has")
            self._places[oid] = place
            place += _RECORD.size + (pickled or _PLACE.size)
        return end + _PLACE.size

    def _at(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        found = self._file.read(size)
        if len(found) != size:
            raise FormatError(f"{self._name}: it ends too early, at byte {place}")
        return found

    def __len__(self) -> int:
        return len(self._places)

    def load(self, oid: bytes) -> bytes:
        """Return the pickles of an object.

        Raises:
            FormatError: there is no such object.
        """
        place = self._places.get(oid)
        while place:
            *_, size = _RECORD.unpack(self._at(place, _RECORD.size))
            if size:
                return self._at(place + _RECORD.size, size)
            earlier = _PLACE.unpack(self._at(place + _RECORD.size, _PLACE.size))[0]
            if earlier >= place:
                break
            place = earlier
        raise FormatError(f"{self._name}: the object {oid.hex()} is not in it")
