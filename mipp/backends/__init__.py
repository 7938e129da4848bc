"""Where a server's products run. ``cpu`` is this process; what a backend must do is in ``base.py``."""

from .base import Backend, Keystream, Rows, Segment
from .cpu import CpuBackend

__all__ = ["Backend", "CpuBackend", "Keystream", "Rows", "Segment"]
