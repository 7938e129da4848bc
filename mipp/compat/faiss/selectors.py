"""Which ids: selectors with faiss's names, and faiss's own objects where they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DTypeError, ShapeError

__all__ = [
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
    "SearchParameters",
]

Mask = npt.NDArray[np.bool_]


class IDSelector:
    """Base: ``mask(ids)`` for arrays, ``is_member(id)`` for one id."""

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        """(N,) bool for (N,) int64 ids."""
        raise NotImplementedError

    def is_member(self, id: int) -> bool:
        return bool(self.mask(np.array([id], np.int64))[0])


class IDSelectorAll(IDSelector):
    """All ids."""

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.ones(len(ids), bool)


class IDSelectorRange(IDSelector):
    """Ids from ``imin`` to below ``imax``."""

    def __init__(self, imin: int, imax: int) -> None:
        self.imin, self.imax = int(imin), int(imax)

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.asarray((ids >= self.imin) & (ids < self.imax))


class IDSelectorBatch(IDSelector):
    """The ids of an array (N,) of integers."""

    def __init__(self, ids: npt.ArrayLike) -> None:
        self.ids = as_ids(ids)

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.isin(ids, self.ids)


class IDSelectorArray(IDSelectorBatch):
    """The same as :class:`IDSelectorBatch`."""


class IDSelectorBitmap(IDSelector):
    """Ids whose bits are set in an array (n,) of uint8, bit ``id % 8`` of byte ``id // 8``; negative ids are not."""

    def __init__(self, bitmap: npt.ArrayLike) -> None:
        found = np.asarray(bitmap)
        if found.dtype != np.uint8:
            raise DTypeError(f"a bitmap must be an array of uint8, not {found.dtype}")
        if found.ndim != 1:
            raise ShapeError(f"a bitmap must have shape (n,), not {found.shape}")
        self.bits = np.unpackbits(found, bitorder="little").astype(bool)

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        out = np.zeros(len(ids), bool)
        inside = (ids >= 0) & (ids < len(self.bits))
        out[inside] = self.bits[ids[inside]]
        return out


class _Two(IDSelector):
    """Of two selectors, ours or faiss's."""

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.lhs, self.rhs = lhs, rhs


class IDSelectorAnd(_Two):
    """The ids that both selectors name."""

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) & selected(self.rhs, ids)


class IDSelectorOr(_Two):
    """The ids that a selector of two names."""

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) | selected(self.rhs, ids)


class IDSelectorXOr(_Two):
    """The ids that one selector of two names, and the other does not."""

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) ^ selected(self.rhs, ids)


class IDSelectorNot(IDSelector):
    """The ids that another selector leaves out."""

    def __init__(self, sel: Any) -> None:
        self.sel = sel

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return ~selected(self.sel, ids)


class SearchParameters:
    """``sel``: a selector of the ids to search among, or None."""

    def __init__(self, *, sel: Any = None) -> None:
        self.sel = sel


def as_ids(ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Ids (N,) as int64; DTypeError for what is no integer array, ShapeError for another rank."""
    found = np.asarray(ids)
    if found.dtype.kind not in "iu" and found.size:
        raise DTypeError(f"ids must be integers, not {found.dtype}")
    if found.ndim != 1:
        raise ShapeError(f"ids must have shape (n,), not {found.shape}")
    return np.ascontiguousarray(found, np.int64)


def selected(selector: Any, ids: npt.NDArray[np.int64]) -> Mask:
    """Which of ``ids`` a selector (ours, or faiss's: anything with ``is_member``) or an array of ids names."""
    if isinstance(selector, IDSelector):
        return selector.mask(ids)
    if hasattr(selector, "is_member"):
        return np.fromiter((selector.is_member(i) for i in ids.tolist()), bool, len(ids))
    return IDSelectorBatch(selector).mask(ids)
