"""Power loss, rehearsed on a file system that is shut down under a writer, and mounted again.

An ext4 image on a loop device is told to stop at once, with its journal written or not. What it
held back is gone then, as with the power. Needs root, a loop device and ext4.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import check_store, child_environment

import richstore

plain = richstore.plain

# `_IOR('X', 125, __u32)`, and its flags
SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
WITH_JOURNAL, WITHOUT_JOURNAL = 1, 2

# A line on standard output for each change that has returned.
WRITER = """
import os, sys
import richstore

store = richstore.open(sys.argv[1], synchronous=sys.argv[2])
if "log" not in store:
    with store.transaction():
        store["log"], store["table"], store["sum"] = [], {}, 0
n = len(store["log"])
while True:
    with store.transaction():
        store["log"].append((n, "x" * (n * 37 % 500)))
        store["table"][n % 40] = [n] * (n * 11 % 300)
        store["sum"] = store["sum"] + n
    os.write(1, b"%d\\n" % n)
    n += 1
"""


class Disk:
    """A file system in an image, with a loop device of its own."""

    def __init__(self, directory: Path) -> None:
        self.image, self.at = directory / "image", directory / "disk"
        self.at.mkdir()
        self.device = ""
        self.is_mounted = False

    def make(self) -> None:
        """Make the file system and the device; skip the test where that is not possible."""
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("a file system can be made and shut down by root on Linux only")
        if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
            pytest.skip("mkfs.ext4 and losetup are not installed")
        with self.image.open("wb") as file:
            file.truncate(48 << 20)
        run("mkfs.ext4", "-q", "-F", str(self.image))
        done = subprocess.run(
            ["losetup", "--find", "--show", str(self.image)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"there is no loop device: {done.stderr.strip()}")
        self.device = done.stdout.strip()
        try:
            self.mount()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"an ext4 image cannot be mounted: {error.stderr}")

    def mount(self) -> None:
        # what is not synced stays in memory for an hour, and not for five seconds
        run("mount", "-o", "commit=3600", self.device, str(self.at))
        self.is_mounted = True

    def unmount(self) -> None:
        if self.is_mounted:
            run("umount", str(self.at))
            self.is_mounted = False

    def shut_down(self, how: int) -> None:
        """Let nothing more come to the device."""
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Unmount, and give the device back, whatever happened."""
        with contextlib.ExitStack() as stack:
            if self.device:
                stack.callback(run, "losetup", "--detach", self.device)
            if self.is_mounted:
                stack.callback(run, "umount", "-l", str(self.at))


def run(*command: str) -> None:
    """Run a command of the system; it fails the test when it fails."""
    subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system that can be shut down."""
    made = Disk(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def acknowledged_before_shutdown(
    disk: Disk, synchronous: str, how: int, dice: random.Random
) -> int:
    """Write for a moment, stop, shut the file system down, and return what was acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(disk.at / "store"), synchronous],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    assert writer.stdout is not None
    try:
        # from the first change on
        assert select.select([writer.stdout], [], [], 30)[0], "the writer did not begin"
        time.sleep(dice.random() * 0.3)
        writer.send_signal(signal.SIGSTOP)
        state = os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert state is not None and state.si_code == os.CLD_STOPPED, "the writer has ended"
        disk.shut_down(how)
    finally:
        writer.kill()
        lines = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait(30)
    disk.unmount()
    disk.mount()
    return int(lines[-1])


def check(disk: Disk, acknowledged: int) -> None:
    """See that the store is well and has every acknowledged change, and that it can be changed."""
    with richstore.open(disk.at / "store", "w") as store:
        check_store(store)
        log = [n for n, _ in plain(store["log"])]
        assert log == list(range(len(log)))
        assert len(log) > acknowledged, f"{acknowledged + 1 - len(log)} changes are lost"
        assert store["sum"] == sum(log)
        last = {n % 40: [n] * (n * 11 % 300) for n in log}
        assert plain(store["table"]) == last
        store["checked"] = True


@pytest.mark.timeout(0)
@pytest.mark.parametrize("how", [WITH_JOURNAL, WITHOUT_JOURNAL])
def test_full_loses_nothing(disk: Disk, how: int, request: pytest.FixtureRequest) -> None:
    """In `full` every acknowledged change is there when the file system is mounted again."""
    dice = random.Random(how)
    for _ in range(50 if request.config.getoption("--long") else 3):
        check(disk, acknowledged_before_shutdown(disk, "full", how, dice))


@pytest.mark.timeout(0)
def test_normal_loses_the_last_change_at_most(disk: Disk, request: pytest.FixtureRequest) -> None:
    """In `normal` the store is well, and at most the last change is missing."""
    dice = random.Random(3)
    for _ in range(50 if request.config.getoption("--long") else 3):
        check(disk, acknowledged_before_shutdown(disk, "normal", WITHOUT_JOURNAL, dice) - 1)


def test_a_missing_sync_is_found(disk: Disk) -> None:
    """The check fails when nothing was synced: in `off` the changes are not there."""
    check(disk, acknowledged_before_shutdown(disk, "full", WITHOUT_JOURNAL, random.Random(4)))
    acknowledged = acknowledged_before_shutdown(disk, "off", WITHOUT_JOURNAL, random.Random(5))
    with pytest.raises((AssertionError, richstore.RichStoreError, OSError)):
        check(disk, acknowledged)
