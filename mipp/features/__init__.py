"""Image descriptors: public, checked functions over private compiled kernels.

Importing this package does not load numba; the first extraction does, and its compiled kernels are cached on disk where
there is a place for them. :func:`warm_up` compiles ahead.
"""

from . import codes
from .base import Code, Descriptor
from .cedd import cedd
from .colour_layout import cld
from .colour_structure import csd
from .edge_histogram import ehd, ehd_bins
from .extraction import Extraction, extract, warm_up
from .fused import fuse, scale_weights
from .histograms import hsv_histogram, moments
from .registry import DEFAULT, get, names, register
from .scalable_colour import scd
from .texture import hog, lbp

__all__ = [
    "DEFAULT",
    "Code",
    "Descriptor",
    "Extraction",
    "cedd",
    "cld",
    "codes",
    "csd",
    "ehd",
    "ehd_bins",
    "extract",
    "fuse",
    "get",
    "hog",
    "hsv_histogram",
    "lbp",
    "moments",
    "names",
    "register",
    "scale_weights",
    "scd",
    "warm_up",
]
