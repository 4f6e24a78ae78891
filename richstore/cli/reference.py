"""Write the reference of the commands: `python -m richstore.cli.reference > docs/cli.md`.

It is made from the commands themselves, so that it says what they do; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click

from richstore.cli.failures import EXIT_CODES
from richstore.cli.main import cli

__all__ = ["page"]

_INTRODUCTION = """\
# Command line

```console
$ pip install 'richstore[cli]'
```

The program is `richstore`, and `python -m richstore` is the same. [How to use
it](howto/command-line.md); [projects](howto/projects.md).

A command works on the store that `-s` names, else on the one of the project in whose folder it
runs. `-g` names a group in it. `richstore COMMAND --help` says what is on this page.
"""

_VARIABLES = """\
## Environment variables

| variable | what it is |
| --- | --- |
| `RICHSTORE_STORE` | the file of the store where `-s` names none, whatever the project says |
| `RICHSTORE_KEY` | the key of an encrypted store: 64 hexadecimal digits |
| `RICHSTORE_PASSPHRASE` | its passphrase, if it has one |
| `RICHSTORE_NEW_KEY`, `RICHSTORE_NEW_PASSPHRASE` | what `rekey` changes it to |
| `RICHSTORE_SOURCE_KEY` | the key of a secure storage of saved_instance, for `convert` |

Keys are never arguments, which others on the machine could see.
"""


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for name in sorted(cli.commands):
        parts += ["\n".join(_command(name, cli.commands[name])) + "\n"]
    return "\n".join([*parts, _VARIABLES, *_exit_codes()])


def _command(name: str, command: click.Command) -> Iterator[str]:
    """Yield the lines on a command."""
    # commands keep what their context says, and it is to be the same as when they run
    context = click.Context(command, click.Context(cli, **cli.context_settings))
    yield f"## {name}\n"
    usage = " ".join([f"richstore {name}", *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield _quoted(cleandoc(command.help or "")) + "\n"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | |"
        yield "| --- | --- |"
    for option in options:
        yield f"| `{_words(option)}` | {_quoted(_text(option))} |"


def _words(option: click.Option) -> str:
    words = ", ".join(option.opts)
    return words if option.is_flag else f"{words} {option.metavar}"


def _text(option: click.Option) -> str:
    default = f" Default: {option.default}." if option.show_default else ""
    return f"{option.help}{default}"


def _quoted(text: str) -> str:
    """Return a text in which nothing is markup."""
    for letter in "[]*_<>":
        text = text.replace(letter, f"\\{letter}")
    return text


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | |"
    yield "| --- | --- |"
    for number, text in EXIT_CODES.items():
        yield f"| {number} | {text} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
