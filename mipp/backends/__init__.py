"""Where a server's products run. ``cpu`` is this process; the interface of a backend is in ``base.py``."""

from .base import Backend, Keystream, RecordScan, Rows, Segment, Slots, StoredFile, ZeroShare
from .cpu import CpuBackend

__all__ = ["Backend", "CpuBackend", "Keystream", "RecordScan", "Rows", "Segment", "Slots", "StoredFile", "ZeroShare"]
