"""A lost share, rebuilt by other servers: each sends its masked part, and the parts add up to the share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import DTypeError, ParameterError, ShapeError
from ..params import MASKED, Params
from . import constants
from .words import label_array

__all__ = ["complete_share", "completion_part"]


def completion_part(
    words: np.ndarray,
    server: int,
    holders: Sequence[int],
    target: int,
    params: Params,
    pair_keys: Mapping[int, bytes],
    session: bytes,
    nonce: bytes,
    *,
    first: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """Compute a server's part of the words that another cloud lost, or that a new cloud needs.

    The parts of all ``holders`` add up to the cloud's words (:func:`complete_share`). With one of them missing, the
    others are uniformly random.

    Parameters
    ----------
    words : ndarray, shape (N, D), dtype of the ring
        This server's words of some rows of a batch: as stored, or :func:`key_centre_words`. Secret.
    server : int
        Number of this server, one of ``holders``.
    holders : sequence of int
        Numbers of t+1 servers, clouds or key centres.
    target : int
        Number of the cloud whose words are made.
    params : Params
        Parameters of the deployment, of the scheme ``shares``.
    pair_keys : mapping of int to bytes
        For each other holder, the 32 bytes that both servers share. Secret.
    session : bytes
        32 bytes that all holders agree on, new for each attempt: the masks repeat with it, and must not mask different
        words.
    nonce : bytes
        Nonce of the batch, 16 bytes.
    first : int
        Number of rows of this batch whose parts were made before in the same session: the masks go on after them.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray, shape (N, D), dtype of the ring
        What the server sends to the target, and to nobody else. Secret.

    Raises
    ------
    ParameterError
        Other holders, or a target that is no other cloud; a scheme whose clouds share no rows; a value of another
        length.
    DTypeError, ShapeError
        Words of another dtype, or not whole ring elements.

    Notes
    -----
    The words of t+1 servers fix a row's polynomial, so a weight for each gives the value at the target's point. Each
    pair of holders masks with keystream of its pair key, which one adds and the other subtracts: clouds come before key
    centres, and the former adds.

    Examples
    --------
    Cloud 2 lost its share. Cloud 1 and the key centre rebuild it:

    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, Run, batch_schedules, key_centre_words, share_rows
    >>> from mipp.sharing import complete_share, completion_part
    >>> params, pair_key, session = Params(), os.urandom(32), os.urandom(32)
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), params)
    >>> shared = share_rows(np.array([[1, -2, 3]]), keys)
    >>> schedules = batch_schedules(keys.server_key(3), [shared.nonce], [3], [1], 32)
    >>> stream = key_centre_words(schedules, Run(np.array([0]), np.array([0]), np.array([1])), params, 3)
    >>> one = completion_part(shared.shares[1], 1, (1, 3), 2, params, {3: pair_key}, session, shared.nonce)
    >>> other = completion_part(stream, 3, (1, 3), 2, params, {1: pair_key}, session, shared.nonce)
    >>> bool((complete_share([one, other]) == shared.shares[2]).all())
    True
    """
    chosen = _checked(params, server, holders, target)
    if not isinstance(words, np.ndarray) or words.dtype != params.dtype:
        raise DTypeError(f"words of a share must be an array of {params.dtype}")
    if words.ndim != 2 or words.shape[1] % params.m:
        raise ShapeError(f"words of a share must be (rows, D), D a multiple of {params.m}, not {words.shape}")
    if first < 0:
        raise ParameterError("first must be a number of rows")
    others = [other for other in chosen if other != server]
    if not all(other in pair_keys for other in others):
        raise ParameterError(f"server {server} needs a pair key for each of the servers {others}")
    points = [params.point_number(i) for i in (target, *chosen)]
    label = label_array([schedule.completion_info(session, nonce, points)])
    out = np.empty(words.shape, params.dtype)
    matrix = constants.completion_matrix(params, server, chosen, target)
    _core.combine([np.ascontiguousarray(words)], matrix[None, None], [out], threads or 0)
    flat, count, start = out.reshape(1, -1), np.array([words.size]), first * words.shape[1]
    for other in others:
        former = chosen.index(server) < chosen.index(other)
        _core.zero_share_add(flat, pair_keys[other], label, count, not former, threads or 0, start)
    return out


def _checked(params: Params, server: int, holders: Sequence[int], target: int) -> tuple[int, ...]:
    """The holders in order, clouds before key centres."""
    if params.sharing == MASKED:
        raise ParameterError(f"rows of the scheme {params.scheme!r} are at one cloud, and nobody can rebuild them")
    chosen = tuple(i for i in params.clouds + params.key_centres if i in holders and i != target)
    if len(chosen) != params.t + 1 or len(holders) != len(chosen) or server not in chosen:
        raise ParameterError(
            f"the words of cloud {target} are made by {params.t + 1} other servers, server {server} among them, "
            f"not by {list(holders)}"
        )
    if target not in params.clouds:
        raise ParameterError(f"server {target} is not a cloud")
    return chosen


def complete_share(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Add the parts of all holders up to a cloud's words.

    Parameters
    ----------
    parts : sequence of ndarray, shape (N, D), dtype of the ring
        One part from each holder (:func:`completion_part`). Secret together.

    Returns
    -------
    ndarray, shape (N, D), dtype of the ring
        The cloud's words, byte for byte as the owner sent them. Secret.

    Raises
    ------
    DTypeError, ShapeError
        Parts that are no arrays of ring words, or differ in dtype or shape.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import complete_share
    >>> complete_share([np.array([[65535, 7]], np.uint16), np.array([[3, 1]], np.uint16)])
    array([[2, 8]], dtype=uint16)
    """
    if not parts or any(not isinstance(p, np.ndarray) or p.dtype.kind != "u" for p in parts):
        raise DTypeError("parts of a share must be a list of arrays of ring words")
    if len({p.dtype for p in parts}) != 1:
        raise DTypeError("parts of a share must have one dtype")
    if len({p.shape for p in parts}) != 1:
        raise ShapeError("parts of a share must have one shape")
    first, *others = parts
    total = first.copy()
    for other in others:
        total += other
    return total
