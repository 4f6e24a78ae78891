"""Feed the strict reader with mutated input; `python fuzz_decoder.py [SECONDS [FAULT]]`.

With atheris installed it looks for inputs that reach new lines, otherwise it mutates at random.
Whatever is read, there is a value or a richstore error, in bounded time, and nothing is run or
imported. Prints how many inputs there were; an input that does anything else is written out as hex.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hostile
import hostile_gadgets
import sample_classes
from standard_values import STANDARD

import richstore
from richstore.codec import policy, records, strict
from richstore.codec.strict import opcodes
from richstore.nodes import FrozenView, frozen_value

ALLOWED = policy.policy_of([hostile_gadgets.Allowed, hostile_gadgets.Slotted, sample_classes])
POLICIES = (policy.NONE, ALLOWED)
NAME = hostile.EVIL
# Seconds of computing for one input, of at most so many bytes.
SLOW = 5.0
LARGEST = 20_000
# What reading may import: the files of time zones, and codecs of the standard library.
_IMPORTS = ("tzdata", "importlib", "encodings", "zoneinfo", "_strptime", "richstore")
_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "exec", "compile")

_seen: list[str] = []
_watching = False


class Found(Exception):
    """An input did what none may."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _EVENTS:
        _seen.append(event)
    elif event == "import" and not str(arguments[0]).startswith(_IMPORTS):
        _seen.append(f"import of {arguments[0]}")


class OneRecord:
    """A state of the engine in which there is one record."""

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def get(self, name: bytes) -> bytes | None:
        """Return the record under its name."""
        return self.stored if name == NAME else None

    def scan(self, *_: Any, **__: Any) -> Any:
        """Find no pages."""
        return iter(())


def with_checksum(body: bytes) -> bytes:
    """Return a record of mutated bytes: flags, and all behind the checksum."""
    return hostile.with_body(body[1:], body[0] & 15)[NAME] if body else b""


def read(data: bytes) -> None:
    """Read one input in all ways; raise `Found` for what may not be."""
    global _watching
    kind, data = (data[0], data[1:]) if data else (0, b"")
    allowed = POLICIES[kind & 1]
    begin = time.process_time()
    _watching = True
    try:
        if kind & 2:
            strict.load(data, allowed, document=True)
        else:
            stored = with_checksum(data)
            view = FrozenView(OneRecord(stored), frozen_value, allowed)
            richstore.plain(frozen_value(view, NAME, stored))
            strict.shape(records.parse(NAME, stored), allowed)
    except richstore.RichStoreError:
        pass
    except MemoryError:
        raise Found("MemoryError") from None
    except Exception as error:
        if not _is_users(error):
            raise Found(repr(error)) from error
    finally:
        _watching = False
    if _seen:
        raise Found(_seen.pop())
    if time.process_time() - begin > SLOW:
        raise Found(f"{time.process_time() - begin} seconds")


def _is_users(error: Exception) -> bool:
    """Tell whether an error comes from a class that is allowed, or from using what it made."""
    found = error.__traceback__
    while found is not None:
        if found.tb_frame.f_globals.get("__name__") == "sample_classes":
            return True
        if found.tb_frame.f_code.co_name == "user":
            return True
        found = found.tb_next
    # half a state of an allowed class; and what is nested too deep to be walked
    return isinstance(error, RecursionError)


def seeds() -> list[bytes]:
    """Return inputs from real records and pickles, and from hostile ones."""
    found: list[bytes] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "store")
        with richstore.open(path, synchronous="off", classes="any") as store:
            for name, value in STANDARD.items():
                store[name] = {"in": [value, value]}
            store["account"] = [sample_classes.Account("a"), sample_classes.SlotPoint(1)]
            store["list"] = sample_classes.Point(1, 2, [{"a": (1, "x")}, {2}])
            store["rows"] = [{"n": n} for n in range(300)]
            store[sample_classes.Color.RED] = sample_classes.Color.RED
            view = store._tracker.engine.read()
            for _, stored in view.scan(hostile.ROOT, b"\x24"):
                found += [bytes((kind, stored[1])) + stored[6:] for kind in (0, 1)]
            view.close()
    for value in STANDARD.values():
        found += [b"\2" + pickle.dumps(value, protocol) for protocol in (3, 5)]
    for make in hostile.CASES.values():
        stored = make().get(hostile.EVIL)
        if stored is not None and len(stored) < 2000:
            found.append(bytes((1, stored[1])) + stored[6:])
    return [one for one in found if len(one) < LARGEST]


OPCODES = bytes(code for code in range(256) if strict.Reader.handlers[code] is not opcodes.refused)


def mutated(source: random.Random, inputs: list[bytes]) -> bytes:
    """Return an input with some changes."""
    data = bytearray(source.choice(inputs))
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        at = source.randrange(len(data) + 1)
        way = source.randrange(7)
        if way == 0 and at < len(data):
            data[at] = source.randrange(256)
        elif way == 1 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif way == 2:
            data[at:at] = bytes((source.choice(OPCODES),))
        elif way == 3:
            del data[at : at + source.randrange(1, 9)]
        elif way == 4:
            other = source.choice(inputs)
            start = source.randrange(len(other))
            data[at:at] = other[start : start + source.randrange(1, 64)]
        elif way == 5:
            end = at + source.randrange(1, 64)
            data[at:at] = data[at:end] * source.choice((1, 2, 50))
        else:
            size = source.choice((1, 2, 4, 8))
            number = source.choice((0, 1, 127, 255, 1 << 15, (1 << 31) - 1, (1 << 63) - 1))
            data[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return bytes(data[:LARGEST])


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "every class is found": hostile.FAULTS["every class is found"],
    "tables are believed": hostile.FAULTS["tables are believed"],
}


def at_random(seconds: float, seed: int) -> int:
    """Read mutated inputs for some time; return how many."""
    source = random.Random(seed)
    inputs = seeds()
    for one in inputs:
        check(one)
    count = len(inputs)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check(mutated(source, inputs))
        count += 1
    return count


def check(data: bytes) -> None:
    """Read one input, and show it when it does what none may."""
    try:
        read(data)
    except Found:
        print(f"input: {data.hex()}", flush=True)
        raise


def main(seconds: float, fault: str) -> None:
    """Fuzz for some time, by the means that there are."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CANARY"] = f"{directory}/canary"
        inputs = seeds()
        for one in inputs:
            # what the standard library loads when it is used is loaded
            try:
                read(one)
            except Found:
                _seen.clear()
        if fault:
            setattr(FAULTS[fault][0], *FAULTS[fault][1:])
        sys.addaudithook(_watch)
        try:
            import atheris
        except ImportError:
            print(f"{at_random(seconds, int(seconds))} inputs", flush=True)
            return
        for at, one in enumerate(inputs):
            Path(directory, f"{at}").write_bytes(one)
        ours = (strict.__name__, records.__name__)
        modules = [module for name, module in sys.modules.items() if name.startswith(ours)]
        functions = {
            one
            for owner in (*modules, *strict.Reader.__mro__)
            for one in vars(owner).values()
            if hasattr(one, "__code__") and one.__module__.startswith(ours)
        }
        for one in functions:
            atheris.instrument_func(one)
        arguments = [sys.argv[0], f"-max_total_time={int(seconds)}", f"-max_len={LARGEST}"]
        atheris.Setup([*arguments, "-rss_limit_mb=4096", directory], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, "".join(sys.argv[2:]))
