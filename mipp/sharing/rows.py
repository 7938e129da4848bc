"""An owner's side: keys, and rows to shares and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import ParameterError, ShapeError
from ..params import MASKED, Params
from . import constants
from .words import as_words, label_array

__all__ = ["MAX_BLOCKS", "OwnerKeys", "SharedRows", "convert_share", "open_share", "share_rows"]

#: AES blocks of keystream that one batch may take
MAX_BLOCKS = 1 << 32
_SIGNED: dict[int, np.dtype[Any]] = {2: np.dtype("<i2"), 4: np.dtype("<i4"), 8: np.dtype("<i8")}


class OwnerKeys:
    """An owner's secret keys in one registration.

    Parameters
    ----------
    root : bytes
        32 random bytes. Secret.
    deployment : bytes
        Id of the deployment, 16 bytes. Public.
    registration : bytes
        16 random bytes, new for each registration. Public.
    params : Params
        Parameters of the deployment.

    Attributes
    ----------
    deployment, registration, params
        As given.

    Raises
    ------
    ParameterError
        A value has another length.

    Notes
    -----
    The keys do not pickle, and the repr does not show them.

    Examples
    --------
    >>> import os
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys
    >>> keys = OwnerKeys(os.urandom(32), bytes(16), os.urandom(16), Params())
    >>> keys
    OwnerKeys(deployment=00000000000000000000000000000000, secret hidden)
    >>> len(keys.server_key(3))  # goes to the key centre, once
    32
    """

    __slots__ = ("_root", "deployment", "params", "registration")

    def __init__(self, root: bytes, deployment: bytes, registration: bytes, params: Params) -> None:
        if len(root) != 32 or len(deployment) != 16 or len(registration) != 16:
            raise ParameterError("an owner root has 32 bytes, deployment id and registration nonce 16")
        self._root, self.deployment, self.registration, self.params = root, deployment, registration, params

    def __repr__(self) -> str:
        return f"OwnerKeys(deployment={self.deployment.hex()}, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("owner keys are secret and do not pickle")

    def server_key(self, server: int) -> bytes:
        """Derive the key that the owner hands to a key centre once, sealed.

        Parameters
        ----------
        server : int
            Number of the key centre.

        Returns
        -------
        bytes
            32 bytes. Secret.

        Raises
        ------
        ParameterError
            The server is not a key centre.
        """
        if server not in self.params.key_centres:
            raise ParameterError(f"server {server} is not a key centre; those are {list(self.params.key_centres)}")
        p = self.params
        names = self.deployment, self.registration
        return schedule.key_centre_key(self._root, *names, *p.layout, p.point_number(server), p.sharing)

    def fresh_nonce(self, rows: np.ndarray, encoding_hash: bytes, digest: bytes | None = None) -> bytes:
        """Draw a batch nonce from fresh randomness and the content.

        Parameters
        ----------
        rows : ndarray
            Rows of the batch. Secret.
        encoding_hash : bytes
            Hash of the index's encoding.
        digest : bytes, optional
            SHA-256 of the rows' bytes, if it is known; it enters in their place. Secret.

        Returns
        -------
        bytes
            16 bytes. Public.
        """
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data if digest is None else digest
        return schedule.batch_nonce(self._root, (content, encoding_hash))


@dataclasses.dataclass(frozen=True, repr=False)
class SharedRows:
    """One encrypted batch, as :func:`share_rows` makes it.

    Parameters
    ----------
    nonce : bytes
        The batch's id: 16 bytes. Public.
    dim, rows : int
        Features per row, and number of rows. Public.
    shares : dict of int to ndarray, shape (rows, D)
        Ring words for each cloud, D being ``params.padded(dim)``. Each goes to its cloud only.

    Examples
    --------
    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, share_rows
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), Params())
    >>> shared = share_rows(np.ones((5, 3), int), keys)
    >>> shared.rows, shared.dim, shared.shares[1].shape, shared.shares[1].dtype
    (5, 3, (5, 4), dtype('uint32'))
    """

    nonce: bytes
    dim: int
    rows: int
    shares: dict[int, np.ndarray]

    def __repr__(self) -> str:
        return f"SharedRows(batch={self.nonce.hex()}, rows={self.rows}, dim={self.dim})"


def share_rows(
    rows: np.ndarray,
    keys: OwnerKeys,
    encoding_hash: bytes = b"",
    *,
    digest: bytes | None = None,
    threads: int | None = None,
    empty: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty,
) -> SharedRows:
    """Encrypt one batch of rows under fresh keystream.

    Parameters
    ----------
    rows : array_like of int, shape (N, dim)
        Integers that fit the ring, signed or as its words; N >= 1. Secret.
    keys : OwnerKeys
        The owner's keys.
    encoding_hash : bytes
        Hash of the index's encoding, 32 bytes; it enters the nonce.
    digest : bytes, optional
        As of :meth:`OwnerKeys.fresh_nonce`.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.
    empty : callable
        Makes the shares' arrays, as :func:`numpy.empty` does.

    Returns
    -------
    SharedRows
        Shares for the clouds. Any t servers together, key centres included, see uniformly random words.

    Raises
    ------
    DTypeError
        The rows are not integers.
    ShapeError
        The rows are not a matrix, or there are none.
    ParameterError
        An integer does not fit the ring, or there are too many rows for one batch (2^32 AES blocks).

    Examples
    --------
    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, open_share, share_rows
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), Params())
    >>> shared = share_rows(np.array([[1, -2, 3]]), keys)
    >>> sorted(shared.shares)  # clouds 1 and 2; the key centre gets nothing
    [1, 2]
    >>> open_share(shared.shares[1], 1, shared.nonce, 3, keys)
    array([[ 1, -2,  3]], dtype=int32)
    """
    words = as_words(rows, keys.params, "rows")
    if not len(words):
        raise ShapeError("a batch needs at least one row")
    return _share_rows(words, keys, keys.fresh_nonce(words, encoding_hash, digest), threads, empty)


def _share_rows(
    words: np.ndarray, keys: OwnerKeys, nonce: bytes, threads: int | None, empty: Any = np.empty
) -> SharedRows:
    """Share rows under a given nonce, for :func:`share_rows` and known answers. A repeated nonce reveals the rows."""
    p = keys.params
    n, dim = words.shape
    width = p.padded(dim)
    if n * width * p.ring_bits // 128 > MAX_BLOCKS:
        raise ParameterError(f"{n} rows of {dim} are too many for one batch (2^32 AES blocks)")
    infos = label_array([schedule.batch_info(nonce, p.ring_bits, dim, n)])
    schedules = [_core.KeySchedules(keys.server_key(s), infos, 1) for s in p.key_centres]
    outs = [empty((n, width), p.dtype) for _ in p.clouds]
    if p.sharing == MASKED:  # one cloud, and the keystream of one key centre as a mask
        masked = outs[0]
        _core.keystream_words(schedules[0], 0, 0, masked.reshape(-1))
        masked[:, :dim] += words
        return SharedRows(nonce, dim, n, {1: masked})
    _core.share_rows(words, schedules, [0] * p.t, 0, constants.row_matrices(p), outs, threads or 0)
    return SharedRows(nonce, dim, n, dict(zip(p.clouds, outs, strict=True)))


def open_share(
    share: np.ndarray,
    server: int,
    nonce: bytes,
    dim: int,
    keys: OwnerKeys,
    *,
    rows: int | None = None,
    ordinals: np.ndarray | None = None,
) -> np.ndarray:
    """Recover an owner's rows from the share that one cloud holds.

    Parameters
    ----------
    share : ndarray, shape (N, D), dtype of the ring
        Words of the cloud.
    server : int
        Number of the cloud.
    nonce : bytes
        Nonce of the batch.
    dim : int
        Features per row.
    keys : OwnerKeys
        The owner's keys.
    rows : int, optional
        Number of rows that the batch had when it was uploaded; default N.
    ordinals : ndarray of int, shape (N,), optional
        Row numbers, in the uploaded batch, of the stored rows; needed if rows were removed.

    Returns
    -------
    ndarray of int16, int32 or int64, shape (N, dim)
        The rows. Secret.

    Raises
    ------
    ParameterError
        The server is not a cloud.
    DTypeError, ShapeError
        The share has another dtype or number of words.

    Examples
    --------
    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, open_share, share_rows
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), Params())
    >>> shared = share_rows(np.array([[7, 8], [9, -9]]), keys)
    >>> open_share(shared.shares[2][1:], 2, shared.nonce, 2, keys, rows=2, ordinals=np.array([1]))
    array([[ 9, -9]], dtype=int32)
    """
    p = keys.params
    if server not in p.clouds:
        raise ParameterError(f"server {server} is not a cloud")
    share = _share_words(share, p, dim)
    streams = _key_streams(keys, nonce, dim, len(share), rows, ordinals)
    if p.sharing == MASKED:
        return np.ascontiguousarray((share - streams[0])[:, :dim]).view(_SIGNED[p.dtype.itemsize])
    ring = constants.galois_ring(p)
    nodes = [constants.server_point(p, s) for s in (server, *p.key_centres)]
    matrices = np.array([[ring.matrix(w) for w in ring.lagrange(nodes, ring.point(0))]], p.dtype)
    out = np.empty(share.shape, p.dtype)
    _core.combine([share, *streams], matrices, [out], 0)
    return np.ascontiguousarray(out[:, :dim]).view(_SIGNED[p.dtype.itemsize])


def convert_share(
    share: np.ndarray,
    server: int,
    target: int,
    nonce: bytes,
    dim: int,
    keys: OwnerKeys,
    *,
    rows: int | None = None,
    ordinals: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Compute the words that another cloud holds of an owner's rows, from those of one cloud and the owner's keys.

    A row's polynomial is fixed by one cloud's words and the keystream of all key centres. So two clouds that hold the
    same rows agree word for word.

    Parameters
    ----------
    share : ndarray, shape (N, D), dtype of the ring
        Words of the cloud. Secret.
    server, target : int
        Numbers of the cloud and of the other one.
    nonce, dim, keys, rows, ordinals
        As for :func:`open_share`.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray, shape (N, D), dtype of the ring
        Words of the other cloud. Secret: with the share, they give the rows.

    Raises
    ------
    ParameterError
        Servers that are not two clouds, as in schemes with one cloud.
    DTypeError, ShapeError
        The share has another dtype or number of words.

    Examples
    --------
    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, convert_share, share_rows
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), Params())
    >>> shared = share_rows(np.array([[7, 8], [9, -9]]), keys)
    >>> bool((convert_share(shared.shares[1], 1, 2, shared.nonce, 2, keys) == shared.shares[2]).all())
    True
    """
    p = keys.params
    if server not in p.clouds or target not in p.clouds or server == target:
        raise ParameterError(f"servers {server} and {target} are not two clouds")
    share = _share_words(share, p, dim)
    streams = _key_streams(keys, nonce, dim, len(share), rows, ordinals)
    holders = (server, *p.key_centres)
    matrices = np.array([[constants.completion_matrix(p, holder, holders, target) for holder in holders]], p.dtype)
    out = np.empty(share.shape, p.dtype)
    _core.combine([share, *streams], matrices, [out], threads or 0)
    return out


def _share_words(share: np.ndarray, p: Params, dim: int) -> np.ndarray:
    """A share, checked to be one of rows of so many features."""
    share = as_words(share, p, "share")
    if share.shape[1] != p.padded(dim):
        raise ShapeError(f"a share of {dim} features has {p.padded(dim)} words per row, not {share.shape[1]}")
    return share


def _key_streams(
    keys: OwnerKeys, nonce: bytes, dim: int, count: int, rows: int | None, ordinals: np.ndarray | None
) -> list[np.ndarray]:
    """Keystream of each key centre for the rows of :func:`open_share`."""
    p = keys.params
    width, streams = p.padded(dim), []
    infos = label_array([schedule.batch_info(nonce, p.ring_bits, dim, rows if rows is not None else count)])
    for server in p.key_centres:
        stream = np.empty((count, width), p.dtype)
        keyed = _core.KeySchedules(keys.server_key(server), infos, 1)
        blocks = width * p.ring_bits // 128
        if ordinals is None:
            _core.keystream_words(keyed, 0, 0, stream.reshape(-1))
        else:
            for row, ordinal in zip(stream, ordinals, strict=True):
                _core.keystream_words(keyed, 0, int(ordinal) * blocks, row)
        streams.append(stream)
    return streams
