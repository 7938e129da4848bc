"""Arguments of callers, checked: users, batches, times, numbers, rankings, queries."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from ..encoding import Encoding
from ..encoding.clusters import Clusters
from ..encoding.numbers import said
from ..errors import MippError, ParameterError, UnknownNameError
from ..mpc.facts import require_ranking
from ..rpc.description import DeploymentConfig
from ..rpc.names import is_id

__all__ = [
    "batch_id",
    "checked_ranking",
    "chosen_clusters",
    "clusters_of",
    "encoded_queries",
    "expiry_seconds",
    "fraction",
    "refused_vectors",
    "user_id",
    "whole_number",
]

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"\s*(\d{1,9})\s*([mhdw])\s*", re.ASCII)
_FORMS = (
    'Unix seconds, a date such as "2030-01-31" or "2030-01-31T12:00+01:00" (UTC without an offset), a span from now '
    'such as "12h", "30d" or "2w", a datetime with a time zone, or a timedelta'
)


def expiry_seconds(value: Any, *, now: float | None = None) -> int:
    """An expiry as Unix seconds; 0 for never.

    Parameters
    ----------
    value : int, float, str, datetime, timedelta, numpy.datetime64 or None
        None or 0 for never; Unix seconds; an ISO 8601 date or time, UTC unless it has an offset; a span from now as
        ``"90m"``, ``"12h"``, ``"30d"``, ``"2w"`` or a timedelta; a datetime with a time zone; a ``numpy.datetime64``
        (UTC). A date alone is its first second.
    now : float, optional
        Unix seconds; default this machine's clock.

    Returns
    -------
    int
        Unix seconds, rounded up.

    Raises
    ------
    ParameterError
        Anything else, and a time that is not in the future.
    """
    now = time.time() if now is None else now
    seconds = _unix_seconds(value, now)
    if value is None or (seconds == 0 and _is_number(value)):
        return 0
    if seconds <= now:
        raise ParameterError(f"the expiry {_shown(value)} lies in the past; give a later time, or 0 for never")
    return seconds


def _unix_seconds(value: Any, now: float) -> int:
    if value is None:
        return 0
    if isinstance(value, np.generic):
        if isinstance(value, (np.datetime64, np.timedelta64)) and np.isnat(value):
            raise ParameterError(f"an expiry is {_FORMS}, not NaT")
        if isinstance(value, np.datetime64):
            return int(value.astype("datetime64[s]").astype(np.int64))
        if isinstance(value, np.timedelta64):
            try:
                value = timedelta(seconds=float(value / np.timedelta64(1, "s")))
            except (TypeError, OverflowError):  # months and years have no length of their own
                raise ParameterError(f"an expiry is {_FORMS}; a span in months or years has no fixed length") from None
        else:
            value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        # rounded up, so that a time just ahead is not in the past
        return math.ceil(value)
    if isinstance(value, timedelta):
        return _after(now, value.total_seconds())
    if isinstance(value, str):
        return _from_text(value, now)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ParameterError(f"the expiry {value} has no time zone; use datetime.now(timezone.utc), for example")
        return math.ceil(value.timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    raise ParameterError(f"an expiry is {_FORMS}, not {_shown(value)}")


def _after(now: float, seconds: float) -> int:
    if seconds <= 0:
        raise ParameterError("a span until an expiry must be positive; give a later time, or 0 for never")
    return math.ceil(now + seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, str) and value.strip() == "0")


def _from_text(text: str, now: float) -> int:
    if text.strip().lower() in ("", "never"):
        raise ParameterError(f"an expiry is {_FORMS}; 0 is never")
    if re.fullmatch(r"\s*-?\d{1,20}\s*", text, re.ASCII) and not re.fullmatch(r"\d{8}", text.strip()):
        return int(text)
    if span := _SPAN.fullmatch(text):
        return _after(now, int(span[1]) * _UNITS[span[2]])
    try:
        when = datetime.fromisoformat(text.strip())
        return math.ceil((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise ParameterError(f"an expiry is {_FORMS}, not {text[:80]!r}") from None


def whole_number(value: Any, name: str, *, none: int | None = None) -> int:
    """An integer as Python or numpy has it; None where that means ``none``; else ParameterError."""
    if value is None and none is not None:
        return none
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ParameterError(f"{name} is an integer, not {_shown(value)}")
    return int(value)


def fraction(value: Any, name: str) -> float:
    """A part of a whole, above 0 and at most 1; ParameterError for anything else."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:
        raise ParameterError(f"{name} is a part above 0 and at most 1, not {said(value)}")
    return float(value)


