"""The command: run the workloads, keep the JSON, make the page from it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from time import monotonic

from benchmarks import page, report
from benchmarks.adapters import ADAPTERS, Floor, RichStore
from benchmarks.bench import Bench
from benchmarks.timing import Scale
from benchmarks.workloads import WORKLOADS

QUICK = Scale(
    rounds=7,
    sync_rounds=15,
    reads=4_000,
    writes=100,
    syncs=2,
    processes=5,
    values=1_000,
    sizes=(10, 1_000, 20_000),
    rows=(10_000,),
    turn=0.005,
    turn_count=100,
    budget=0.05,
    most=9,
    shots=3,
    mix=500,
    appends=300,
    contests=3,
    churn=1_000,
    churns=3,
)


def main(arguments: list[str]) -> int:
    """Run the benchmarks; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.from_ is not None:
        run = report.read(options.from_)
    else:
        began = monotonic()
        scale = QUICK if options.quick else Scale()
        if options.sizes:
            scale = dataclasses.replace(scale, sizes=tuple(sorted(set(options.sizes))))
        names = options.peers or list(ADAPTERS)
        chosen = [kind for name, kind in ADAPTERS.items() if name in names or kind in _ALWAYS]
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmarks-") as place:
            bench = Bench(Path(place), scale, chosen)
            try:
                for name in options.only or WORKLOADS:
                    minutes = (monotonic() - began) / 60
                    print(f"{name} … ({minutes:.1f} min)", file=sys.stderr, flush=True)
                    bench.workload = name
                    WORKLOADS[name](bench)
            finally:
                bench.close()
            # the page is made from what is kept, so that the two cannot differ
            kept = options.json or Path(place) / "run.json"
            report.write(kept, bench, monotonic() - began)
            run = report.read(kept)
    print(page.summary(run))
    over = [f"{result.name} ({result.group})" for result in run.results if not result.holds]
    if over:
        print(f"Over the limit: {'; '.join(over)}.")
    for note in run.notes:
        if note.workload == "all":
            print(f"Left out: {note.peer}: {note.why}.")
    if options.page is not None:
        page.update(options.page, run)
    return 0


_ALWAYS = (RichStore, Floor)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures here")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="put the tables into this Markdown page, and the plots into a directory beside it",
    )
    parser.add_argument(
        "--from",
        dest="from_",
        type=Path,
        metavar="FILE",
        help="run nothing; make the page from these raw figures",
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
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(float(each)) for each in text.split(",")],
        help="items of the lists, dicts and sets, as 10,1000,1e5",
    )
    parser.add_argument(
        "--peers",
        type=lambda text: text.split(";"),
        help=f"compare with these alone, separated by semicolons, of {'; '.join(ADAPTERS)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
