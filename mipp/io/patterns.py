"""Paths chosen by patterns as a shell has them, without a look at the disk: for paths that a program remembers."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["is_pattern", "pattern_matcher", "place_of"]


def place_of(path: Path) -> Path:
    """Find the absolute path of a file: its folder with links resolved, and its own name, unresolved.

    Parameters
    ----------
    path : Path
        A file, there or not.

    Returns
    -------
    Path
        Absolute.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mipp.io.patterns import place_of
    >>> str(place_of(Path("/nowhere/../data/a.png")))
    '/data/a.png'
    """
    return Path(os.path.realpath(path.parent)) / path.name  # resolve() fails where links go round


def is_pattern(text: str) -> bool:
    """Whether a text has wildcards: ``*``, ``?`` or ``[``.

    Parameters
    ----------
    text : str
        A path.

    Returns
    -------
    bool
        Whether it has some.

    Examples
    --------
    >>> from mipp.io.patterns import is_pattern
    >>> is_pattern("photos/*.png"), is_pattern("photos/a.png")
    (True, False)
    """
    return any(c in text for c in "*?[")


def pattern_matcher(text: str) -> Callable[[Path], bool]:
    """Make a test of absolute paths from a pattern.

    Parameters
    ----------
    text : str
        A path with wildcards in some of its parts: ``*``, ``?`` and ``[abc]`` match within a part, ``**`` any number of
        parts, none too. A relative one begins at the current folder, as for a shell. Links in the parts before the
        first wildcard are resolved.

    Returns
    -------
    callable
        Whether a path, as :func:`place_of` gives it, matches.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mipp.io.patterns import pattern_matcher
    >>> below, here = pattern_matcher("/data/**/*.png"), pattern_matcher("/data/*.png")
    >>> [(below(path), here(path)) for path in map(Path, ("/data/a.png", "/data/x/y/b.png", "/data/x/c.jpg"))]
    [(True, True), (True, False), (False, False)]
    """
    parts = Path(text).parts
    plain = next((n for n, part in enumerate(parts) if is_pattern(part)), max(0, len(parts) - 1))
    base = Path(*parts[:plain]) if plain else Path(os.curdir)
    # "**" several times in a row says no more than once
    wanted = [*Path(os.path.realpath(base)).parts, *parts[plain:]]
    wanted = [part for n, part in enumerate(wanted) if part != "**" or n == 0 or wanted[n - 1] != "**"]
    return lambda path: _matches(wanted, path.parts)


def _matches(wanted: list[str], parts: tuple[str, ...]) -> bool:
    """Whether parts match patterns: each place that the patterns can be at, after each part. No backtracking."""
    at = _skipping({0}, wanted)
    for part in parts:
        stays = {n for n in at if n < len(wanted) and wanted[n] == "**"}
        moves = {n + 1 for n in at if n < len(wanted) and wanted[n] != "**" and fnmatchcase(part, wanted[n])}
        at = _skipping(stays | moves, wanted)
        if not at:
            return False
    return len(wanted) in at


def _skipping(at: set[int], wanted: list[str]) -> set[int]:
    """These places, and those after a ``**`` that matches nothing."""
    return at | {n + 1 for n in at if n < len(wanted) and wanted[n] == "**"}
