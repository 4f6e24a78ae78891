"""Processes some of whose system calls fail, as those of a broken disk do; strace does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import child_environment

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def run_failing(
    code: str, *arguments: str | Path, call: str, error: str, when: str, only: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, some of whose system calls fail.

    Args:
        code: what runs.
        arguments: what it finds in `sys.argv`.
        call: the name of the system call.
        error: the name of the error that it fails with.
        when: which of the calls fail, as strace has it: `"3"`, or `"6+4"` for every fourth from
            the sixth on.
        only: the files whose calls are meant; all when there are none.
    """
    command = [
        # the kernel picks the calls that are meant, so that all others are as fast as ever
        "strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null",
        *(word for path in only for word in ("-P", path)), "-e", f"trace={call}",
        "-e", f"inject={call}:error={error}:when={when}",
        sys.executable, "-c", code, *map(str, arguments),
    ]  # fmt: skip
    # what Python writes for itself would be counted, the first time
    environment = {**child_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    return done
