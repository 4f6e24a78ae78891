"""Several processes on one file: diskcache's mix of gets, sets and deletes; appends to a list."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.adapters import Adapter
from benchmarks.bench import Bench
from benchmarks.processes import Worker

__all__ = ["FOUR", "appends", "mix"]

FOUR = 4


def mix(bench: Bench) -> None:
    """Time gets, sets and deletes, 100 : 10 : 1, by one process and by four."""
    scale = bench.scale
    groups: list[tuple[type[Adapter], int, list[Worker]]] = []
    for kind in bench.peers:
        place = bench.place(kind)
        first = bench.worker(kind, place, "off", hold=False)
        if first is None:
            continue
        if bench.attempt(kind, "filling", partial(first.ask, "fill")) is None:
            continue
        groups.append((kind, 1, [first]))
        if bench.able(kind, "processes", f"{FOUR} processes"):
            groups.append((kind, FOUR, [first, *_more(bench, kind, place)]))
    found: dict[tuple[str, int, str], list[float]] = {}
    for turn in range(scale.contests):
        for kind, number, workers in groups:
            arguments = [
                {"count": scale.mix // number, "seed": 10 * turn + at} for at in range(len(workers))
            ]
            done = bench.attempt(
                kind, f"mix, {number} processes", partial(_together, workers, "mix", arguments)
            )
            if done is None:
                continue
            seconds, answers = done
            operations = sum(answer["operations"] for answer in answers)
            found.setdefault((kind.name, number, "mix"), []).append(operations / seconds)
            for label in ("get", "set", "delete"):
                times = [answer[label] for answer in answers if label in answer]
                if times:
                    found.setdefault((kind.name, number, label), []).append(sum(times) / len(times))
    for kind, number, _ in groups:
        for label, unit in (("mix", "ops/s"), ("get", "s"), ("set", "s"), ("delete", "s")):
            samples = found.get((kind.name, number, label))
            if samples:
                bench.add(label, "processes", number, "off", kind, unit, samples)
    bench.say(f"mix: {len(groups)} in turns")
    _give(bench, groups)


def appends(bench: Bench) -> None:
    """Time appends to one list by one process and by four, and look for what was lost."""
    scale = bench.scale
    groups: list[tuple[type[Adapter], int, list[Worker]]] = []
    for kind in bench.peers:
        if not bench.able(kind, "processes", f"{FOUR} processes") or not bench.able(
            kind, "appends", f"appends by {FOUR} processes"
        ):
            continue
        place = bench.built(kind, "list", 0)
        first = None if place is None else bench.worker(kind, place, "off", hold=False)
        if first is None or place is None:
            continue
        groups.append((kind, 1, [first]))
        groups.append((kind, FOUR, [first, *_more(bench, kind, place)]))
    marks: dict[str, dict[str, int]] = {}
    found: dict[tuple[str, int], list[float]] = {}
    for turn in range(scale.contests + 1):
        for kind, number, workers in groups:
            first_mark = turn * 100 + number * 10
            sent = {f"{first_mark + at}": scale.appends // number for at in range(number)}
            arguments = [{"count": count, "mark": int(mark)} for mark, count in sent.items()]
            done = bench.attempt(
                kind, f"appends by {number}", partial(_together, workers, "append_many", arguments)
            )
            if done is None:
                continue
            marks.setdefault(kind.name, {}).update(sent)
            if turn:  # the first one warms up
                found.setdefault((kind.name, number), []).append(sum(sent.values()) / done[0])
    for kind, number, workers in groups:
        samples = found.get((kind.name, number))
        if samples:
            bench.add("append by processes", "processes", number, "off", kind, "ops/s", samples)
        if number == 1 and kind.name in marks:
            kept = bench.attempt(kind, "counting", partial(workers[0].ask, "count_marks"))
            if kept is not None:
                lost = sum(
                    kept.get(mark) != list(range(count)) for mark, count in marks[kind.name].items()
                )
                bench.add("runs of appends not whole", "processes", FOUR, "off", kind, "", [lost])
    bench.say(f"appends: {len(groups)} in turns")
    _give(bench, groups)


def _more(bench: Bench, kind: type[Adapter], place: Path) -> list[Worker]:
    """Return the other workers of four, on the same file."""
    more = [bench.worker(kind, place, "off", hold=False) for _ in range(FOUR - 1)]
    return [worker for worker in more if worker is not None]


def _together(
    workers: list[Worker], task: str, arguments: list[dict[str, int]]
) -> tuple[float, list[dict[str, float]]]:
    """Have workers do a task at the same time; return the seconds until the last is done."""
    start = perf_counter()
    for worker, each in zip(workers, arguments, strict=True):
        worker.send(task, **each)
    answers = [worker.receive() for worker in workers]
    return perf_counter() - start, answers


def _give(bench: Bench, groups: list[tuple[type[Adapter], int, list[Worker]]]) -> None:
    for _, number, workers in groups:
        for worker in workers if number == 1 else workers[1:]:
            bench.pool.give(worker)
