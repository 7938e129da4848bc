"""Descriptors by spec.

A spec is a name (``ehd``, ``scd128``), possibly with a code (``csd64:hellinger``), or several of them fused, with
weights where they are not 1: ``scd256+2*csd64+cld+ehd``. Any case, parts in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from ..errors import DTypeError, NotFoundError, ParameterError
from .base import Descriptor
from .cedd import CEDD
from .colour_layout import cld_descriptor
from .colour_structure import csd_descriptor
from .edge_histogram import EHD, EHD150
from .fused import fuse
from .histograms import HSV, MOMENTS
from .scalable_colour import scd_descriptor
from .texture import HOG, HOG324, LBP
from .units import with_units

__all__ = ["DEFAULT", "get", "names", "register"]

#: spec of the descriptor that commands use where none is named
DEFAULT = "scd256+csd64+cld10_6+ehd+lbp"

_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_PART = re.compile(r"(?:(?P<weight>[0-9.]+(?:e[+-]?[0-9]+)?)\*)?(?P<name>[a-z][a-z0-9_.-]*)(?::(?P<code>[a-z0-9]+))?")
_REGISTRY: dict[str, Descriptor] = {}
# families with numbers in their names: every allowed number is a descriptor, names() lists the registered ones
_FAMILIES: tuple[tuple[re.Pattern[str], Callable[..., Descriptor]], ...] = (
    (re.compile(r"scd(\d+)"), scd_descriptor),
    (re.compile(r"csd(\d+)"), csd_descriptor),
    (re.compile(r"cld(\d+)_(\d+)"), cld_descriptor),
)


def register(descriptor: Descriptor) -> Descriptor:
    """Make a descriptor known under its name, in this process. Users add their own descriptors by it.

    Parameters
    ----------
    descriptor : Descriptor
        Its name begins with a letter and has lower-case letters, digits, dots, hyphens and underscores.

    Returns
    -------
    Descriptor
        The same object.

    Raises
    ------
    ParameterError
        The name has another form or is taken.

    Examples
    --------
    >>> import dataclasses
    >>> from mipp import features
    >>> own = dataclasses.replace(features.get("lbp"), name="my-patterns")
    >>> _ = features.register(own)
    >>> features.get("my-patterns+cld").dim
    71
    """
    name = descriptor.name
    if not _NAME.fullmatch(name):
        raise ParameterError(
            f"{name!r} is no descriptor name: lower-case letters, digits, dots, hyphens, underscores, a letter first"
        )
    if _find(name) is not None:
        raise ParameterError(f"descriptor {name} is registered already")
    _REGISTRY[name] = descriptor
    get.cache_clear()
    return descriptor


def _find(name: str) -> Descriptor | None:
    if name in _REGISTRY:
        return _REGISTRY[name]
    for pattern, make in _FAMILIES:
        match = pattern.fullmatch(name)
        if match:
            try:
                return with_units(make(*(int(group) for group in match.groups())))
            except ValueError:  # also a number of thousands of digits
                return None
    return None


@lru_cache(maxsize=64)
def get(spec: str) -> Descriptor:
    """Return the descriptor of a spec.

    Parameters
    ----------
    spec : str
        A name (``ehd``, ``scd128``), possibly with a code (``csd64:hellinger``), or several fused with weights
        (``scd256+2*csd64``). Any case, parts in any order.

    Returns
    -------
    Descriptor

    Raises
    ------
    DTypeError, NotFoundError, ParameterError
        Not a string; no such descriptor or code; parts that cannot be fused.

    Examples
    --------
    >>> from mipp import features
    >>> features.get("EHD + 2*csd64").name
    '2*csd64+ehd'
    """
    if not isinstance(spec, str):
        raise DTypeError("a descriptor spec is a string")
    parts: list[tuple[int, str, Descriptor, float]] = []
    for text in spec.lower().split("+"):
        match = _PART.fullmatch("".join(text.split()))
        found = _find(match["name"]) if match else None
        if not match or found is None:
            raise NotFoundError(f"no descriptor {text.strip()[:100]!r}; there are {', '.join(names())}")
        if match["code"]:
            found = found.with_code(match["code"])
            # a code that was asked for is the one to be fused by
            found = replace(found, fuse=match["code"] if found.metric == "l2" else "")
        try:
            weight = float(match["weight"] or 1.0)
        except ValueError:
            raise ParameterError(f"{match['weight'][:50]!r} in {spec[:100]!r} is no weight") from None
        parts.append((_rank(match["name"]), found.name, found, weight))
    parts.sort(key=lambda part: part[:2])
    return fuse([part[2] for part in parts], [part[3] for part in parts]) if len(parts) > 1 else parts[0][2]


def names() -> list[str]:
    """List the names of all registered descriptors, in order of registration.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from mipp import features
    >>> features.names()[:4]
    ['scd256', 'scd128', 'scd64', 'csd64']
    """
    return list(_REGISTRY)


def _rank(name: str) -> int:
    """Place of a part in a fused descriptor: by family, in order of registration."""
    families = [re.match(r"[a-z]+", known)[0] for known in _REGISTRY]  # type: ignore[index]
    return families.index(re.match(r"[a-z]+", name)[0])  # type: ignore[index]


_STANDARD = (
    *(scd_descriptor(size) for size in (256, 128, 64)), *(csd_descriptor(size) for size in (64, 32, 128, 256)),
    cld_descriptor(), cld_descriptor(6, 6), cld_descriptor(10, 6), EHD, EHD150, CEDD, LBP, HSV, MOMENTS, HOG, HOG324,
)  # fmt: skip
_REGISTRY.update((d.name, with_units(d)) for d in _STANDARD)
