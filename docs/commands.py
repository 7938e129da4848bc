"""Writes the command reference, docs/pages/commands.md, from the commands themselves: ``python docs/commands.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mipp.cli.main import cli

PAGE = Path(__file__).parent / "pages" / "commands.md"
HEAD = """# Command line

<!-- written by: python docs/commands.py -->

`mipp` and `python -m mipp` are the same command. `-h` and `--help` print the help of every command. Most commands take
`--deployment FOLDER` (default: the environment variable `MIPP_DEPLOYMENT`, else the current folder) and `--json`, which
prints one JSON object. [Operations](operations.md) has exit codes, passphrases, limits, backup and restore; the
[quickstart](quickstart.md) shows a session.
"""


def commands(group: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below ``group`` with their names, in the order of their help."""
    yield path, group
    if isinstance(group, click.Group):
        for name in sorted(group.commands):
            yield from commands(group.commands[name], (*path, name))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    kind = option.type
    if option.is_flag:
        value = ""
    elif isinstance(kind, click.Choice):
        value = ", ".join(f"`{choice}`" for choice in kind.choices)
    elif isinstance(kind, click.Tuple):
        value = _cell(str(option.metavar or "values"))
    else:
        value = _cell(str(option.metavar or kind.name))
    default = option.default if option.show_default and isinstance(option.default, (str, int, float)) else None
    text = _cell(option.help or "") + (f" Default: `{default}`." if default is not None else "")
    return f"| {names} | {value} | {text.strip()} |"


def section(path: tuple[str, ...], command: click.Command) -> str:
    """One command's part of the page."""
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join([*path, *arguments, *(["COMMAND"] if isinstance(command, click.Group) else [])])
    help_text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    lines = [f"## {' '.join(path)}", f"`{usage}`", help_text]
    options = [_option(p) for p in command.params if isinstance(p, click.Option)]
    if options:
        lines.append("\n".join(["| option | value | |", "|---|---|---|", *options]))
    return "\n\n".join(line for line in lines if line)


def page() -> str:
    """The whole page."""
    parts = [section(path, command) for path, command in commands(cli, ("mipp",))]
    return "\n\n".join([HEAD.strip(), *parts]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
