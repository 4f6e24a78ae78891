"""Fixtures of the behaviour tests: stores on both engines, and checks that hold for every test.

`box` is an open store that knows how to be closed and opened again; `store` is its store, for
tests that never reopen. After each test the store is verified. `page` runs a test with the default
page target and with a tiny one. `canonical` compares values by content and by shared references.
"""

from __future__ import annotations

import collections
import enum
import gc
import io
import os
import signal
import subprocess
import sys
import threading
import types
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, settings

HERE = str(Path(__file__).parent)
TINY = 64  # bytes: a page target at which nearly every container spreads over many records
if HERE not in sys.path:  # so that tests and their subprocesses import sample_classes by name
    sys.path.insert(0, HERE)

from disks import small_disk  # noqa: E402, F401 - a fixture
from document_places import place, proxied, proxy, s3, s3_server  # noqa: E402, F401 - fixtures

RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci",
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=RELAXED,
    print_blob=True,
)
settings.register_profile(
    "long", parent=settings.get_profile("ci"), max_examples=20_000, stateful_step_count=80
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --long, --all, --part and --encrypted."""
    parser.addoption(
        "--long", action="store_true", help="run the property tests for hours instead of seconds"
    )
    parser.addoption(
        "--all", action="store_true", help="run every case again with the page target forced tiny"
    )
    parser.addoption(
        "--encrypted", action="store_true", help="give a key to every store that has none"
    )
    parser.addoption(
        "--part", action="store_true", help="run a twentieth of all tests, another on each version"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make warnings errors and choose the Hypothesis profile."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # as a job in the background of a shell has it; tests interrupt themselves
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("markers", "timeout(seconds): a limit, kept by pytest-timeout")
    config.addinivalue_line("markers", "may_leak: skip the check for leaked files and threads")
    config.addinivalue_line("markers", "may_damage: skip the check of the store after the test")
    if config.getoption("--encrypted"):
        _encrypt_all()
    settings.load_profile("long" if config.getoption("--long") else "ci")


def _encrypt_all() -> None:
    """Give a key to every store that is opened without one; the names of keys stay in order."""
    import richstore

    usual = richstore.open

    def open_encrypted(*arguments: Any, **options: Any) -> Any:
        return usual(*arguments, **{"key": bytes(32), "encrypt_keys": False, **options})

    richstore.open = open_encrypted


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for no doctests in the tests: it takes as long as everything else before they begin."""
    found = yield
    return [one for one in found if not isinstance(one, DoctestModule)]


# Modules about values that spread over many records, which is above the engines.
SPREAD = ("building", "big", "big_changes", "big_keys", "streaming")


def _repeats(item: pytest.Item) -> bool:
    """Tell whether a case only repeats another on spread values or, with them, on memory."""
    parameters = getattr(item, "callspec", None)
    if parameters is None:
        return False
    if "tiny" in item.name or "test_big_parity" in item.nodeid:
        return True
    return parameters.params.get("box") == "memory" and item.path.stem[5:] in SPREAD


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run, without --long or --all, an eighth of the cases that only repeat others; with --part
    a twentieth of what is left.
    """

    def is_left_out(item: pytest.Item) -> bool:
        number = zlib.crc32(item.nodeid.encode())
        if config.getoption("--part") and number % 20 != sys.version_info.minor % 20:
            return True
        return not is_full and number // 12 % 8 != 0 and _repeats(item)

    is_full = config.getoption("--long") or config.getoption("--all")
    left = list(filter(is_left_out, items))
    if left:
        config.hook.pytest_deselected(items=left)
        names = set(map(id, left))
        items[:] = [item for item in items if id(item) not in names]


class Box:
    """An open store that can be closed and opened again, on either engine."""

    def __init__(self, target: str, **options: Any) -> None:
        self.target = target
        self.options = {"synchronous": "off", **options}
        self.store = self.open()

    @property
    def in_memory(self) -> bool:
        return self.target == "memory:"

    def open(self, **options: Any) -> Any:
        import richstore

        return richstore.open(self.target, **{**self.options, **options})

    def reopen(self) -> Any:
        """Close the store and return a new one on the same file (memory: the same store)."""
        if not self.in_memory:
            self.store.close()
            self.store = self.open()
        return self.store

    def live_and_reopened(self) -> Iterator[Any]:
        """Yield the store as it is, then the store opened again (memory: once)."""
        yield self.store
        if not self.in_memory:
            yield self.reopen()

    def stored(self, key: Any) -> Any:
        """Return the plain value under `key`, decoded anew from what the engine holds."""
        import richstore

        if self.in_memory:
            with self.store.snapshot() as view:
                return richstore.plain(view[key])
        return richstore.plain(self.reopen()[key])


def check_store(store: Any) -> None:
    """Fail when a store has a record that is damaged, missing, unreachable or doubly owned."""
    report = store.verify()
    assert report.ok, "\n".join(report.problems)
    assert report.problems == []
    assert report.unreachable == 0


def _check_after_test(request: pytest.FixtureRequest, made: Box) -> None:
    """Verify the store of a test, unless the test closed it, damaged it or is still in a block."""
    from richstore.transaction import current

    if request.node.get_closest_marker("may_damage") or made.store.closed:
        return
    if current(made.store._tracker) is None:
        check_store(made.store)


@pytest.fixture(params=["default", "tiny"])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the default page target, and with one at which small values spread.

    A module takes it with `pytestmark = pytest.mark.usefixtures("page")`; the file format does not
    depend on the target.
    """
    name: str = request.param
    if name == "tiny":
        paging = pytest.importorskip("richstore.paging", reason="values spread over no pages yet")
        monkeypatch.setattr(paging, "PAGE", TINY)
    return name


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a store file that does not exist yet."""
    return str(tmp_path / "test.db")


@pytest.fixture(params=["lmdb", "memory"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """An open, empty store on each engine, with a way to reopen it."""
    target = "memory:" if request.param == "memory" else str(tmp_path / "test.db")
    made = Box(target)
    try:
        yield made
        _check_after_test(request, made)
    finally:
        made.store.close()


@pytest.fixture
def file_box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """An open, empty store on LMDB."""
    made = Box(str(tmp_path / "test.db"))
    try:
        yield made
        _check_after_test(request, made)
    finally:
        made.store.close()


@pytest.fixture
def store(box: Box) -> Any:
    """An open, empty store on each engine."""
    return box.store


def _open_files() -> set[str]:
    """Name the files this process holds open (without pipes and sockets)."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the descriptor of the listing itself
            continue
        if name.startswith("/") and not name.startswith(("/dev/", "/proc/")):
            found.add(name)
    return found


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a file open or a thread running."""
    if request.node.get_closest_marker("may_leak") or not os.path.isdir("/proc/self/fd"):
        yield
        return
    files, threads = _open_files(), set(threading.enumerate())
    yield
    if _open_files() - files:
        gc.collect()
    assert not _open_files() - files, "the test left files open"
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive(), f"the test left {thread} running"


def _attributes(x: Any) -> dict[str, Any]:
    """Return the instance attributes of `x`, those in slots too."""
    found = dict(getattr(x, "__dict__", {}))
    for cls in type(x).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if hasattr(x, name) and not name.startswith("__"):
                found[name] = getattr(x, name)
    return {name: item for name, item in found.items() if not isinstance(item, _LOCK)}


_LOCK = type(threading.Lock())
_ATOMS = frozenset((int, float, complex, str, bytes, bool, type(None)))
_PLAIN = frozenset((list, dict, set, tuple))  # have no attributes
_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, enum.Enum)


def canonical(value: Any) -> Any:
    """Return a form of `value` that two values share iff content and aliasing are the same.

    Mutable containers and instances are numbered in the order in which they are met; a second
    meeting is a reference to the number. Sets are compared as sets, by their elements' equality.
    """
    numbers: dict[int, int] = {}
    keep: list[Any] = []

    def content(x: Any) -> list[Any]:
        if isinstance(x, (list, tuple, collections.deque)):
            return [*map(walk, x), getattr(x, "maxlen", None)]
        if isinstance(x, dict):
            return [(walk(k), walk(v)) for k, v in x.items()]
        if isinstance(x, set):
            return [frozenset(x)]
        if isinstance(x, BaseException):
            return [walk(x.args)]
        if hasattr(x, "tobytes"):  # array.array and numpy.ndarray
            return [str(getattr(x, "dtype", "")), getattr(x, "shape", len(x)), x.tobytes()]
        if isinstance(x, io.BytesIO):
            return [x.getvalue(), x.tell()]
        return [bytes(x)] if isinstance(x, bytearray) else []

    def walk(x: Any) -> Any:
        if type(x) in _ATOMS:
            return (type(x).__name__, x)
        kind, attributes = x.__class__.__name__, {} if type(x) in _PLAIN else _attributes(x)
        if isinstance(x, (slice, range, types.GenericAlias)):
            return (kind, repr(x))
        if isinstance(x, frozenset):
            return (kind, x)
        if isinstance(x, _CODE):
            return (kind, x.__name__ if hasattr(x, "__name__") else str(x))
        if type(x).__module__.split(".")[0] in (
            "datetime",
            "uuid",
            "decimal",
            "pathlib",
            "re",
            "fractions",
        ):
            return (kind, x)
        if not attributes and isinstance(x, (int, float, complex, str, bytes, type(None))):
            return (kind, x)
        if isinstance(x, tuple):  # equal tuples may be one or two objects
            return (kind, *content(x))
        if id(x) in numbers:
            return ("seen", numbers[id(x)])
        number = numbers[id(x)] = len(numbers)
        keep.append(x)
        state = [(name, walk(item)) for name, item in sorted(attributes.items())]
        atom = x + 0 if isinstance(x, int) else str(x) if isinstance(x, str) else None
        return (kind, number, atom, *content(x), *state)

    return walk(value)


def child_environment() -> dict[str, str]:
    """Return the environment in which a child process finds richstore and the sample classes."""
    import richstore

    paths = [HERE, str(Path(richstore.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def raw(path: str) -> dict[bytes, bytes]:
    """Return what the file has, as it is stored."""
    from richstore.engines.lmdb import open_lmdb

    below = open_lmdb(path, "r", synchronous="full", timeout=None)
    view = below.read()
    try:
        return dict(view.scan(b"\0", None))
    finally:
        view.close()
        below.close()


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python process to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=child_environment(),
    )


@pytest.fixture
def run_thread() -> Callable[[Callable[[], Any]], Any]:
    """Return a function that runs another in a thread and returns or raises what it did."""

    def run(function: Callable[[], Any], seconds: float = 10) -> Any:
        result: list[Any] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                result.append(function())
            except BaseException as error:  # raised again in the caller's thread
                failure.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        thread.join(seconds)
        assert not thread.is_alive(), "the thread did not finish"
        if failure:
            raise failure[0]
        return result[0]

    return run
