"""Projects: which store `richstore.open()` and the commands find, and with which key."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import child_environment

import richstore
from richstore.cli.main import cli
from richstore.keyrings import forget_key, keep_key, kept_key
from richstore.projects import find_project

KEY = "11" * 32


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with data and keyrings of its own."""
    for name in ("STORE", "KEY", "PASSPHRASE", "NEW_KEY", "NEW_PASSPHRASE"):
        monkeypatch.delenv(f"RICHSTORE_{name}", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # the program that runs is pytest, in the folder of this project
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    return folder


@pytest.fixture
def keyring(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A keyring in a file, of this process and those that it starts."""
    # before it is imported, which looks for the one of the operating system
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring_in_a_file.FileKeyring")
    monkeypatch.setenv("KEYRING_FILE", str(root.parent / "keyring.json"))
    import keyring

    before = keyring.get_keyring()
    keyring.core.init_backend()
    yield keyring
    keyring.set_keyring(before)


@pytest.fixture
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine without a keyring."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    import keyring

    before = keyring.get_keyring()
    keyring.core.init_backend()
    yield
    keyring.set_keyring(before)


def run(*words: str, code: int = 0) -> str:
    """Run a command that is to end with an exit code; return all that it printed."""
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def script(folder: Path, source: str) -> str:
    """Run a script of its own in a folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=folder,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_scripts_see_the_same_store(root: Path) -> None:
    """Scripts in two folders of a project open one store, in the platform's data folder."""
    (root / "jobs").mkdir()
    assert "the project project" in run("init")
    script(root, "import richstore\nwith richstore.open() as s: s['message'] = ['hello']")
    script(root / "jobs", "import richstore\nwith richstore.open() as s: s['message'].append(1)")
    assert run("get", "message") == "['hello', 1]\n"
    project = find_project()
    assert project is not None and project.store.is_file()
    assert project.store.is_relative_to(root.parent) and not project.store.is_relative_to(root)
    assert sorted(os.listdir(root)) == ["jobs", "richstore.toml"]


@pytest.mark.parametrize(
    "before", [b'[project]\nname = "shop"  # a comment\n', b'[project]\r\nname = "shop"', b""]
)
def test_init_keeps_pyproject_as_it_is(root: Path, before: bytes) -> None:
    """`init` appends a table to pyproject.toml, and all that was there stays, byte for byte."""
    file = root / "pyproject.toml"
    file.write_bytes(before)
    file.chmod(0o640)
    run("init", "--store", "data/shop.db", *([] if before else ["--project-name", "shop"]))
    after = file.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\r\n") == (after.count(b"\n") if b"\r" in before else 0)
    assert file.stat().st_mode & 0o777 == 0o640
    found = tomllib.loads(after.decode())["tool"]["richstore"]
    assert found == {"project-name": "shop", "store": "data/shop.db"}
    assert sorted(os.listdir(root)) == ["data", "pyproject.toml"]
    run("set", "a", "1")
    assert run("get", "a") == "1\n"


@pytest.mark.parametrize("name", ['"q\\.db', "a\tb.db", "tag\U000e0001.db"])
def test_names_of_files(root: Path, name: str) -> None:
    """What `init` writes leads to the store that it has made, whatever the file is called."""
    run("init", "--project-name", "shop", "--store", name)
    run("set", "a", "1")
    with richstore.open(root / name, "r") as store:
        assert store["a"] == 1


def test_init_refuses(root: Path) -> None:
    """`init` does nothing where there is a project, a store of that name, or no possible name."""
    run("init", "--project-name", "shop")
    assert "a project already" in run("init", code=3)
    other = root / "other"
    other.mkdir()
    os.chdir(other)
    assert "exists already" in run("init", "--project-name", "shop", code=3)
    for name in ("../shop", "", ".", "a/b", "-x", "ä"):
        assert "cannot be the name" in run("init", f"--project-name={name}", code=2)
    (other / "pyproject.toml").write_text("tool = {x = 1}")
    assert "cannot be appended" in run("init", "--project-name", "new", code=3)
    (other / "pyproject.toml").write_text("no toml")
    assert "is no TOML" in run("init", "--project-name", "new", code=3)
    (other / "pyproject.toml").unlink()
    there = "~no-such-user/x.db"
    assert "no such user" in run("init", "--project-name", "new", "--store", there, code=3)
    assert os.listdir(other) == []
    run("init", "--project-name", "shop", "--existing")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("project-name = 'a/b'", "cannot be the name"),
        ("store = 'x.db'", "project-name is missing"),
        ("project-name = 'a'\nkeys = 'keyring'", "'keys' is none of"),
        ("project-name = 'a'\nstore = 1", "store must be a text"),
        (f"project-name = 'a'\nkey = '{KEY}'", "the key itself is never in this file"),
        ("project-name =", "is no TOML"),
        ("project-name = 7", "project-name must be a text"),
        ("project-name = 'a'\nstore = '~no-such-user/x.db'", "there is no such user"),
        ("project-name = 'a'\nstore = \"a\\u0000b\"", "cannot be the name of a file"),
    ],
)
def test_a_wrong_configuration(root: Path, content: str, said: str) -> None:
    """A configuration that is not right is refused with its file; a key in it is not shown."""
    (root / "richstore.toml").write_text(content)
    with pytest.raises(richstore.ProjectError, match=r"richstore\.toml") as caught:
        richstore.open()
    assert said in str(caught.value)
    assert KEY not in str(caught.value)
    assert said in run("ls", code=3)


