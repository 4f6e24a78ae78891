"""The second process: open the file of the first, change values in place, and report.

What it prints is read from the store and from a snapshot, and compared: a store that did not keep
its word makes the process fail.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import richstore
from richstore.demo.contents import choose_example, package_key

__all__ = ["run"]

NEW_METHOD = "added_by_the_second_process"
NEW_IMPORT = "richstore"


class ChangeOfMindError(Exception):
    """Raised inside a transaction, to have it rolled back."""


def run(path: Path) -> int:
    """Change the demo's store at `path` and return the exit status."""
    with richstore.open(path, "w") as store:
        report = _Report()
        report.say(f"opened the same file: {len(store)} keys")
        example = choose_example(store)
        key = package_key(example.package)
        with store.snapshot() as view:
            report.say("took a snapshot, then changed nested values in place:")
            where = f"store[{example.module!r}]"
            details = f"['classes'][{example.class_name!r}]['methods']"
            report.code(f"{where}{details}.append({NEW_METHOD!r})")
            store[example.module]["classes"][example.class_name]["methods"].append(NEW_METHOD)
            report.code(f"{where}['imports'].add({NEW_IMPORT!r})")
            store[example.module]["imports"].add(NEW_IMPORT)
            report.code(f"store[{key!r}].reviewed = True")
            store[key].reviewed = True
            author = f"process {os.getpid()}"
            report.code(f"store[{key!r}].note({author!r}, 'looks good')")
            store[key].note(author, "looks good")

            report.say("what the snapshot still shows, and what the store has now:")
            old, new = view[example.module], store[example.module]
            old_methods = old["classes"][example.class_name]["methods"]
            new_methods = new["classes"][example.class_name]["methods"]
            report.compare("methods", len(old_methods), len(new_methods))
            report.compare("last method", old_methods[-1], new_methods[-1])
            imports = (NEW_IMPORT in old["imports"], NEW_IMPORT in new["imports"])
            report.compare(f"imports {NEW_IMPORT}", *imports)
            report.compare("reviewed", view[key].reviewed, store[key].reviewed)
            report.compare("notes", dict(view[key].notes), dict(store[key].notes))
        _roll_back(store, example.module, report)
    return report.status()


def _roll_back(store: richstore.Store, module: str, report: _Report) -> None:
    held = store[module]["classes"]
    before = richstore.plain(store[module])
    keys = len(store)
    try:
        with store.transaction():
            held.clear()
            store[module]["doc"] = "overwritten"
            del store[module]["imports"]
            store["a new key"] = ["a new value"]
            report.say(
                f"inside a transaction: {len(held)} classes, doc {store[module]['doc']!r},"
                f" {len(store) - keys} new key; then an exception"
            )
            raise ChangeOfMindError
    except ChangeOfMindError:
        report.say("rolled back:")
    report.check(f"in memory as before ({len(held)} classes)", held == before["classes"])
    report.check("in the store as before", store[module] == before and len(store) == keys)
    with store.snapshot() as view:
        on_disk = richstore.plain(view[module])
        report.check("on disk as before", on_disk == before and "a new key" not in view)


class _Report:
    """The lines of the second process, each marked as such, and whether all checks held."""

    def __init__(self) -> None:
        self._failed: list[str] = []

    def say(self, text: str) -> None:
        print(f"  second process ({os.getpid()}) {text}", flush=True)

    def code(self, text: str) -> None:
        print(f"      {text}", flush=True)

    def compare(self, what: str, old: object, new: object) -> None:
        print(f"      {what:<18} snapshot: {old!r:<22} store: {new!r}", flush=True)
        if old == new:
            self._failed.append(f"{what} should differ between snapshot and store")

    def check(self, what: str, holds: bool) -> None:
        print(f"      {what}: {'yes' if holds else 'NO'}", flush=True)
        if not holds:
            self._failed.append(what)

    def status(self) -> int:
        for failure in self._failed:
            print(f"richstore demo: not as promised: {failure}", file=sys.stderr)
        return 1 if self._failed else 0
