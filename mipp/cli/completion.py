"""Completion of owners' and users' names in a shell: those whose key files lie in the deployment's folder.

Completing asks no server and for no passphrase: it reads names of files. Other owners, whose grants a user has, are not
known without asking.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from ..errors import ParameterError
from ..rpc.names import check_name

__all__ = ["complete_names"]

#: whose names a command's parameter takes, by the parameter's name
_KINDS = {"user": "users", "owner": "owners", "owners": "owners", "of": "owners"}
#: commands whose NAME is a new one
_NEW = ("create",)


class _PartyName(click.types.StringParamType):
    """Any text; the names of key files in one folder are offered."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin with what was typed."""
        return [
            CompletionItem(name) for name in sorted(_names(_folder(ctx), self._kind)) if name.startswith(incomplete)
        ]


def complete_names(group: click.Group) -> None:
    """Have all commands below a group complete names of owners and users.

    In ``mipp owner`` and ``mipp user`` a parameter ``name`` is that of the group's kind, except where it is a new one.

    Parameters
    ----------
    group : click.Group
        With all its commands.
    """
    for command in group.commands.values():
        if isinstance(command, click.Group):
            complete_names(command)
            continue
        own = {"name": f"{group.name}s"} if group.name in ("owner", "user") and command.name not in _NEW else {}
        for param in command.params:
            kind = {**_KINDS, **own}.get(param.name or "")
            if kind is not None and isinstance(param.type, click.types.StringParamType):
                param.type = _PartyName(kind)


def _folder(ctx: click.Context) -> Path:
    """The deployment's folder, as the command would find it."""
    given = ctx.params.get("folder")
    folder = Path(given or os.environ.get("MIPP_DEPLOYMENT") or ".")
    try:
        return folder.expanduser()
    except RuntimeError:  # the home of nobody: as it is, it names no folder that is there
        return folder


def _names(folder: Path, kind: str) -> Iterator[str]:
    """Names of key files; what is no party's name cannot be typed as one."""
    try:
        found = [path.stem for path in (folder / kind).glob("*.key")]
    except (OSError, ValueError):  # such as a name with a zero byte
        return
    for name in found:
        try:
            yield check_name(name)
        except ParameterError:
            continue