def checked_ranking(ranking: str | None, rankings: Sequence[str], config: DeploymentConfig) -> str:
    """The ranking of a search: one of ``rankings``, the first if None.

    Raises
    ------
    ParameterError
        Any other one, or an index for range searches alone.
    ScoreRangeError
        ``server`` where the encoding does not allow it.
    """
    if ranking is None and rankings:
        ranking = rankings[0]
    if ranking is None or ranking not in rankings:
        if not rankings:
            raise ParameterError(
                "this index is for range searches alone: give a threshold (range_search, mipp search --threshold)"
            )
        offered = " or ".join(f'"{r}"' for r in rankings)
        raise ParameterError(f"ranking must be {offered} in this deployment, not {ranking!r}")
    if ranking == "server":
        require_ranking(config)  # before anything is sent
    return ranking


def clusters_of(config: DeploymentConfig, ranking: str) -> Clusters:
    """The clusters of an index; ParameterError for a search that cannot look at some of them."""
    if not config.params.compares:
        raise ParameterError("this index has no clusters, as its servers do not rank: search without probe")
    if ranking != "server":
        raise ParameterError(f"a search of chosen clusters is ranked by the servers, not with ranking {ranking!r}")
    if config.clusters is None:
        raise ParameterError("this index has no clusters: search all rows, without probe")
    return config.clusters


def chosen_clusters(config: DeploymentConfig, ranking: str, queries: np.ndarray) -> np.ndarray:
    """The cluster of each group that is nearest to each query, (B, groups); secret."""
    clusters = clusters_of(config, ranking)
    return clusters.chosen(clusters.points(config.encoding, np.atleast_2d(queries)))


def encoded_queries(encoding: Encoding, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Queries (B, dim) as an array, and encoded; ParameterError for none. Secret."""
    queries = np.asarray(queries)
    encoded = encoding.encode_queries(queries)
    if not len(encoded):
        raise ParameterError("no queries")
    return queries, encoded


def refused_vectors(encode: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray) -> list[str]:
    """The reason why an encoding refuses each vector; empty for those that it takes.

    Parameters
    ----------
    encode : callable
        ``encode_rows`` or ``encode_queries`` of the encoding.
    vectors : ndarray, (N, dim)
        Secret.

    Returns
    -------
    list of str
        One for each vector.
    """
    try:
        encode(vectors)
        return [""] * len(vectors)
    except MippError:
        out = []
        for row in range(len(vectors)):
            try:
                encode(vectors[row : row + 1])
                out.append("")
            except MippError as error:
                out.append(str(error))
        return out


def batch_id(batch: Any) -> bytes:
    """The 16-byte id of a batch: as it is, as 32 hex digits, or of an object with ``id``; else ParameterError."""
    found = batch if isinstance(batch, (bytes, bytearray, str)) else getattr(batch, "id", batch)
    if isinstance(found, str) and is_id(found):
        return bytes.fromhex(found)
    if isinstance(found, (bytes, bytearray)) and len(found) == 16:
        return bytes(found)
    raise ParameterError(f"a batch is its id, 16 bytes or 32 hex digits, not {_kind(found)}")


def user_id(user: Any, find: Callable[[str], bytes] | None = None) -> bytes:
    """The 16-byte id of a user.

    Parameters
    ----------
    user : User, bytes or str
        A user, its id (16 bytes or 32 hex digits), or its name.
    find : callable, optional
        Looks up the id of a name.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    UnknownNameError
        No user has the name.
    ParameterError
        Anything else.
    """
    found = user if isinstance(user, (bytes, bytearray, memoryview, str)) else getattr(user, "id", user)
    if isinstance(found, str):
        if is_id(found):
            return bytes.fromhex(found)
        if find is None:
            raise ParameterError(f"names such as {found[:80]!r} are not known here; name the user by its object or id")
        try:
            return find(str(found))
        except (LookupError, ParameterError):
            raise UnknownNameError(f"there is no user called {found[:80]!r} in this deployment") from None
    if isinstance(found, (bytes, bytearray, memoryview)) and len(found) == 16:
        return bytes(found)
    raise ParameterError(f"a user is a User object, its id (16 bytes or 32 hex digits) or its name, not {_kind(found)}")


def _kind(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, (bytes, bytearray, memoryview)) else type(value).__name__


def _shown(value: Any) -> str:
    return said(value) if isinstance(value, (int, float, str, date, timedelta)) else type(value).__name__
