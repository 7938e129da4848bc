"""Flat indexes of faiss over encrypted rows: ``import mipp.compat.faiss as faiss``. Needs nothing of faiss itself."""

from .files import read_index, write_index
from .index import METRIC_INNER_PRODUCT, METRIC_L2, IndexFlat, IndexFlatIP, IndexFlatL2, IndexIDMap, open_index
from .selectors import (
    IDSelector,
    IDSelectorAll,
    IDSelectorBatch,
    IDSelectorNot,
    IDSelectorRange,
    SearchParameters,
)

__all__ = [
    "METRIC_INNER_PRODUCT",
    "METRIC_L2",
    "IDSelector",
    "IDSelectorAll",
    "IDSelectorBatch",
    "IDSelectorNot",
    "IDSelectorRange",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "IndexIDMap",
    "SearchParameters",
    "open_index",
    "read_index",
    "write_index",
]
