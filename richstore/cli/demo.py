"""The command `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from richstore.demo import first, second

__all__ = ["demo"]


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Index the Python modules in this directory; else the standard library.",
)
@click.option("--second", "is_second", is_flag=True, hidden=True, help="Be the second process.")
@click.pass_context
def demo(ctx: click.Context, path: Path | None, source: Path | None, is_second: bool) -> None:
    """Index the standard library into a store and change it from a second process.

    The second process changes it in place, rolls back a transaction and reads a snapshot. PATH is
    the file to fill: a new one, or one that this demo made, which is emptied first. Without it a
    new temporary file is made, and kept.
    """
    if not is_second:
        ctx.exit(first.run(path, source))
    if path is None:
        raise click.UsageError("--second needs the PATH of a store that the demo made")
    ctx.exit(second.run(path))
