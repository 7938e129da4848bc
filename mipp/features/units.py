"""Typical squared distances of the descriptors' vectors, which make weights in fused descriptors comparable.

Means over all pairs of different images of Corel-1k (no labels used), to two digits. They are constants of the format:
a change of one is a change of every fused descriptor that has the part.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Descriptor

__all__ = ["UNITS", "with_unit"]

UNITS: dict[str, float] = {
    "scd256": 700.0, "scd128": 590.0, "scd64": 480.0, "scd32": 380.0, "scd16": 290.0,
    "csd256": 20000.0, "csd128": 19000.0, "csd64": 17000.0, "csd32": 14000.0,
    "cld": 2200.0, "cld6_6": 2200.0, "cld10_6": 2300.0, "ehd": 3100.0, "ehd150": 3100.0, "cedd": 70.0,
    "lbp": 0.11, "hsv": 1.2, "moments": 8.0, "hog": 34.0, "hog324": 3.9,
}  # fmt: skip
# other counts of coefficients of the colour layout
_LAYOUT = 2400.0


def with_unit(descriptor: Descriptor) -> Descriptor:
    """The descriptor with its unit."""
    default = _LAYOUT if descriptor.name.startswith("cld") else descriptor.unit
    return replace(descriptor, unit=UNITS.get(descriptor.name, default))
