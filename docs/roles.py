"""Extension of griffe: docstrings as Markdown, and what the reference leaves out.

Roles of reStructuredText become code. Prose that follows a section of parameters or errors goes before it, where
numpydoc has it. Old names and methods with two underscores are left out.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(~?)([^`]+)`")
_HEADING = re.compile(r"\n([A-Z][a-z]+)\n-{3,}\n")
#: "name", "first, second : type" or "*args : type"; an error has a name alone
_ENTRY = re.compile(r"[\w*.]+(, [\w*.]+)*( : .*)?$", re.S)


def _code(match: re.Match[str]) -> str:
    short, name = match.groups()
    return f"`{name.rsplit('.', 1)[-1] if short else name}`"


def ordered(doc: str) -> str:
    """``doc`` with prose out of its sections of parameters and errors."""
    head, *parts = _HEADING.split("\n" + inspect.cleandoc(doc))
    prose, sections = [], []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        kept = [first for first in [body.strip("\n")] if first]
        if title in ("Parameters", "Attributes", "Raises"):
            paragraphs = body.strip("\n").split("\n\n")
            kept = [p for p in paragraphs if p[:1] in (" ", "") or _ENTRY.match(p.splitlines()[0])]
            prose += [p for p in paragraphs if p not in kept]
        sections.append(f"{title}\n{'-' * len(title)}\n" + "\n\n".join(kept))
    return "\n\n".join([head.strip("\n"), *prose, *sections])


class Roles(griffe.Extension):
    """Rewrites docstrings before they are parsed; hides what is not for readers."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        old = obj.docstring is not None and obj.docstring.value.startswith("Deprecated")
        if old or obj.name.startswith("__"):
            obj.public = False
        if obj.docstring is not None:
            obj.docstring.value = ordered(_ROLE.sub(_code, obj.docstring.value))