def test_every_command_finds_the_store(root: Path) -> None:
    """In the folder of a project no command needs to be told which store is meant."""
    run("init", "--project-name", "shop", "--store", "shop.db")
    run("set", "a", "1")
    assert run("append", "b", "2") == "b[0] = 2\n"
    for words in ("get a", "ls", "tree", "find a", "stats", "check", "compact", "migrate"):
        run(*words.split())
    run("export", "out.jsonl")
    run("del", "a")
    assert "2 items" in run("import", "out.jsonl")
    assert run("get", "a") == "1\n"
    Path("old.json").write_text('{"c": 3}')
    run("convert", "old.json")
    run("backup", "copy.db")
    run("salvage", "new.db")
    assert run("ls") == run("ls", "-s", "copy.db") == run("ls", "-s", "new.db") == "a\nb\nc\n"
    os.rename("shop.db", "away.db")
    run("restore", "copy.db")
    assert run("ls") == "a\nb\nc\n"


def test_the_nearest_project_is_meant(root: Path) -> None:
    """The search goes up to the first folder with a configuration; a plain pyproject is none."""
    (root / "pyproject.toml").write_text('[project]\nname = "outer"\n[tool.richstore]\n')
    inner = root / "inner"
    (inner / "deep").mkdir(parents=True)
    (inner / "pyproject.toml").write_text('[project]\nname = "inner"\n[tool.black]\n')
    found = find_project(inner / "deep")
    assert found is not None and found.name == "outer"
    (inner / "richstore.toml").write_text('project-name = "inner"\nstore = "here.db"')
    found = find_project(inner / "deep")
    assert found is not None and found.store == inner / "here.db"
    (inner / "deep" / "pyproject.toml").write_text('tool = "none"\nproject = 1')
    assert find_project(inner / "deep") == found
    assert find_project(root.parent) is None


def test_without_a_project(root: Path) -> None:
    """Without a project `open()` says what to do; a target and a variable still name a store."""
    with pytest.raises(richstore.ProjectError, match="richstore init"):
        richstore.open()
    assert "RICHSTORE_STORE" in run("ls", code=3)
    run("set", "a", "1", "-s", "x.db")
    os.environ["RICHSTORE_STORE"] = "x.db"
    try:
        with richstore.open() as store:
            assert store["a"] == 1
        assert run("get", "a") == "1\n"
    finally:
        del os.environ["RICHSTORE_STORE"]


