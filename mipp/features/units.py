"""Typical squared distances of codes' vectors, which make weights in fused descriptors comparable.

Means over all pairs of different images of Corel-1k (no labels used), to two digits. They are constants of the format:
a change of one is a change of every fused descriptor that has the part.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Descriptor

__all__ = ["UNITS", "with_units"]

#: by descriptor and code
UNITS: dict[str, dict[str, float]] = {
    "scd256": {"power": 700.0, "ramps": 320.0, "l2": 37000.0},
    "scd128": {"power": 590.0, "ramps": 270.0, "l2": 36000.0},
    "scd64": {"power": 480.0, "ramps": 220.0, "l2": 36000.0},
    "scd32": {"power": 380.0, "ramps": 170.0, "l2": 35000.0},
    "scd16": {"power": 290.0, "ramps": 130.0, "l2": 34000.0},
    "csd256": {"power": 20000.0, "l2": 190000.0, "sine2": 1900.0, "hellinger": 0.84},
    "csd128": {"power": 19000.0, "l2": 210000.0, "sine2": 1700.0, "hellinger": 0.75},
    "csd64": {"power": 17000.0, "l2": 220000.0, "sine2": 1500.0, "hellinger": 0.67},
    "csd32": {"power": 14000.0, "l2": 210000.0, "sine2": 1200.0, "hellinger": 0.55},
    "cld": {"weighted": 2200.0, "l2": 1000.0},
    "ehd": {"groups": 3100.0, "sine2": 120.0, "l2": 580.0},
    "ehd150": {"groups": 3100.0},
    "cedd": {"power": 70.0, "l2": 200.0, "hellinger": 1.1},
    "lbp": {"hellinger": 0.11, "sine2": 0.10, "l2": 0.048},
    "hsv": {"hellinger": 1.2, "sine2": 0.45, "l2": 0.14},
    "moments": {"scaled": 5.7, "l2": 2.5},
    "hog": {"l2": 34.0, "power": 84.0},
    "hog324": {"l2": 3.9, "power": 8.8},
}
# any other number of coefficients of the colour layout: its first ones hold nearly all
_LAYOUT = {"weighted": 2300.0, "l2": 1200.0}


def with_units(descriptor: Descriptor) -> Descriptor:
    """A built-in descriptor with the units of its ``l2`` codes."""
    known = UNITS.get(descriptor.name, _LAYOUT if descriptor.name.startswith("cld") else {})
    codes = tuple(replace(code, unit=known[code.name]) if code.metric == "l2" else code for code in descriptor.codes)
    return replace(descriptor, codes=codes)
