"""Records: what is written comes back, and what was damaged is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import richstore
from richstore.codec import records
from richstore.errors import CorruptionError, FormatError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(value=VALUES)
def test_values_come_back_in_every_form(value: Any) -> None:
    """One stored value reads the same live, frozen and as plain data."""
    with richstore.open("memory:") as store:
        store["k"] = value
        with store.snapshot() as view:
            assert richstore.plain(store["k"]) == richstore.plain(view["k"]) == value == view["k"]


def test_wide_tables() -> None:
    """Slots and uids beyond 16 bits are kept, also beside small ones."""
    rows = [records.row(0, 0, records.LIST), records.row(70_000, 2**40, records.DICT)]
    stored = records.encode(b"name", None, 3, rows, 2, 2**41, [], [b"link"], [], b"N")
    parts = records.parse(b"name", stored)
    assert list(parts.table) == [0, 0, records.LIST, 70_000, 2**40, records.DICT]
    assert (parts.base, parts.references, parts.links, parts.key) == (2**41, 3, [b"link"], None)


@pytest.fixture
def record() -> bytes:
    """A record of one small list."""
    rows = [records.row(0, 0, records.LIST)]
    fragments = [b"h\x00(K\x01e0"]
    return records.encode(b"name", b"key", None, rows, 1, 1, [], [], fragments, b"h\x01")


def test_every_flipped_byte_is_noticed(record: bytes) -> None:
    """No byte of a record can be changed without an error."""
    for at in range(len(record)):
        damaged = bytearray(record)
        damaged[at] ^= 0x55
        with pytest.raises((CorruptionError, FormatError)):
            records.parse(b"name", bytes(damaged))


def test_truncated_and_moved_records_are_noticed(record: bytes) -> None:
    """A record that was cut, or lies under another key, is refused."""
    for size in range(len(record)):
        with pytest.raises(CorruptionError):
            records.parse(b"name", record[:size])
    with pytest.raises(CorruptionError):
        records.parse(b"other", record)


def test_a_newer_format_is_refused(path: str) -> None:
    """A file, or a record, of a newer version is a FormatError that says so."""
    from richstore.engines.lmdb import open_lmdb
    from richstore.tracker import FORMAT_KEY

    richstore.open(path).close()
    engine = open_lmdb(path, "w", synchronous="off", timeout=None)
    writer = engine.write(None)
    writer.put(FORMAT_KEY, b"richstore\x00\x02" + bytes(16))
    writer.commit()
    engine.close()
    with pytest.raises(FormatError, match="newer"):
        richstore.open(path)
    with pytest.raises(FormatError, match="version 9"):
        records.parse(b"name", b"\x09\x00" + bytes(8))


def test_rows_of_three_widths() -> None:
    """A table is as wide as its widest row, and gives back every number at each width."""
    small, middle, large = (3, 4, records.DICT), (5, -70_000, records.LIST), (70_000, 2**40, 1)
    for rows in ([small], [small, middle], [small, middle, large], [middle], [large, small]):
        table = [records.row(*one) for one in rows]
        stored = records.encode(b"n", None, None, table, len(rows), 9, [], [], [], b"N")
        assert list(records.parse(b"n", stored).table) == [number for one in rows for number in one]
