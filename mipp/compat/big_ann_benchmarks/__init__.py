"""Encrypted search for big-ann-benchmarks; ``python -m mipp.compat.big_ann_benchmarks`` measures without it."""

from .dataset import FileDataset
from .measure import measure_files
from .module import METRICS, MippFlat

__all__ = ["METRICS", "FileDataset", "MippFlat", "measure_files"]
