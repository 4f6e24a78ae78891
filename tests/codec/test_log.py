"""The change log: what it tells is what was changed, or that it does not know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from richstore.codec import log

COMMITS = st.lists(st.lists(st.binary(min_size=1, max_size=200), max_size=8), max_size=60)


@given(commits=COMMITS, seen=st.integers(0, 60))
def test_changes_are_told_or_not_known(commits: list[list[bytes]], seen: int) -> None:
    """For any state seen, the log gives all names changed since, or says that it cannot."""
    stored = b""
    for number, names in enumerate(commits, 1):
        stored = log.extend(stored, number, names)
        assert len(stored) <= log.LIMIT
    last = len(commits)
    seen = min(seen, last)
    found = log.changed_since(stored, seen, last)
    expected = {name for names in commits[seen:] for name in names}
    assert found is None or found == expected
    if sum(12 + sum(2 + len(name) for name in names) for names in commits[seen:]) <= log.LIMIT:
        assert found == expected


def test_a_gap_is_not_overlooked() -> None:
    """A commit that left no entry makes the log say that it does not know."""
    stored = log.extend(log.extend(b"", 1, [b"a"]), 3, [b"b"])
    assert log.changed_since(stored, 2, 3) == {b"b"}
    assert log.changed_since(stored, 0, 3) is None
    assert log.changed_since(stored, 3, 4) is None
