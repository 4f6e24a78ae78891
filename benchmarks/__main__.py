"""The command: run the workloads, print the tables, keep the JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.adapters import PEERS
from benchmarks.timing import Result, Scale
from benchmarks.workloads import WORKLOADS

QUICK = Scale(rounds=7, sync_rounds=31, reads=4_000, writes=100, syncs=2, processes=5, values=1_000)


def main(arguments: list[str]) -> int:
    """Run the benchmarks; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; half a minute or so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures here")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the tables into this Markdown page"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        help="where the files are made; should be on the disk that you care about (default: the "
        "system's directory for temporary files)",
    )
    parser.add_argument(
        "--only", choices=list(WORKLOADS), action="append", help="run this workload; repeatable"
    )
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else Scale()
    left_out = [peer.name for peer in PEERS if not peer.installed()]
    results: list[Result] = []
    for name in options.only or WORKLOADS:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmarks-") as place:
            results += WORKLOADS[name](Path(place), scale)
    tables = report.table(results)
    print(tables)
    if left_out:
        print(f"Left out, since not installed: {', '.join(left_out)}.")
    over = [f"{result.name} ({result.group})" for result in results if not result.holds]
    if over:
        print(f"Over the limit: {'; '.join(over)}.")
    if options.page is not None:
        report.update_page(options.page, tables)
    if options.json is not None:
        report.write(options.json, results, scale, left_out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
