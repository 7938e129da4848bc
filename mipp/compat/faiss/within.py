"""All rows of an index within a threshold, whoever compares; for estimators that have searches by radius."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...client.results import Hits
from ...errors import ParameterError
from .fitting import Floats, prepare_queries
from .index import Index

__all__ = ["within"]

_Rows = npt.NDArray[np.int64]
_Values = npt.NDArray[np.float64]


def within(index: Index, x: Floats, threshold: float, *, values: bool) -> list[tuple[_Rows, _Values]]:
    """Find all rows at least as near as a threshold, which counts as within, for each of several queries.

    With ``ranking="user"`` the user compares all scores. With ``ranking="server"`` the servers compare, and give no
    scores: the nearest rows are then asked for, as many as were found. **So with** ``values`` **the servers learn how
    many rows each query found**, as the k of a search; 0 and 1 look alike. No server learns which rows.

    Parameters
    ----------
    index : Index
        The index, not empty.
    x : ndarray
        float32 (n, d) queries, secret.
    threshold : float
        Largest squared distance, or least inner product. Infinities are thresholds, too.
    values : bool
        Whether values are wanted.

    Returns
    -------
    list of (ndarray, ndarray)
        For each query ids, ascending, and values in the same order; without ``values`` these are empty. Secret.

    Raises
    ------
    ParameterError
        An index of ``ranking="server"`` that was made by an earlier version, without range searches.
    """
    home, found = index.home, list[tuple[_Rows, _Values]]()
    with home.lock:
        if home.settings.ranking == "user":
            for _, all_values, labels in index._all_values(x, None):
                order = np.argsort(labels, kind="stable")
                near = index._sign * all_values[:, order] <= index._sign * threshold
                near &= np.isfinite(all_values[:, order])  # else out of the encoding's range
                for mask, some in zip(near, all_values[:, order], strict=True):
                    found.append((labels[order][mask], some[mask].astype(np.float64)))
            return found
        if "threshold" not in home.deployment.config.offered:
            raise ParameterError("this index was made without range searches; fit it again")
        asked, factors = prepare_queries(home, x)
        for query, factor in zip(asked, factors[:, 0], strict=True):
            found.append(_by_servers(index, query, float(factor), threshold, values))
    return found


def _by_servers(
    index: Index, query: np.ndarray, factor: float, threshold: float, values: bool
) -> tuple[_Rows, _Values]:
    """What servers find within a threshold, for one query that is stretched by a factor."""
    home, none = index.home, (np.empty(0, np.int64), np.empty(0))
    low, high = home.deployment.config.encoding.values(
        np.array([home.deployment.config.encoding.score_range]), query[None]
    )[0]
    sign = index._sign
    if sign * high > sign * threshold * factor:  # not even the best score reaches it
        return none
    hits: Hits | None = None
    count = index.ntotal
    if sign * low > sign * threshold * factor:  # the worst score does not
        hits = home.user.range_search(query, threshold * factor)
        count = len(hits)
    if values:
        nearest: Any = home.user.nearest(query[None], max(1, count), ranking="server")
        rows = home.labels(nearest.index, index._mapped)[nearest.rows[0, :count]]
        order = np.argsort(rows, kind="stable")
        return rows[order], nearest.values[0, :count][order] / factor
    state = home.user.index()
    labels = home.labels(state, index._mapped)
    if hits is None:
        return np.sort(labels), none[1]
    by_id = dict(zip(state.ids(), labels.tolist(), strict=True))
    return np.array(sorted(by_id[hit.batch, hit.row] for hit in hits), np.int64), none[1]
