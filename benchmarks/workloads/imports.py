"""How long `import richstore` takes over what it needs, each in a fresh interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import Result, Scale, Timed, interleave

__all__ = ["imports"]

_NEEDED = "import lmdb, wrapt, cloudpickle"
_SCRIPT = """
from time import perf_counter
start = perf_counter()
{source}
print(perf_counter() - start)
"""


def imports(directory: Path, scale: Scale) -> list[Result]:
    """Time the import, of compiled modules as installed packages have them."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    found = interleave(
        {
            "ours": _importing(f"{_NEEDED}, richstore", environment),
            "needed": _importing(_NEEDED, environment),
        },
        scale.processes,
    )
    over = [1e3 * (a - b) for a, b in zip(found["ours"], found["needed"], strict=True)]
    return [
        Result(
            "Import",
            "`import richstore`",
            f"over `{_NEEDED}`",
            statistics.median(over),
            unit="ms",
            limit=60.0,
            seconds=(statistics.median(found["ours"]), statistics.median(found["needed"])),
            rounds=over,
        )
    ]


def _importing(source: str, environment: dict[str, str]) -> Timed:
    def run() -> float:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT.format(source=source)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout)

    return run
