"""Selectors of ids with faiss's names; faiss's own selectors are taken, too."""

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
    """The base of selectors. As ``faiss.IDSelector``; :meth:`mask` is not in faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> class Even(faiss.IDSelector):
    ...     def mask(self, ids):
    ...         return ids % 2 == 0
    >>> Even().is_member(3)
    False
    """

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        """Tell which ids are selected.

        Parameters
        ----------
        ids : ndarray
            int64 (N,).

        Returns
        -------
        ndarray
            bool (N,).
        """
        raise NotImplementedError

    def is_member(self, id: int) -> bool:
        """Tell whether one id is selected.

        Parameters
        ----------
        id : int
            The id.

        Returns
        -------
        bool
        """
        return bool(self.mask(np.array([id], np.int64))[0])


class IDSelectorAll(IDSelector):
    """Selects all ids.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorAll().mask(np.arange(4)).tolist()
    [True, True, True, True]
    """

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.ones(len(ids), bool)


class IDSelectorRange(IDSelector):
    """Selects ids from ``imin`` to below ``imax``.

    Parameters
    ----------
    imin, imax : int
        Ends.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorRange(1, 3).mask(np.arange(4)).tolist()
    [False, True, True, False]
    """

    def __init__(self, imin: int, imax: int) -> None:
        self.imin, self.imax = int(imin), int(imax)

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.asarray((ids >= self.imin) & (ids < self.imax))


class IDSelectorBatch(IDSelector):
    """Selects the ids of an array.

    Parameters
    ----------
    ids : array_like of int
        (N,) ids.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorBatch([0, 3]).mask(np.arange(4)).tolist()
    [True, False, False, True]
    """

    def __init__(self, ids: npt.ArrayLike) -> None:
        self.ids = as_ids(ids)

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return np.isin(ids, self.ids)


class IDSelectorArray(IDSelectorBatch):
    """The same as :class:`IDSelectorBatch`.

    Parameters
    ----------
    ids : array_like of int
        (N,) ids.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorArray([0, 3]).mask(np.arange(4)).tolist()
    [True, False, False, True]
    """


class IDSelectorBitmap(IDSelector):
    """Selects ids whose bits are set, bit ``id % 8`` of byte ``id // 8``; negative ids are not selected.

    Parameters
    ----------
    bitmap : ndarray
        uint8 (n,).

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorBitmap(np.array([0b0110], np.uint8)).mask(np.arange(4)).tolist()
    [False, True, True, False]
    """

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
    """Base of selectors made of two selectors, of mipp or of faiss."""

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.lhs, self.rhs = lhs, rhs


class IDSelectorAnd(_Two):
    """Selects the ids that both selectors select.

    Parameters
    ----------
    lhs, rhs : IDSelector or array_like of int
        Two selectors, of mipp or of faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorAnd(faiss.IDSelectorRange(0, 2), faiss.IDSelectorRange(1, 3)).mask(np.arange(4)).tolist()
    [False, True, False, False]
    """

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) & selected(self.rhs, ids)


class IDSelectorOr(_Two):
    """Selects the ids that at least one of two selectors selects.

    Parameters
    ----------
    lhs, rhs : IDSelector or array_like of int
        Two selectors, of mipp or of faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorOr(faiss.IDSelectorRange(0, 2), faiss.IDSelectorRange(1, 3)).mask(np.arange(4)).tolist()
    [True, True, True, False]
    """

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) | selected(self.rhs, ids)


class IDSelectorXOr(_Two):
    """Selects the ids that exactly one of two selectors selects.

    Parameters
    ----------
    lhs, rhs : IDSelector or array_like of int
        Two selectors, of mipp or of faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorXOr(faiss.IDSelectorRange(0, 2), faiss.IDSelectorRange(1, 3)).mask(np.arange(4)).tolist()
    [True, False, True, False]
    """

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return selected(self.lhs, ids) ^ selected(self.rhs, ids)


class IDSelectorNot(IDSelector):
    """Selects the ids that another selector does not select.

    Parameters
    ----------
    sel : IDSelector or array_like of int
        A selector, of mipp or of faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> faiss.IDSelectorNot([0, 3]).mask(np.arange(4)).tolist()
    [False, True, True, False]
    """

    def __init__(self, sel: Any) -> None:
        self.sel = sel

    def mask(self, ids: npt.NDArray[np.int64]) -> Mask:
        return ~selected(self.sel, ids)


class SearchParameters:
    """Parameters of :meth:`Index.search`. As ``faiss.SearchParameters``.

    Parameters
    ----------
    sel : IDSelector, optional
        Selector of the ids to search among.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlatL2(4)
    >>> index.add(np.eye(4))
    >>> index.search([[1, 0, 0, 0]], 1, params=faiss.SearchParameters(sel=[2, 3]))[1].tolist()
    [[2]]
    """

    def __init__(self, *, sel: Any = None) -> None:
        self.sel = sel


def as_ids(ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Ids (N,) as int64; DTypeError for an array of another kind, ShapeError for another rank."""
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
