"""What the classes of both benchmark projects share: vectors made ready for their metric, and memory."""

from __future__ import annotations

import resource
import sys

import numpy as np
import numpy.typing as npt

from ...errors import ParameterError

__all__ = ["grown_kib", "prepared", "resident_kib"]


def prepared(metric: str, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Make vectors ready for a search by inner product or Euclidean distance.

    Parameters
    ----------
    metric : str
        As benchmarks name it: unit vectors for ``angular`` and +-1 for ``hamming``, so that larger products are
        nearer; else nothing changes.
    x : array_like
        (n, d) vectors. Secret.

    Returns
    -------
    ndarray
        float32 (n, d).

    Raises
    ------
    ParameterError
        ``hamming`` and numbers other than 0 and 1.

    Examples
    --------
    >>> from mipp.compat.ann_benchmarks.common import prepared
    >>> prepared("angular", [[3.0, 4.0]]).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    data = np.asarray(x)
    if metric == "hamming":
        if not ((data == 0) | (data == 1)).all():
            raise ParameterError("hamming is for bits")
        return np.where(data == 1, np.float32(1), np.float32(-1))
    if metric == "angular":
        wide = data.astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        return np.asarray((wide / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32))
    return np.asarray(data, np.float32)


def grown_kib(now: float, before: float) -> float:
    """Compute by how much the memory of a process grew.

    Parameters
    ----------
    now : float
        KiB.
    before : float
        KiB.

    Returns
    -------
    float
        KiB; 0 if the process uses less than before, since earlier work gave memory back in between.

    Examples
    --------
    >>> from mipp.compat.ann_benchmarks.common import grown_kib
    >>> grown_kib(120.0, 100.0), grown_kib(80.0, 100.0)
    (20.0, 0.0)
    """
    return max(0.0, now - before)


def resident_kib() -> float:
    """Measure the memory of this process now.

    Returns
    -------
    float
        KiB; where the system is not Linux, the most it ever was.

    Examples
    --------
    >>> from mipp.compat.ann_benchmarks.common import resident_kib
    >>> resident_kib() > 1000
    True
    """
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
