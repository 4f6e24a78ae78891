"""The first process: fill a store from source files, let a second process change it, look again.

It never empties a file that the demo did not make.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import richstore
from richstore.demo.contents import (
    ABOUT,
    LINES,
    Example,
    choose_example,
    is_demo_store,
    package_key,
)
from richstore.demo.index import Package, describe, find_modules, module_name, standard_library
from richstore.demo.progress import Progress

__all__ = ["run"]

BATCH = 50


def run(path: Path | None, source: Path | None) -> int:
    """Run the demo and return the exit status.

    Args:
        path: the file to fill; None makes one in a new temporary directory.
        source: the directory whose modules are indexed; None means the standard library.
    """
    if path is not None and path.exists() and not is_demo_store(path):
        print(
            f"richstore demo: {path} exists and was not made by this demo, so it is left alone."
            " Name a file that does not exist yet.",
            file=sys.stderr,
        )
        return 2
    root = standard_library() if source is None else source
    paths = find_modules(root)
    if not paths:
        print(f"richstore demo: no Python modules in {root}", file=sys.stderr)
        return 2
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="richstore-demo-"), "stdlib.db")

    with richstore.open(path, "n") as store:
        print(f"Indexing {len(paths)} modules of {root}\ninto {path}", flush=True)
        _fill(store, root, paths)
        _store_lines(store, paths)
        print(f"  {path.stat().st_size:,} bytes in the file")
        try:
            example = choose_example(store)
        except LookupError as error:
            print(f"richstore demo: {error}: nothing to show to a second process", file=sys.stderr)
            return 1
        status = _share(store, path, example)
    print(f"\nThe file is kept. Look into it:\n{_invitation(path, example)}")
    return status


def _fill(store: richstore.Store, root: Path, paths: list[Path]) -> None:
    started = time.perf_counter()
    storing = 0.0
    packages = _package_names(root, paths)
    store[ABOUT] = {"python": platform.python_version(), "packages": [], "unparsed": {}}
    with Progress(len(paths), "modules") as progress:
        for begin in range(0, len(paths), BATCH):
            modules: dict[str, dict[str, Any]] = {}
            unparsed: dict[str, str] = {}
            for path in paths[begin : begin + BATCH]:
                name = module_name(root, path)
                try:
                    modules[name] = describe(root, path)
                except (OSError, SyntaxError, ValueError, RecursionError) as error:
                    unparsed[str(path)] = f"{type(error).__name__}: {error}"
                progress.step(name)
            before = time.perf_counter()
            _store_batch(store, modules, unparsed, packages)
            storing += time.perf_counter() - before
    _summarize(store, time.perf_counter() - started, storing)


def _package_names(root: Path, paths: list[Path]) -> set[str]:
    return {
        module_name(root, path)
        for path in paths
        if path.name == "__init__.py" and path.parent != root
    }


def _store_batch(
    store: richstore.Store,
    modules: dict[str, dict[str, Any]],
    unparsed: dict[str, str],
    packages: set[str],
) -> None:
    """Store a batch of modules, all or nothing: one transaction, so one wait for the disk."""
    with store.transaction():
        store[ABOUT]["unparsed"].update(unparsed)
        for name, module in modules.items():
            store[name] = module
            package = name if name in packages else name.rpartition(".")[0]
            if package not in packages:
                continue
            key = package_key(package)
            if key not in store:
                store[key] = Package(package)
                store[ABOUT]["packages"].append(package)
            store[key].add(name, module["lines"], module["size"])


def _summarize(store: richstore.Store, seconds: float, storing: float) -> None:
    counts = dict.fromkeys(("modules", "functions", "classes", "methods", "bytes"), 0)
    about = store[ABOUT]
    for key, module in store.items():
        if not isinstance(key, str):
            continue
        counts["modules"] += 1
        counts["functions"] += len(module["functions"])
        counts["classes"] += len(module["classes"])
        counts["methods"] += sum(len(each["methods"]) for each in module["classes"].values())
        counts["bytes"] += module["size"]
    print(
        f"\n  {counts['modules']:,} modules, {len(about['packages']):,} of them packages that are"
        " stored as instances of an ordinary class"
        f"\n  {counts['functions']:,} functions, {counts['classes']:,} classes,"
        f" {counts['methods']:,} methods"
        f"\n  {counts['bytes']:,} bytes of source in {seconds:.1f} s,"
        f" {storing:.1f} s of it for storing, durably"
    )
    print(f"  {len(about['unparsed'])} files could not be parsed")
    for name, reason in sorted(about["unparsed"].items()):
        print(f"    {name}: {reason}")


def _store_lines(store: richstore.Store, paths: list[Path]) -> None:
    """Store every line of all modules in one list, built from a generator."""
    total = sum(module["lines"] for key, module in store.items() if isinstance(key, str))
    started = time.perf_counter()
    with (
        Progress(total, "lines") as progress,
        store.transaction(progress=lambda items, size: progress.reach(items, f"{size:,} bytes")),
    ):
        store[LINES] = (line for path in paths for line in _lines(path))
    seconds = time.perf_counter() - started
    count = len(store[LINES])
    started = time.perf_counter()
    middle = store[LINES][count // 2]
    found = (time.perf_counter() - started) * 1000
    print(f"  {count:,} lines in one list of the store, in {seconds:.1f} s;")
    print(f"  the one in the middle, read in {found:.1f} ms: {middle.strip()[:50]!r}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _share(store: richstore.Store, path: Path, example: Example) -> int:
    """Run the second process and show that references held from before see what it did."""
    methods = store[example.module]["classes"][example.class_name]["methods"]
    package = store[package_key(example.package)]
    held = len(methods)
    print(f"\nThis process ({os.getpid()}) holds a list in the store, {held} methods long,")
    print(f"and {package!r}. It starts a second process.\n", flush=True)
    command = [sys.executable, "-m", "richstore", "demo", "--second", os.fspath(path)]
    second = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if second.returncode:
        print(f"richstore demo: the second process failed ({second.returncode})", file=sys.stderr)
        return 1
    store.refresh()
    print(f"\nBack in this process ({os.getpid()}), through the references it held all along:")
    print(f"  the list has {len(methods)} methods, the last is {methods[-1]!r}")
    print(f"  the package: reviewed={package.reviewed}, notes={package.notes}")
    if len(methods) != held + 1 or not package.reviewed:
        print("richstore demo: the changes of the second process are missing", file=sys.stderr)
        return 1
    return 0


def _invitation(path: Path, example: Example) -> str:
    return (
        f"    import richstore\n    store = richstore.open({os.fspath(path)!r})\n"
        f"    print(store[{example.module!r}]['imports'], store[{package_key(example.package)!r}])"
    )