def test_the_folder_of_the_program(root: Path, tmp_path: Path) -> None:
    """A script that runs elsewhere finds the project that it lies in."""
    run("init", "--store", "s.db")
    (root / "job.py").write_text("import richstore\nwith richstore.open() as s: s['ran'] = True")
    done = subprocess.run([sys.executable, root / "job.py"], cwd=tmp_path, env=child_environment())
    assert done.returncode == 0
    assert run("get", "ran") == "True\n"


def test_a_configuration_of_somebody_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that another user has put above is refused, and so cannot take the data."""
    (root / "richstore.toml").write_text('project-name = "shop"')
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if (root / "richstore.toml").stat().st_uid == 0:
        with_owner = os.fstat

        def of_a_stranger(number: int) -> Any:
            found = list(with_owner(number))
            found[4] = 4712
            return os.stat_result(found)

        monkeypatch.setattr(os, "fstat", of_a_stranger)
    with pytest.raises(richstore.ProjectError, match="another user"):
        find_project(root)


def test_without_platformdirs(root: Path) -> None:
    """Where platformdirs is missing, the error says what to do; a configured file needs none."""
    (root / "richstore.toml").write_text('project-name = "shop"')
    hidden = "import sys; sys.modules['platformdirs'] = None; import richstore\n"
    said = script(
        root,
        hidden + "try: richstore.open()\nexcept richstore.ProjectError as error: print(error)",
    )
    assert "richstore[projects]" in said
    (root / "richstore.toml").write_text('project-name = "shop"\nstore = "s.db"')
    script(root, hidden + "richstore.open().close()")
    assert (root / "s.db").is_file()


def test_without_cryptography(root: Path) -> None:
    """Where the package for encryption is missing, `init --encrypt` says so and leaves nothing."""
    said = script(
        root,
        "import sys\nsys.modules['cryptography'] = None\nfrom click.testing import CliRunner\n"
        "from richstore.cli.main import cli\n"
        "print(CliRunner().invoke(cli, ['init', '--encrypt', '--store', 's.db']).output)",
    )
    assert "pip install 'richstore[secure]'" in said
    assert os.listdir(root) == []


def test_importing_brings_nothing(root: Path) -> None:
    """`import richstore` imports no package but its three, and a project with a file none more."""
    (root / "richstore.toml").write_text('project-name = "shop"\nstore = "s.db"')
    said = script(
        root,
        "import sys, richstore\nrichstore.open().close()\n"
        "extras = {'click', 'rich', 'platformdirs', 'keyring', 'cryptography'}\n"
        "print(extras & {name.partition('.')[0] for name in sys.modules})\n",
    )
    assert said == "set()\n"


# --- keys ---


def test_encrypt_with_a_keyring(root: Path, keyring: Any) -> None:
    """`init --encrypt` puts a new key into the keyring, and only that opens the store."""
    assert "in the keyring" in run("init", "--project-name", "shop", "--encrypt")
    assert 'key = "keyring"' in (root / "richstore.toml").read_text()
    script(root, "import richstore\nwith richstore.open() as s: s['a'] = [1]")
    assert run("get", "a") == "[1]\n"
    assert "no problems" in script(
        root, "import sys, richstore.__main__ as m\nsys.argv[1:] = ['check']\nm.main()"
    )  # which starts a process that finds the key as well
    key = kept_key("shop")
    assert key is not None and len(key) == 32
    for file in root.rglob("*"):
        assert key not in file.read_bytes() and key.hex() not in file.read_text("latin-1")
    forget_key("shop")
    with pytest.raises(richstore.ProjectError, match="keyring set richstore shop"):
        richstore.open()
    keep_key("shop", bytes(32))
    with pytest.raises(richstore.WrongKeyError):
        richstore.open()
    with richstore.open(key=key) as store:
        assert store["a"] == [1]


def test_a_project_for_an_encrypted_store(root: Path, keyring: Any) -> None:
    """`init --existing --encrypt` takes the key that there is, and no other."""
    words = ["init", "--project-name", "shop", "--store", "s.db", "--existing"]
    key = bytes(range(32))
    with richstore.open("s.db", key=key) as store:
        store["a"] = 1
    assert "is encrypted" in run(*words, code=3)
    assert "not in the keyring" in run(*words, "--encrypt", code=3)
    keep_key("shop", bytes(32))
    assert "cannot be opened" in run(*words, "--encrypt", code=3)
    assert kept_key("shop") == bytes(32)
    keep_key("shop", key)
    run(*words, "--encrypt")
    assert run("get", "a") == "1\n"


def test_a_key_in_the_keyring_is_never_lost(root: Path, keyring: Any) -> None:
    """`init` replaces no key that is in the keyring, and leaves none when it fails."""
    keep_key("shop", bytes(32))
    assert "has a key" in run("init", "--project-name", "shop", "--encrypt", code=3)
    assert kept_key("shop") == bytes(32)
    (root / "file").write_text("in the way")
    run("init", "--project-name", "new", "--encrypt", "--store", "file/x.db", code=3)
    assert kept_key("new") is None
    assert not (root / "richstore.toml").exists()


def test_encrypt_without_a_keyring(
    root: Path, no_keyring: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a keyring the key is printed once, and the environment has to give it."""
    said = run("init", "--project-name", "shop", "--encrypt", "--store", "s.db")
    key = said.strip().rpartition("RICHSTORE_KEY=")[2]
    assert len(key) == 64
    assert key not in (root / "richstore.toml").read_text()
    with pytest.raises(richstore.ProjectError, match="set RICHSTORE_KEY"):
        richstore.open()
    assert "set RICHSTORE_KEY" in run("ls", code=3)
    monkeypatch.setenv("RICHSTORE_KEY", key)
    run("set", "a", "1")
    with richstore.open() as store:
        assert store["a"] == 1
    for wrong in ("xyz", "", key[:-2]):
        monkeypatch.setenv("RICHSTORE_KEY", wrong)
        with pytest.raises(richstore.WrongKeyError, match="hexadecimal"):
            richstore.open()
    monkeypatch.delenv("RICHSTORE_KEY")
    monkeypatch.setenv("RICHSTORE_PASSPHRASE", "")
    with pytest.raises(richstore.WrongKeyError, match="is empty"):
        richstore.open()


