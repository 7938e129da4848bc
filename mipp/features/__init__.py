"""Image descriptors: public, checked functions over private compiled kernels.

Importing this package does not load numba; the first extraction does, and its compiled kernels are cached on disk.
"""

from .base import Descriptor
from .colour_layout import cld
from .edge_histogram import ehd
from .extraction import Extraction, extract
from .registry import get, names, register

__all__ = ["Descriptor", "Extraction", "cld", "ehd", "extract", "get", "names", "register"]
