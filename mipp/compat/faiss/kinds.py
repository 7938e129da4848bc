"""The index classes that programs construct, and opening an index on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...encoding import Encoding
from ...encoding.finest import finest_unit
from ...errors import DTypeError, ParameterError
from .home import METRIC_INNER_PRODUCT, METRIC_L2, METRICS, Home, Settings, temporary_folder
from .index import Index

__all__ = ["IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexIDMap", "IndexIDMap2", "of_home", "open_index"]


class IndexFlat(Index):
    """Exact search over encrypted rows, by inner product or squared L2. As ``faiss.IndexFlat``.

    One process and one folder hold all parties and **all keys**: this shows what encrypted search costs and how exact
    it is, and protects nothing from whoever reads the process or folder. Calls from several threads take turns.

    Parameters
    ----------
    d : int
        Numbers per vector.
    metric : int
        METRIC_INNER_PRODUCT or METRIC_L2.
    ring_bits : int
        16, 32 or 64; 0 lets the data choose between 32 and 64 (:func:`mipp.encoding.finest`). Not in faiss.
    ranking : str
        ``"user"``: the user gets all scores and ranks. ``"server"``: the servers find the k nearest, none of them
        learns a score or an order, and the user learns those k only. Not in faiss.
    encoding : Encoding, optional
        Declares how numbers become integers, so that nothing is fitted; metric and dim must fit. Public. Not in faiss.
    unit : bool
        Declares that vectors have length one at most, as for cosines: nothing is fitted either (but with 16 bits). Not
        in faiss.
    folder : str or path, optional
        Where all parties keep their files (made if missing; must hold no index); default a temporary folder that is
        deleted with the index. Not in faiss.
    threads : int, optional
        Native threads, default all cores. Not in faiss.

    Raises
    ------
    DTypeError, ParameterError
        An argument of another type or out of range; an encoding that does not fit.
    DeploymentError
        The folder holds an index already.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlat(4, faiss.METRIC_INNER_PRODUCT)
    >>> index.add(np.eye(4))
    >>> D, I = index.search([[0, 3, 1, 0]], 2)
    >>> I.tolist(), D.tolist()
    ([[1, 2]], [[3.0, 1.0]])
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
    """:class:`IndexFlat` by inner product: larger is nearer. As ``faiss.IndexFlatIP``.

    Parameters
    ----------
    d : int
        Numbers per vector.
    **options
        Options of :class:`IndexFlat`. Not in faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlatIP(4)
    >>> index.add(np.eye(4))
    >>> index.search([[0, 3, 1, 0]], 1)[1].tolist()
    [[1]]
    """

    def __init__(self, d: int, **options: Any) -> None:
        super().__init__(d, METRIC_INNER_PRODUCT, **options)


class IndexFlatL2(IndexFlat):
    """:class:`IndexFlat` by squared L2 distance: smaller is nearer. As ``faiss.IndexFlatL2``.

    Parameters
    ----------
    d : int
        Numbers per vector.
    **options
        Options of :class:`IndexFlat`. Not in faiss.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexFlatL2(4)
    >>> index.add(np.eye(4))
    >>> index.search([[0, 2, 0, 0]], 1)[0].tolist()
    [[1.0]]
    """

    def __init__(self, d: int, **options: Any) -> None:
        super().__init__(d, METRIC_L2, **options)


class IndexIDMap(Index):
    """A flat index whose rows get ids of the caller's, by ``add_with_ids``. As ``faiss.IndexIDMap``; reconstructs too.

    Parameters
    ----------
    index : IndexFlat
        Empty. Searched by itself it numbers rows by their places, as before; it takes rows through this object only.

    Raises
    ------
    ParameterError
        The index has rows, or another map.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexIDMap(faiss.IndexFlatL2(4))
    >>> index.add_with_ids(np.eye(4), [10, 20, 30, 40])
    >>> index.search([[0, 0, 1, 0]], 1)[1].tolist()
    [[30]]
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
        """The ids in the order of adding, int64 (ntotal,)."""
        if not self.ntotal:
            return np.empty(0, np.int64)
        with self._home.lock:
            index = self._home.user.index()
            places, ids = self._home.labels(index, False), self._home.labels(index, True)
        return np.asarray(ids[np.argsort(places)])


class IndexIDMap2(IndexIDMap):
    """The same as :class:`IndexIDMap`. In faiss only this one reconstructs by id.

    Parameters
    ----------
    index : IndexFlat
        Empty, as for :class:`IndexIDMap`.

    Examples
    --------
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> index = faiss.IndexIDMap2(faiss.IndexFlatL2(4))
    >>> index.add_with_ids(np.eye(4), [10, 20, 30, 40])
    >>> index.reconstruct(30).tolist()
    [0.0, 0.0, 1.0, 0.0]
    """


def open_index(folder: str | os.PathLike[str], *, threads: int | None = None) -> Index:
    """Open the index of a folder that was given as ``folder=`` before. Not in faiss.

    Parameters
    ----------
    folder : str or path
        The folder; it holds **all keys**.
    threads : int, optional
        Native threads, default all cores.

    Returns
    -------
    Index
        Of the class that it was made with.

    Raises
    ------
    DeploymentError
        No index, one of another format, open elsewhere, or with rows that another program added.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import mipp.compat.faiss as faiss
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with faiss.IndexFlatL2(4, folder=pathlib.Path(folder, "index")) as index:
    ...         index.add(np.eye(4))
    ...     with faiss.open_index(pathlib.Path(folder, "index")) as index:
    ...         index.ntotal
    4
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
