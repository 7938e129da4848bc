"""Flat indexes of faiss over encrypted rows: ``import mipp.compat.faiss as faiss``. Needs nothing of faiss itself."""

from typing import Any

from .files import read_index, write_index
from .functions import (
    IO_FLAG_MMAP,
    IO_FLAG_READ_ONLY,
    IO_FLAG_SKIP_STORAGE,
    BufferedIOReader,
    BufferedIOWriter,
    clone_index,
    deserialize_index,
    downcast_index,
    get_num_gpus,
    index_factory,
    knn,
    normalize_L2,
    omp_get_max_threads,
    omp_set_num_threads,
    serialize_index,
    vector_to_array,
)
from .index import METRIC_INNER_PRODUCT, METRIC_L2, Index
from .kinds import IndexFlat, IndexFlatIP, IndexFlatL2, IndexIDMap, IndexIDMap2, open_index
from .selectors import (
    IDSelector,
    IDSelectorAll,
    IDSelectorAnd,
    IDSelectorArray,
    IDSelectorBatch,
    IDSelectorBitmap,
    IDSelectorNot,
    IDSelectorOr,
    IDSelectorRange,
    IDSelectorXOr,
    SearchParameters,
)

__all__ = [
    "IO_FLAG_MMAP",
    "IO_FLAG_READ_ONLY",
    "IO_FLAG_SKIP_STORAGE",
    "METRIC_INNER_PRODUCT",
    "METRIC_L2",
    "BufferedIOReader",
    "BufferedIOWriter",
    "IDSelector",
    "IDSelectorAll",
    "IDSelectorAnd",
    "IDSelectorArray",
    "IDSelectorBatch",
    "IDSelectorBitmap",
    "IDSelectorNot",
    "IDSelectorOr",
    "IDSelectorRange",
    "IDSelectorXOr",
    "Index",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "IndexIDMap",
    "IndexIDMap2",
    "SearchParameters",
    "clone_index",
    "deserialize_index",
    "downcast_index",
    "get_num_gpus",
    "index_factory",
    "knn",
    "normalize_L2",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "open_index",
    "read_index",
    "serialize_index",
    "vector_to_array",
    "write_index",
]

#: the release of faiss whose calls these are compared with; programs ask for it
__version__ = "1.15.1"


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"mipp.compat.faiss has no {name}: it has the flat indexes of faiss and their functions "
        "(IndexFlat, IndexFlatIP, IndexFlatL2, IndexIDMap, selectors, read_index, write_index)"
    )