def test_the_variable_keeps_the_key(
    root: Path, keyring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RICHSTORE_STORE names another file, which is encrypted with the key of the project too."""
    run("init", "--project-name", "shop", "--encrypt")
    monkeypatch.setenv("RICHSTORE_STORE", str(root / "other.db"))
    run("set", "a", "1")
    with pytest.raises(richstore.WrongKeyError):
        richstore.open(root / "other.db")
    with richstore.open() as store:
        assert store["a"] == 1


def test_rekey_in_the_keyring(root: Path, keyring: Any) -> None:
    """`rekey` of a project puts a new key into the keyring, also after it was interrupted."""
    run("init", "--project-name", "shop", "--encrypt")
    run("set", "a", "1")
    old = kept_key("shop")
    run("rekey")
    assert kept_key("shop") not in (None, old)
    assert kept_key("shop (new)") is None
    assert run("get", "a") == "1\n"
    # as it is after a kill between the change of the store and that of the keyring
    lost = kept_key("shop")
    assert lost is not None and old is not None
    keep_key("shop (new)", lost)
    keep_key("shop", old)
    assert "cannot be opened" in run("get", "a", code=3)
    run("rekey")
    assert run("get", "a") == "1\n"
    # and before it
    keep_key("shop (new)", old)
    run("rekey")
    assert run("get", "a") == "1\n"
    assert kept_key("shop (new)") is None
