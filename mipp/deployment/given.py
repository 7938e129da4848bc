"""Arguments of callers who make and open deployments, checked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import features, schemes
from ..client.given import whole_number
from ..encoding import Encoding
from ..encoding.bounds import ranking_problem
from ..encoding.clusters import Clusters
from ..errors import DTypeError, ParameterError, ScoreRangeError
from ..io.window import check_window
from ..mpc.facts import unrankable
from ..params import Params
from ..rpc.description import check_clusters
from ..rpc.grants import offered_rankings
from ..rpc.records import check_record_bytes

__all__ = ["Index", "checked_index", "checked_rankings", "checked_threads", "folder_path"]


class Index(NamedTuple):
    """The public choices that an index is made with; fields as of :class:`~mipp.rpc.description.DeploymentConfig`."""

    params: Params
    encoding: Encoding
    descriptor: str
    descriptor_version: int
    window: tuple[float, float] | None
    rankings: tuple[str, ...]
    record_bytes: int = 0
    clusters: Clusters | None = None


def checked_index(
    encoding: Encoding,
    *,
    descriptor: str = "",
    scheme: str | None = None,
    clouds: int | None = None,
    window: tuple[float, float] | None = None,
    rankings: Sequence[str] | None = None,
    preview_size: int = 0,
    clusters: Clusters | None = None,
) -> Index:
    """Check the public choices that an index is made with against each other.

    Parameters
    ----------
    encoding, descriptor, scheme, clouds, window, rankings, preview_size, clusters
        As of :meth:`mipp.Deployment.create`.

    Returns
    -------
    Index
        The choices, complete.

    Raises
    ------
    ParameterError, DTypeError
        A value out of range, or of another type.
    ScoreRangeError
        As of :func:`checked_rankings`.
    """
    if not isinstance(encoding, Encoding):
        raise DTypeError(f"an encoding is an mipp.Encoding, not {type(encoding).__name__}")
    if not isinstance(descriptor, str):
        raise DTypeError(f"a descriptor is named by text, not {type(descriptor).__name__}")
    version = 0
    if descriptor:
        found = features.get(descriptor)
        descriptor, version = found.name, found.version
        if found.code.dim != encoding.dim:
            raise ParameterError(
                f"the encoding is for {encoding.dim} features, the descriptor {descriptor} has {found.code.dim}"
            )
    chosen = schemes.get(schemes.of_clouds(checked_clouds(clouds)) if scheme is None else scheme)
    params = chosen.params(encoding.ring_bits, checked_clouds(clouds))
    chosen.check_encoding(encoding)
    if not encoding.score_range[1]:
        raise ParameterError("the encoding gives every score the value 0")
    made_for = checked_rankings(rankings, params, encoding)
    if clusters is not None:
        if not isinstance(clusters, Clusters):
            raise DTypeError(f"clusters are mipp.encoding.clusters.Clusters, not {type(clusters).__name__}")
        check_clusters(clusters, params, encoding)
        if "server" not in (made_for or offered_rankings(params)):
            raise ParameterError("clusters are for an index that servers rank, in the scheme shares")
    return Index(
        params, encoding, descriptor, version, check_window(window), made_for, _checked_records(preview_size, params),
        clusters,
    )  # fmt: skip


def checked_rankings(rankings: Sequence[str] | None, params: Params, encoding: Encoding) -> tuple[str, ...]:
    """Check the rankings that an index is made for against its scheme and encoding.

    Parameters
    ----------
    rankings : sequence of str or None
        Rankings that owners may grant, the default first; None for all that the scheme has.
    params : Params
        Of the scheme.
    encoding : Encoding
        Of the index.

    Returns
    -------
    tuple of str
        The rankings; empty for all. For these a warning says so if the encoding does not allow the default.

    Raises
    ------
    ParameterError
        Rankings that the scheme does not have, that are repeated, or none at all.
    ScoreRangeError
        The encoding does not allow servers to compare scores, and ``rankings`` names more than ``user``.
    """
    offered = offered_rankings(params)
    if rankings is None:
        if offered[0] != "user" and (problem := ranking_problem(encoding)):
            warnings.warn(
                f"{problem}: the default search of this index is refused, users that are granted it can rank; make the "
                'index with rankings=("user",), a larger ring or fewer bits',
                stacklevel=4,
            )
        return ()
    if isinstance(rankings, str) or not isinstance(rankings, Iterable):
        raise ParameterError('rankings are a sequence of names, such as ("server",)')
    chosen = tuple(str(r) for r in rankings)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(offered):
        known = ", ".join(f'"{r}"' for r in offered)
        raise ParameterError(f"rankings of an index in this scheme are one or more, each once, of {known}")
    if set(chosen) != {"user"} and ranking_problem(encoding):
        raise ScoreRangeError(unrankable(encoding))
    return chosen


def _checked_records(preview_size: Any, params: Params) -> int:
    """Bytes of a record of a new index; ParameterError where users could not fetch it."""
    size = check_record_bytes(preview_size)
    if size and len(params.clouds) == 1:
        raise ParameterError(
            f"one cloud keeps no records that a user could fetch, since that takes two clouds: preview_size is 0, not "
            f"{size} (mipp init --preview-size 0)"
        )
    return size


def checked_clouds(clouds: Any) -> int | None:
    """A number of clouds that some scheme has, or None; DTypeError or ParameterError for anything else."""
    if clouds is None:
        return None
    count = whole_number(clouds, "clouds")
    if count not in schemes.CLOUD_COUNTS:
        *others, last = map(str, schemes.CLOUD_COUNTS)
        raise ParameterError(f"a deployment has {', '.join(others)} or {last} clouds, not {count}")
    return count


def checked_threads(threads: Any) -> int | None:
    """A number of threads, or None; ParameterError for anything but a positive integer."""
    if threads is None:
        return None
    if whole_number(threads, "threads") < 1:
        raise ParameterError(f"threads is a positive integer, not {threads!r}")
    return int(threads)


def folder_path(folder: Any) -> Path:
    """A folder as a path; DTypeError for a value that is neither text nor a path."""
    try:
        return Path(os.fsdecode(folder))
    except TypeError:
        raise DTypeError(f"a folder is a path or text, not {type(folder).__name__}") from None
