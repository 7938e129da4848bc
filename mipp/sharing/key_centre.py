"""A key centre's side: the products of its keystream with query shares, made from keys alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..params import Params
from ._renamed import renamed
from .words import label_array

__all__ = ["Run", "batch_schedules", "key_centre_product", "key_centre_rows", "key_centre_words", "keystream_words"]


@renamed(k="ring_bits")
def batch_schedules(
    server_key: bytes,
    nonces: Sequence[bytes],
    dims: Sequence[int],
    rows: Sequence[int],
    ring_bits: int,
    *,
    threads: int | None = None,
) -> _core.KeySchedules:
    """Make the AES key schedules of an owner's batches at a key centre.

    Parameters
    ----------
    server_key : bytes
        The owner's key at this key centre, 32 bytes (:meth:`OwnerKeys.server_key`). Secret.
    nonces : sequence of bytes
        Nonces of the batches, 16 bytes each.
    dims, rows : sequence of int
        Features per row, and number of rows, of each batch when it was uploaded.
    ring_bits : int
        Bits of a ring word.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    KeySchedules
        Round keys in native memory, wiped when freed. Secret.

    Raises
    ------
    ParameterError
        A nonce has another length.

    Examples
    --------
    >>> from mipp.sharing import batch_schedules
    >>> len(batch_schedules(bytes(32), [b"a" * 16, b"b" * 16], [8, 8], [1000, 20], 32))
    2
    """
    infos = [schedule.batch_info(n, ring_bits, d, r) for n, d, r in zip(nonces, dims, rows, strict=True)]
    return _core.KeySchedules(server_key, label_array(infos), threads or 0)


@dataclasses.dataclass(frozen=True)
class Run:
    """Row ranges of several batches, in the order of the score shares.

    Parameters
    ----------
    index : ndarray of int64, shape (R,)
        Number of the batch in its :func:`batch_schedules`.
    first_row : ndarray of int64, shape (R,)
        First row of each range, in the uploaded batch.
    count : ndarray of int64, shape (R,)
        Number of rows of each range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import Run
    >>> run = Run(np.array([0, 1]), np.array([0, 5]), np.array([1000, 15]))  # batch 0, then rows 5 to 19 of batch 1
    >>> int(run.count.sum())
    1015
    """

    index: np.ndarray
    first_row: np.ndarray
    count: np.ndarray


@renamed(columns="query_shares")
def key_centre_product(
    schedules: _core.KeySchedules, run: Run, query_shares: np.ndarray, out: np.ndarray, *, threads: int | None = None
) -> None:
    """Compute a key centre's products: keystream rows times query shares.

    The keystream is made in registers and never stored.

    Parameters
    ----------
    schedules : KeySchedules
        Key schedules of one owner's batches. Secret.
    run : Run
        Rows, in the order of ``out``.
    query_shares : ndarray, shape (B, D), dtype of the ring
        This key centre's query shares. Secret.
    out : ndarray, shape (B, N), dtype of the ring
        Where to write; N is the total of ``run.count``. Rows of ``out`` may lie apart.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Arrays or ranges that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import ring
    >>> from mipp.params import Params
    >>> from mipp.sharing import Run, batch_schedules, key_centre_product, key_centre_words
    >>> schedules = batch_schedules(bytes(32), [bytes(16)], [8], [100], 32)
    >>> run = Run(np.array([0]), np.array([0]), np.array([100]))
    >>> query, out = np.ones((1, 8), np.uint32), np.empty((1, 100), np.uint32)
    >>> key_centre_product(schedules, run, query, out)
    >>> np.array_equal(out, ring.matmul(key_centre_words(schedules, run, Params(), 8), query))
    True
    """
    _core.keystream_matmul(schedules, run.index, run.first_row, run.count, query_shares, out, threads or 0)


def key_centre_rows(schedules: _core.KeySchedules, run: Run, params: Params, dim: int) -> np.ndarray:
    """Compute minus the keystream of rows: added to masked rows, as one cloud alone stores them, it gives plain rows.

    Rows x are stored as x + p modulo 2^ring_bits, p being the keystream; the result is -p.

    Parameters
    ----------
    schedules : KeySchedules
        Key schedules of one owner's batches. Secret.
    run : Run
        Rows.
    params : Params
        Parameters of the deployment.
    dim : int
        Features per row.

    Returns
    -------
    ndarray, shape (N, dim), dtype of the ring
        Words; N is the total of ``run.count``. Secret.

    Examples
    --------
    >>> import os
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import OwnerKeys, Run, batch_schedules, key_centre_rows, share_rows
    >>> params = Params(2, 1, 32, "paillier")
    >>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), params)
    >>> shared = share_rows(np.array([[1, 2, 3]]), keys)
    >>> schedules = batch_schedules(keys.server_key(2), [shared.nonce], [3], [1], 32)
    >>> run = Run(np.array([0]), np.array([0]), np.array([1]))
    >>> shared.shares[1][:, :3] + key_centre_rows(schedules, run, params, 3)
    array([[1, 2, 3]], dtype=uint32)
    """
    return np.negative(key_centre_words(schedules, run, params, dim)[:, :dim])


def key_centre_words(schedules: _core.KeySchedules, run: Run, params: Params, dim: int) -> np.ndarray:
    """Compute a key centre's share of rows: their keystream.

    Parameters
    ----------
    schedules : KeySchedules
        Key schedules of one owner's batches. Secret.
    run : Run
        Rows.
    params : Params
        Parameters of the deployment.
    dim : int
        Features per row.

    Returns
    -------
    ndarray, shape (N, D), dtype of the ring
        Words; N is the total of ``run.count``, D is ``params.padded(dim)``. Secret.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import Run, batch_schedules, key_centre_words
    >>> schedules = batch_schedules(bytes(32), [bytes(16)], [3], [100], 32)
    >>> key_centre_words(schedules, Run(np.array([0]), np.array([10]), np.array([5])), Params(), 3).shape
    (5, 4)
    """
    return keystream_words(schedules, run, params.padded(dim), params.dtype)


def keystream_words(schedules: _core.KeySchedules, run: Run, width: int, dtype: np.dtype) -> np.ndarray:
    """Compute the keystream of rows, as :func:`key_centre_words` does, where the stored width of a row is known.

    Parameters
    ----------
    schedules : KeySchedules
        Key schedules of one owner's batches. Secret.
    run : Run
        Rows.
    width : int
        Words of a stored row, whole AES blocks.
    dtype : dtype
        Of the ring.

    Returns
    -------
    ndarray, shape (N, width), dtype of the ring
        Words; N is the total of ``run.count``. Secret.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import Run, batch_schedules, keystream_words
    >>> schedules = batch_schedules(bytes(32), [bytes(16)], [3], [100], 32)
    >>> keystream_words(schedules, Run(np.array([0]), np.array([10]), np.array([5])), 4, np.dtype(np.uint32)).shape
    (5, 4)
    """
    blocks = width * dtype.itemsize // 16
    out = np.empty((int(run.count.sum()), width), dtype)
    start = 0
    for segment, first, count in zip(run.index.tolist(), run.first_row.tolist(), run.count.tolist(), strict=True):
        _core.keystream_words(schedules, segment, first * blocks, out[start : start + count].reshape(-1))
        start += count
    return out
