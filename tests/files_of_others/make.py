"""Made the files beside it, with the packages that the tests cannot have.

`python make.py saved_instance` needs Python 3.12 and saved_instance 0.2.0, which asks for other
versions of packages than the tests; `python make.py shelf` needs Python 3.13, which makes shelves
with SQLite. Run in an empty folder.
"""

import shelve
import sys
from pathlib import Path

KEY = b"cmljaHN0b3JlIHRlc3RzLCBub3QgYSBzZWNyZXQ6KSE="


def make_saved_instance() -> None:
    """Make a simple, a secure and a rich storage."""
    from cryptography.fernet import Fernet
    from saved_instance.db.shelve_repo import ShelveRepo
    from saved_instance.db.sqllite_repo import SqliteRepo
    from saved_instance.factory import get_shared_lock
    from saved_instance.rich_storage import RichStorage
    from saved_instance.secure_storage import SecureStorage
    from saved_instance.simple_storage import SimpleStorage

    simple = SimpleStorage(ShelveRepo(Path("simple")))
    simple["message"] = "Hello World"
    simple["shops"] = ["shop1", ("shop2", {3})]

    secure = SecureStorage(ShelveRepo(Path("secure")), Fernet(KEY))
    secure["msg"] = "Hi"
    secure["numbers"] = [1, 2]

    rich = RichStorage(SqliteRepo(Path("rich")))
    rich["shops"] = ["shop1", {"name": "shop2", "tags": ["new"]}]
    rich["shops"].append({"name": "shop3"})
    rich["shops"].append(["a", "list"])
    rich["config"] = {"theme": {"dark": True, "fonts": ["Inter"]}, "limits": (1, {2})}
    rich["config"]["theme"]["dark"] = False
    rich["config"]["theme"]["fonts"].append("Roboto")
    rich["count"] = 5
    safe = RichStorage(SqliteRepo(Path("rich"), lock=get_shared_lock()))
    safe["safe"] = {"for": ["processes"]}


def make_shelf() -> None:
    """Make a shelf with SQLite."""
    import dbm.sqlite3

    with shelve.Shelf(dbm.sqlite3.open("shelf", "c")) as shelf:
        shelf["shops"] = ["shop1", ("shop2", {3})]
        shelf["größe"] = {"m": 1.5}


if __name__ == "__main__":
    {"saved_instance": make_saved_instance, "shelf": make_shelf}[sys.argv[1]]()
