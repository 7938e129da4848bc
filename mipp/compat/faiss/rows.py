"""Rows of an index: adding, deleting and decrypting them with faiss's argument conventions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import check_whole
from ...errors import DTypeError, EncodingError, NotFoundError, ParameterError, ScoreRangeError, ShapeError
from .fitting import Floats, fit, fit_again, judge, shortest_length
from .home import Home
from .selectors import as_ids, selected

__all__ = ["Ints", "Rows"]

_OWNER = "owner"
#: members of faiss's indexes that are missing here, and why
_NOT_HERE = {
    "codes": "rows are encrypted; reconstruct_n decrypts them",
    "get_xb": "rows are encrypted; reconstruct_n decrypts them",
    "xb": "rows are encrypted; reconstruct_n decrypts them",
    "sa_encode": "rows are encrypted under keys of their owner; write_index keeps them",
    "sa_decode": "rows are encrypted under keys of their owner; reconstruct_n decrypts them",
    "get_distance_computer": "servers compute distances; search and range_search give them",
    "compute_distance_subset": "servers compute distances; search takes a selector of rows",
}

Ints = npt.NDArray[np.int64]


class Rows:
    """Identity and rows of an index; :class:`~mipp.compat.faiss.Index` adds search."""

    _home: Home
    #: whether this object gives rows ids of the caller's though the home has a map already
    _maps = False

    @property
    def _mapped(self) -> bool:
        """Whether all ids that this object gives are the caller's."""
        return self._maps or (self._home.ids == "map" and not self._home.settings.fixed_ids)

    #: accepted without effect, as programs set it
    verbose = False
    #: none of the metrics here has an argument
    metric_arg = 0.0

    def __getattr__(self, name: str) -> Any:
        reason = f": {_NOT_HERE[name]}" if name in _NOT_HERE else ""
        raise AttributeError(f"{type(self).__name__} has no {name}{reason}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(d={self.d}, ntotal={self.ntotal})"

    def __reduce__(self) -> str:
        raise TypeError("an index holds secret keys and does not pickle; use write_index")

    def close(self) -> None:
        """Close all files and delete a temporary folder; happens also when the index is collected. Not in faiss."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- facts ----------------------------------------------------------------------------------------------------

    @property
    def d(self) -> int:
        """Numbers per vector (int)."""
        return self._home.settings.d

    @property
    def ntotal(self) -> int:
        """Number of rows of all owners (int)."""
        return self._home.live

    @property
    def metric_type(self) -> int:
        """METRIC_INNER_PRODUCT or METRIC_L2 (int)."""
        return self._home.settings.metric

    @property
    def is_trained(self) -> bool:
        """True: as for faiss's flat indexes, ``add`` works at once (and fits the encoding to what it adds)."""
        return True

    @property
    def encoding(self) -> Encoding | None:
        """The public :class:`mipp.Encoding` of the rows; None until ``train`` or ``add``. Not in faiss."""
        return self._home.settings.encoding

    @property
    def home(self) -> Home:
        """The folder, deployment, user and owners behind the index, **with all keys**. Not in faiss."""
        return self._home

    # --- rows ---------------------------------------------------------------------------------------------------

    def train(self, x: npt.ArrayLike) -> None:
        """Fit the encoding to a **public** sample; :func:`mipp.encoding.finest` tells what it reveals of the sample.

        In faiss a flat index ignores training.

        Parameters
        ----------
        x : array_like
            (n, d) numbers, public.

        Raises
        ------
        ParameterError
            There are rows already, encoded as the index was trained before.
        EncodingError
            NaN or infinity; a sample of which no encoding keeps the nearest rows.
        """
        x = self._vectors(x)
        with self._home.lock:
            if self.ntotal:
                raise ParameterError("rows are encoded already; reset the index to train it again")
            self._home.reset()  # the result of an earlier training
            fit(self._home, x)

    def add(self, x: npt.ArrayLike, *, owner: str = _OWNER) -> None:
        """Encrypt and upload rows under an owner's keys: all, or none if there is an error.

        Their ids are ``ntotal``, ``ntotal + 1``, ... An index without encoding fits it to these rows first. If rows do
        not fit it (longer than its bound, or not whole where it is exact) it is fitted again: all rows are decrypted,
        encoded and encrypted under new keys. Both ways, what :func:`mipp.encoding.finest` reveals of its sample is
        revealed of **private** rows. An ``encoding`` that the caller declared stays.

        Parameters
        ----------
        x : array_like
            (n, d) numbers, secret.
        owner : str
            Name of the owner, made if new. Not in faiss.

        Raises
        ------
        EncodingError
            NaN or infinity; rows of which no encoding keeps the nearest, as a few are longer by far.
        EncodingError, ScoreRangeError
            Rows that do not fit a declared encoding, or one of 16 bits.
        ParameterError
            The index has ids of the caller's.
        """
        self._add(self._vectors(x), None, owner)

    def add_with_ids(self, x: npt.ArrayLike, ids: npt.ArrayLike, *, owner: str = _OWNER) -> None:
        """Encrypt and upload rows as :meth:`add`, with ids of the caller's that stay as they are.

        Parameters
        ----------
        x : array_like
            (n, d) numbers, secret.
        ids : array_like of int
            (n,) ids, none of them -1. Kept in the folder of the index; no server gets them.
        owner : str
            Name of the owner, made if new. Not in faiss.

        Raises
        ------
        EncodingError, ScoreRangeError
            As :meth:`add`.
        ShapeError, DTypeError
            Not one integer for each row.
        ParameterError
            -1 as an id; rows of the index get their ids by :meth:`add`.
        """
        x, found = self._vectors(x), as_ids(ids)
        if len(found) != len(x):
            raise ShapeError(f"{len(x)} vectors need as many ids, not {len(found)}")
        if (found == -1).any():
            raise ParameterError("-1 stands for no neighbour and is no id")
        self._add(x, found, owner)

    def _add(self, x: Floats, ids: Ints | None, owner: str) -> None:
        home, kind = self._home, "flat" if ids is None else "map"
        with home.lock:
            s = home.settings
            if s.fixed_ids and not self._maps:
                raise ParameterError("this index has a map of ids: add to the IndexIDMap")
            if home.ids not in ("", kind):
                other = "add_with_ids" if home.ids == "map" else "add"
                raise ParameterError(f"rows of this index get their ids one way only: use {other}")
            if not len(x):
                return
            if s.encoding is None:
                fit(home, x)
                home.judged, home.shortest = len(x), shortest_length(home, x)
            assert s.encoding is not None
            try:
                check_whole(s.encoding, x)
                judge(home, x)
                home.add(x, ids, owner)
            except (EncodingError, ScoreRangeError) as error:
                if not fit_again(home, x, rows=True):
                    more = ": declare an encoding of longer rows" if isinstance(error, ScoreRangeError) else ""
                    raise type(error)(f"{error}{more}") from None
                home.add(x, ids, owner)

    def remove_ids(self, x: Any) -> int:
        """Delete rows.

        Ids that ``add`` gave move up, as in faiss's IndexFlat; ids of the caller's stay, as in its IndexIDMap.

        Parameters
        ----------
        x : array_like of int or IDSelector
            (n,) ids, or a selector, also of faiss.

        Returns
        -------
        int
            How many rows were deleted.
        """
        with self._home.lock:
            if not self.ntotal:
                selected(x, np.empty(0, np.int64))
                return 0
            index = self._home.user.index()
            positions = np.flatnonzero(selected(x, self._home.labels(index, self._mapped)))
            if len(positions):
                self._home.remove(index, positions)
            return len(positions)

    def reset(self) -> None:
        """Delete all rows, owners and keys; the encoding stays."""
        with self._home.lock:
            self._home.reset()

    def reconstruct(self, key: int) -> Floats:
        """Return one row. Its owner fetches the whole batch of the row and decrypts it.

        Parameters
        ----------
        key : int
            The id.

        Returns
        -------
        ndarray
            float32 (d,), decrypted by their owners, as they were quantised. Secret.

        Raises
        ------
        NotFoundError
            No row has such an id.
        """
        return np.asarray(self.reconstruct_batch(np.array([key]))[0])

    def reconstruct_n(self, n0: int = 0, ni: int = -1) -> Floats:
        """Return rows with consecutive ids.

        Parameters
        ----------
        n0 : int
            The first id.
        ni : int
            How many; -1 for all from ``n0`` on.

        Returns
        -------
        ndarray
            float32 (ni, d), decrypted by their owners, as they were quantised. Secret.

        Raises
        ------
        NotFoundError
            No row has such an id.
        """
        n0, ni = int(n0), int(ni)
        return self.reconstruct_batch(np.arange(n0, n0 + (self.ntotal - n0 if ni == -1 else ni)))

    def reconstruct_batch(self, key: npt.ArrayLike) -> Floats:
        """Return rows by their ids; the last one added where an id occurs twice.

        Parameters
        ----------
        key : array_like of int
            (n,) ids.

        Returns
        -------
        ndarray
            float32 (n, d), decrypted by their owners, as they were quantised. Secret.

        Raises
        ------
        NotFoundError
            No row has such an id.
        """
        keys = as_ids(key)
        with self._home.lock:
            if not len(keys):
                return np.empty((0, self.d), np.float32)
            if not self.ntotal:
                raise NotFoundError("the index is empty")
            index = self._home.user.index()
            labels = self._home.labels(index, self._mapped)
            order = np.argsort(labels, kind="stable")
            at = np.searchsorted(labels[order], keys, side="right") - 1
            if (at < 0).any() or (labels[order[at]] != keys).any():
                raise NotFoundError("no row has this id")
            return self._home.rows(index, order[at]).astype(np.float32)

    @property
    def code_size(self) -> int:
        """Bytes of a row in the clear (int)."""
        return 4 * self.d

    def sa_code_size(self) -> int:
        """Return the bytes of a row in the clear.

        Returns
        -------
        int
        """
        return self.code_size

    def check_compatible_for_merge(self, other: Rows) -> None:
        """Check that :meth:`merge_from` can take the rows of another index.

        Parameters
        ----------
        other : Index
            The other index.

        Raises
        ------
        ParameterError
            Not an index of mipp, the same index, another d or metric, or another kind of ids.
        """
        if not isinstance(other, Rows) or other._home is self._home:
            raise ParameterError("rows are merged from another index of mipp")
        if (other.d, other.metric_type) != (self.d, self.metric_type):
            raise ParameterError("the other index must be of the same d and metric")
        if other.ntotal and other._mapped is not self._mapped:
            raise ParameterError("one of the indexes has ids of the caller's, the other numbers rows by their places")

    def merge_from(self, other: Rows, add_id: int = 0) -> None:
        """Move all rows of another index here: its owners decrypt them, owners of the same names add them here.

        The other index is empty then; if this fails, it still has all, and this one perhaps some of them.

        Parameters
        ----------
        other : Index
            The other index.
        add_id : int
            Added to ids of the caller's.

        Raises
        ------
        ParameterError
            As :meth:`check_compatible_for_merge`.
        EncodingError, ScoreRangeError
            As :meth:`add`.
        """
        self.check_compatible_for_merge(other)
        first, second = sorted((self._home, other._home), key=id)  # so that two that merge each other do not wait
        with first.lock, second.lock:
            for batch, x in other._home.parts():
                self._add(x.astype(np.float32), None if batch.ids is None else batch.ids + int(add_id), batch.owner)
            other.reset()

    def _vectors(self, x: npt.ArrayLike) -> Floats:
        """(n, d) float32, C-contiguous, finite."""
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise DTypeError(f"vectors must be real numbers, not {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ShapeError(f"vectors must have shape (n, {self.d}), not {x.shape}")
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(x).all():
            raise EncodingError("vectors hold NaN or infinite values")
        return x
