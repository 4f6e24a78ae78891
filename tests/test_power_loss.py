"""Power loss, rehearsed on what a process wrote and synced: what the disk may hold is well.

`recording` has the record, `crash_states` what may be left of it, `crash_hunt` what is done and
checked.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import HERE, child_environment
from crash_hunt import Job, as_argument
from crash_states import Disk
from recording import Event, build, compiler, of_file, record, replay

import richstore

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the recorder of writes needs Linux and gcc"
)

STEPS = 70
HUNT = str(Path(HERE) / "crash_hunt.py")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records what a process writes."""
    return build(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module")
def recorded(
    recorder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Event]]:
    """Return a function that gives the record of the workload in one of the modes."""
    known: dict[str, list[Event]] = {}

    def events_of(synchronous: str) -> list[Event]:
        if synchronous not in known:
            directory = tmp_path_factory.mktemp(synchronous)
            arguments = [HUNT, "write", str(directory), synchronous, str(STEPS)]
            store = directory / "store"
            events = of_file(record(recorder, directory, arguments), store)
            assert replay(events) == store.read_bytes(), "something was written past the recorder"
            assert [e.place for e in events if e.kind == "A"] == list(range(STEPS + 1))
            known[synchronous] = events
        return known[synchronous]

    return events_of


def hunt(directory: Path, events: list[Event], job: Job) -> dict[str, int] | str:
    """Look for a state that is wrong; return what is, or how many lacked how many changes."""
    (directory / "events").write_bytes(pickle.dumps(events))
    done = subprocess.run(
        [sys.executable, HUNT, "hunt", str(directory), as_argument(job)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=child_environment(),
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    # an exception with the place above it, or the end of a process that a damaged file brought down
    assert "event " in done.stderr, done.stderr
    return f"{done.returncode}: {done.stderr[-3000:]}"


def how_many(request: pytest.FixtureRequest) -> int:
    """Return the number of states of each kind to try."""
    return 6000 if request.config.getoption("--long") else 150


@pytest.mark.timeout(0)
def test_full_loses_nothing(
    recorded: Callable[[str], list[Event]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In `full` every possible content of the disk is well and has every acknowledged change."""
    states = how_many(request)
    seen = hunt(tmp_path, recorded("full"), Job(states, STEPS))
    assert isinstance(seen, dict), seen
    assert seen == {"0": states}


@pytest.mark.timeout(0)
def test_normal_loses_the_last_change_and_no_more(
    recorded: Callable[[str], list[Event]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In `normal` every possible content is well, and lacks the last change at most."""
    states = how_many(request)
    seen = hunt(tmp_path, recorded("normal"), Job(states, STEPS, losses=1))
    assert isinstance(seen, dict), seen
    assert seen.keys() == {"0", "1"}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
def test_a_kill_loses_nothing(
    recorded: Callable[[str], list[Event]],
    tmp_path: Path,
    synchronous: str,
    request: pytest.FixtureRequest,
) -> None:
    """A process that dies in any write, in any mode, leaves every acknowledged change."""
    states = how_many(request)
    seen = hunt(tmp_path, recorded(synchronous), Job(states, STEPS, kind="kill"))
    assert isinstance(seen, dict), seen
    assert seen == {"0": states}


def test_off_may_lose_changes_and_the_file(
    recorded: Callable[[str], list[Event]], tmp_path: Path
) -> None:
    """In `off` what the disk holds may be unusable, and where it is not, changes may be missing."""
    events = recorded("off")
    assert not {event.kind for event in events} & set("SF")
    damaged = hunt(tmp_path, events, Job(300, STEPS, losses=STEPS))
    assert isinstance(damaged, str)
    # what was never written back at all: the file is there and empty
    disk = Disk()
    for event in events:
        disk.do(event)
    assert disk.found
    assert disk.durable == b""


FAULTS: dict[str, Callable[[list[Event]], list[Event]]] = {
    "data is not synced": lambda events: [e for e in events if e.kind != "F"],
    "data is not synced after a while": lambda events: (
        events[:90] + [e for e in events[90:] if e.kind != "F"]
    ),
    "the head is not synced": lambda events: [
        replace(e, kind="W") if e.kind == "S" else e for e in events
    ],
    "the head is synced before the data": lambda events: _swapped(events),
    "the directory is not synced": lambda events: [e for e in events if e.kind != "D"],
}


def _swapped(events: list[Event]) -> list[Event]:
    """Put each sync of the data behind the write of the head that follows it."""
    order = list(events)
    for at in range(len(order) - 1):
        if order[at].kind == "F" and order[at + 1].kind == "S":
            order[at], order[at + 1] = order[at + 1], order[at]
    return order


@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_sync_is_found(
    recorded: Callable[[str], list[Event]], tmp_path: Path, fault: str
) -> None:
    """The hunt finds a wrong state when syncs of `full` are taken out of its record, or moved."""
    found = hunt(tmp_path, FAULTS[fault](recorded("full")), Job(900, STEPS))
    assert isinstance(found, str), found


def test_a_missing_sync_of_normal_is_found(
    recorded: Callable[[str], list[Event]], tmp_path: Path
) -> None:
    """The hunt finds a wrong state of `normal` when the syncs of the data are taken out."""
    events = [event for event in recorded("normal") if event.kind != "F"]
    assert isinstance(hunt(tmp_path, events, Job(300, STEPS, losses=1)), str)


def test_half_a_transaction_is_found(
    recorded: Callable[[str], list[Event]], tmp_path: Path
) -> None:
    """The check fails for a store that has a part of a transaction, and for one that is too old."""
    from crash_hunt import change, check, expected

    states = expected(20)
    with richstore.open(tmp_path / "state", synchronous="off") as store:
        for n in range(1, 17):
            change(store, n)
    assert check(tmp_path / "state", states, 16, 16) == 16  # and does number 17
    with pytest.raises(AssertionError, match="not a state"):
        check(tmp_path / "state", states, 18, 20)
    with richstore.open(tmp_path / "state", synchronous="off") as store:
        store["log"].pop()
    with pytest.raises(AssertionError, match="not a state"):
        check(tmp_path / "state", states, 0, 20)


COPY = """
import sys, richstore
from recording import acknowledge

directory = sys.argv[1]
with richstore.open(f"{directory}/store", synchronous="off") as store:
    store["log"] = [[n] * 9 for n in range(900)]
    store.backup(f"{directory}/backup")
    del store["log"]
    store.backup(f"{directory}/small", compact=True)
with richstore.open(f"{directory}/target", synchronous="off") as store:
    store["old"] = True
richstore.restore(f"{directory}/backup", f"{directory}/target", replace=True)
"""


@pytest.mark.parametrize("name", ["backup", "small", "target"])
def test_a_copy_is_on_disk_when_it_has_its_name(recorder: Path, tmp_path: Path, name: str) -> None:
    """What backup and restore have written is synced, and then the directory with the name is."""
    directory = tmp_path / "stores"
    directory.mkdir()
    events = of_file(record(recorder, directory, ["-c", COPY, str(directory)]), directory / name)
    disk = Disk()
    for event in events:
        disk.do(event)
    content = (directory / name).read_bytes()
    assert len(content) > 8192
    assert disk.cache == content
    assert disk.durable == content
    kinds = "".join(event.kind for event in events)
    assert "D" in kinds[kinds.rindex("N") :]
    assert not set(kinds[kinds.rindex("N") :]) & set("WST"), "written after it had its name"
