"""Encrypted search for ann-benchmarks; ``python -m mipp.compat.ann_benchmarks FILE.hdf5`` measures without it."""

from .measure import measure, recall_at_k
from .module import METRICS, MippFlat

__all__ = ["METRICS", "MippFlat", "measure", "recall_at_k"]
