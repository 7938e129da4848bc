"""The indexes that programs make, and opening what is on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import finest_unit
from ...errors import DTypeError, ParameterError
from .home import Home, Settings, temporary_folder
from .index import METRIC_INNER_PRODUCT, METRIC_L2, METRICS, Index

__all__ = ["IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexIDMap", "IndexIDMap2", "of_home", "open_index"]


class IndexFlat(Index):
    """Exact search over encrypted rows, by inner product or squared L2.

    Parameters
    ----------
    d : numbers per vector
    metric : METRIC_INNER_PRODUCT or METRIC_L2
    ring_bits : 16, 32 or 64; 0 lets the data choose between 32 and 64 (:func:`mipp.encoding.finest`)
    ranking : ``"user"``: the user gets all scores and ranks; ``"server"``: the servers find the k nearest, none learns
        a score or an order, and the user learns those only
    encoding : fixes how numbers become integers, so that nothing is fitted; metric and dim must fit
    unit : vectors have length one at most, as for cosines: nothing is fitted either (but with 16 bits)
    folder : where all parties keep their files (made if missing; must hold no index); default a temporary folder that
        goes with the index
    threads : native threads, default all cores

    One process and one folder hold all parties and **all keys**: this shows what encrypted search costs and how exact
    it is, and protects nothing from whoever reads the process or folder. Calls from several threads take turns.
    """

    def __init__(
        self, d: int, metric: int = METRIC_L2, *, ring_bits: int = 0, ranking: str = "user",
        encoding: Encoding | None = None, unit: bool = False, folder: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        if isinstance(d, bool) or not isinstance(d, (int, np.integer)):
            raise DTypeError(f"d must be an integer, not {type(d).__name__}")
        if not 1 <= d <= 1 << 20:
            raise ParameterError(f"d must be from 1 to {1 << 20}, not {d}")
        if metric not in (METRIC_INNER_PRODUCT, METRIC_L2):
            raise ParameterError(f"metric must be METRIC_INNER_PRODUCT or METRIC_L2, not {metric!r}")
        if ranking not in ("user", "server"):
            raise ParameterError(f'ranking must be "user" or "server", not {ranking!r}')
        if ring_bits not in (0, 16, 32, 64):
            raise ParameterError(f"ring_bits must be 16, 32, 64 or 0, not {ring_bits!r}")
        settings = Settings(int(metric), int(d), int(ring_bits), ranking)
        server = ranking == "server"
        if unit and encoding is None and ring_bits != 16:
            encoding = finest_unit(METRICS[metric], int(d), ring_bits=ring_bits or 32, server_ranking=server)
        if encoding is not None:
            if (encoding.metric, encoding.dim) != (METRICS[metric], d):
                raise ParameterError(f"the encoding must be of {METRICS[metric]} and {d} dimensions")
            if server and not encoding.allows_server_ranking:
                raise ParameterError('the encoding leaves no room for ranking="server"')
            settings.encoding, settings.declared = encoding, True
        place = temporary_folder() if folder is None else Path(folder)
        self._home = Home(place, settings, temporary=folder is None, threads=threads)


class IndexFlatIP(IndexFlat):
    """:class:`IndexFlat` by inner product: larger is nearer."""

    def __init__(self, d: int, **options: Any) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT, **options)


class IndexFlatL2(IndexFlat):
    """:class:`IndexFlat` by squared L2 distance: smaller is nearer."""

    def __init__(self, d: int, **options: Any) -> None:
        super().__init__(d, METRIC_L2, **options)


class IndexIDMap(Index):
    """An empty flat index whose rows get ids of the caller's, by ``add_with_ids``.

    Parameters
    ----------
    index : an empty :class:`IndexFlat`; searched by itself it numbers rows by their places, as before, and takes no
        rows but through this object

    Raises
    ------
    ParameterError
        The index has rows, or another map.
    """

    _maps = True

    def __init__(self, index: IndexFlat) -> None:
        if not isinstance(index, IndexFlat):
            raise ParameterError(f"ids are mapped over a flat index of mipp, not {type(index).__name__}")
        with index.home.lock:
            if index.ntotal:
                raise ParameterError("the index must be empty")
            if index.home.settings.fixed_ids:
                raise ParameterError("the index has a map of ids already")
            index.home.settings.fixed_ids = True
            index.home.save()
        self.index, self._home = index, index.home

    @property
    def id_map(self) -> npt.NDArray[np.int64]:
        """The ids in the order of adding, (ntotal,) int64."""
        if not self.ntotal:
            return np.empty(0, np.int64)
        with self._home.lock:
            index = self._home.user.index()
            places, ids = self._home.labels(index, False), self._home.labels(index, True)
        return np.asarray(ids[np.argsort(places)])


class IndexIDMap2(IndexIDMap):
    """The same as :class:`IndexIDMap`, which reconstructs by id too."""


def open_index(folder: str | os.PathLike[str], *, threads: int | None = None) -> Index:
    """Open the index of a folder that was given as ``folder=`` before.

    Raises
    ------
    DeploymentError
        No index, one of another format, open elsewhere, or with rows that were added past it.
    """
    return of_home(Home(Path(folder), None, threads=threads))


def of_home(home: Home) -> Index:
    """The index of a home, with the class that it was made with."""
    kind = IndexFlatL2 if home.settings.metric == METRIC_L2 else IndexFlatIP
    index = kind.__new__(kind)
    index._home = home
    if home.settings.fixed_ids:
        mapped = IndexIDMap2.__new__(IndexIDMap2)
        mapped.index, mapped._home = index, home
        return mapped
    return index
