"""LMDB's own pages, checked from the bytes of the file.

LMDB's pages have no checksums, and reading a damaged one may bring the process down. lmdb's offline
verifier reads the file as bytes instead and looks at every page: that the tree, the list of free
pages and the two heads fit together. It cannot be brought down, so it runs in this process.

The rule: nothing is changed, and no environment is needed, nor touched.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import re

from richstore.engines.datafile import check_header
from richstore.engines.lmdb.pages import missing_pages
from richstore.errors import CorruptionError

__all__ = ["all_findings", "structure_problems"]


def structure_problems(path: str) -> list[str]:
    """Return what is wrong with the pages of an LMDB file, a sentence for each; others may write.

    This thread must not have a write transaction on it.

    Raises:
        OSError: the file cannot be read.
        FormatError: it is not one of LMDB.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check_header(fd, path, empty_allowed=False)
        found = _without_harmless(all_findings(path))
        if found:
            # maybe somebody wrote meanwhile; the lock keeps him waiting
            fcntl.flock(fd, fcntl.LOCK_EX)
            found = _without_harmless(all_findings(path))
        return found
    finally:
        os.close(fd)


def all_findings(path: str) -> list[str]:
    """Return what lmdb's verifier finds, harmless things too."""
    verifier = importlib.import_module("lmdb.verify")
    try:
        found: list[str] = verifier.verify(path, subdir=False)
    except verifier.VerifyError as error:
        return [str(error)]
    # the verifier does not look at the end of a large value
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        missing = missing_pages(fd)
    except CorruptionError as error:
        return [*found, str(error)]
    finally:
        os.close(fd)
    if missing:
        found.append(f"{missing} pages that are in use are beyond the end of the file")
    return found


# A value that was written twice in one transaction, the second time smaller, keeps the pages of the
# first. The verifier says so in three ways: of the value, of all pages of such values, and of pages
# that nobody has.
_LARGER = re.compile(r"overflow page \d+ header mp_pages (\d+) != OVPAGES\(\d+\)=(\d+)")
_COUNTED = re.compile(r"walked (\d+) overflow pages, record says (\d+)")
_LEAKED = re.compile(r"(\d+) page\(s\) are neither reachable nor in the freeDB")


def _without_harmless(findings: list[str]) -> list[str]:
    """Leave out what is explained by values that keep more pages than they need, and only that."""
    larger = [(int(one), int(two)) for one, two in _numbers(_LARGER, findings)]
    kept = sum(has - needs for has, needs in larger)
    counted = sum(int(said) - int(walked) for walked, said in _numbers(_COUNTED, findings))
    leaked = sum(int(count) for (count,) in _numbers(_LEAKED, findings))
    if kept != counted or kept != leaked or any(has < needs for has, needs in larger):
        return findings
    harmless = (_LARGER, _COUNTED, _LEAKED)
    return [one for one in findings if not any(pattern.search(one) for pattern in harmless)]


def _numbers(pattern: re.Pattern[str], findings: list[str]) -> list[tuple[str, ...]]:
    return [match.groups() for match in map(pattern.search, findings) if match]
