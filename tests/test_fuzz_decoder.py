"""The strict reader under mutated input: a value or a clear error, and nothing is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import child_environment
from hypothesis import given
from hypothesis import strategies as st

import richstore
from richstore.codec import policy, strict

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(5000)


def fuzz(seconds: float, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run `fuzz_decoder.py`."""
    return subprocess.run(
        [sys.executable, str(HERE / "fuzz_decoder.py"), str(seconds), fault],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )


def test_mutated_input_is_a_value_or_a_clear_error(request: pytest.FixtureRequest) -> None:
    """Mutated records and pickles run and import nothing, and end in a value or richstore error.

    Three seconds, beside a minute of its own in CI; an hour with --long, under atheris where it is
    installed.
    """
    done = fuzz(3600 if request.config.getoption("--long") else 3)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.parametrize("fault", ["every class is found", "tables are believed"])
def test_the_fuzzer_finds_planted_faults(fault: str) -> None:
    """Planted fault: with a check taken away, it finds an input that does what none may."""
    done = fuzz(60, fault)
    assert done.returncode != 0 and "input: " in done.stdout


PARTS = st.sampled_from([bytes((code,)) for code in range(256)]) | st.sampled_from(
    [
        b"\x8c\x02os\x8c\x06system\x93",
        b"\x8c\x08builtins\x8c\x07getattr\x93",
        b"\x8c\x0bcollections\x8c\x05deque\x93)R",
        b"\x8c\x04uuid\x8c\x04UUID\x93)\x81",
        b"](K\x01e",
        b"}(\x8c\x01aK\x01u",
        b"q\x00",
        b"h\x00",
    ]
)


@given(parts=st.lists(PARTS, max_size=30))
def test_any_opcodes_are_a_value_or_a_clear_error(parts: list[bytes]) -> None:
    """Opcodes in any order are a value or a richstore error."""
    try:
        strict.load(b"".join(parts) + b".", policy.NONE, document=True)
    except richstore.RichStoreError as error:
        assert str(error)
