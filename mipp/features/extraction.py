"""Descriptors of many images, decoded and computed in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import cpu
from ..errors import DTypeError, MippError, ParameterError
from ..io.window import check_window
from .base import Descriptor
from .registry import get

__all__ = ["Extraction", "Source", "extract", "warm_up"]

Source = Sequence[str | Path | bytes] | Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Extraction:
    """Descriptors of the images that could be read.

    Parameters
    ----------
    values : ndarray
        (n, dim) of the descriptor's dtype, in the order of the source. As secret as the images.
    kept : ndarray
        int64 (n,), index in the source of each row of ``values``.
    errors : list of tuple
        For each image left out: index in the source, path (``"image <index>"`` for an array or bytes), message.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> found = features.extract([np.zeros((8, 8, 3), np.uint8), b"no image"], "cld", workers=1)
    >>> found.kept.tolist(), [name for _, name, _ in found.errors]
    ([0], ['image 1'])
    """

    values: npt.NDArray[Any]
    kept: npt.NDArray[np.int64]
    errors: list[tuple[int, str, str]]


def extract(
    source: Source,
    descriptor: Descriptor | str,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    window: tuple[float, float] | None = None,
) -> Extraction:
    """Extract a descriptor from image files, their contents or arrays, in threads; the order is kept.

    An image that cannot be read, or that the descriptor refuses, is reported in ``errors`` and left out.

    Parameters
    ----------
    source : sequence
        Paths, contents of image files (bytes), or uint8 arrays (H, W, 3) in RGB, also mixed.
    descriptor : Descriptor or str
        A descriptor or its spec.
    workers : int, optional
        Threads; default one per available processor.
    progress : callable, optional
        Called in this thread with 1 after each image, whether it was read or not.
    window : tuple of float, optional
        (low, high) for deep gray files, see :func:`mipp.io.images.load_image`.

    Returns
    -------
    Extraction

    Raises
    ------
    DTypeError, ParameterError, NotFoundError
        A source that is one path instead of a sequence, or holds neither paths nor arrays; no positive number of
        workers; a window that is not two numbers; an unknown descriptor.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> images = [np.full((16, 16, 3), gray, np.uint8) for gray in (0, 255)]
    >>> features.extract(images, "cld", workers=1).values.shape
    (2, 12)
    """
    check_window(window)
    chosen = get(descriptor) if isinstance(descriptor, str) else descriptor
    if not isinstance(chosen, Descriptor):
        raise DTypeError("descriptor must be a Descriptor or its spec")
    if isinstance(source, (str, bytes, os.PathLike)) or not isinstance(source, Iterable):
        raise DTypeError("source must be a sequence of paths or arrays, not one of them")
    items: list[Any] = list(source)
    for item in items:
        if not isinstance(item, (str, os.PathLike, bytes, np.ndarray)):
            raise DTypeError(f"source must hold paths or arrays, not {type(item).__name__}")
    if workers is None:
        workers = cpu.threads()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ParameterError("workers must be a positive int")

    rows: list[npt.NDArray[Any]] = []
    kept: list[int] = []
    errors: list[tuple[int, str, str]] = []
    for index, result in enumerate(_results(items, chosen, min(workers, max(1, len(items))), window)):
        if isinstance(result, str):
            name = f"image {index}" if isinstance(items[index], (np.ndarray, bytes)) else str(items[index])
            errors.append((index, name, result))
        else:
            rows.append(result)
            kept.append(index)
        if progress is not None:
            progress(1)
    values = np.stack(rows) if rows else np.empty((0, chosen.dim), chosen.dtype)
    return Extraction(values, np.array(kept, np.int64), errors)


def warm_up(descriptor: Descriptor | str) -> int:
    """Compile, or load from their cache, all functions that extraction of a descriptor needs.

    The first extraction does the same; this does it ahead. Where compiled functions can be kept, later processes load
    them.

    Parameters
    ----------
    descriptor : Descriptor or str
        A descriptor or its spec.

    Returns
    -------
    int
        How many functions were compiled; 0 if all were loaded.

    Raises
    ------
    DTypeError, ParameterError, NotFoundError
        Not a descriptor, or an unknown one.

    Examples
    --------
    >>> from mipp import features
    >>> compiled = features.warm_up("cld")
    >>> features.warm_up("cld")  # the second time everything is there
    0
    """
    chosen = get(descriptor) if isinstance(descriptor, str) else descriptor
    if not isinstance(chosen, Descriptor):
        raise DTypeError("descriptor must be a Descriptor or its spec")
    from ._kernels._compile import compilations  # numba loads at the first extraction, not at import

    before = compilations()
    # a small image is enlarged first, by a function of its own
    for side in (96, 24):
        chosen.extract(np.zeros((side, side, 3), np.uint8))
    return compilations() - before


def _results(
    items: list[Any], descriptor: Descriptor, workers: int, window: tuple[float, float] | None
) -> Iterator[npt.NDArray[Any] | str]:
    from ..io.images import load_image  # Pillow loads at the first extraction, not at import

    def one(item: Any) -> npt.NDArray[Any] | str:
        try:
            return descriptor.extract(item if isinstance(item, np.ndarray) else load_image(item, window=window))
        except MippError as error:
            return str(error)

    if workers == 1:
        yield from map(one, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mipp-extract")
    try:
        yield from pool.map(one, items)
    finally:
        # on an interrupt, images that have not begun are dropped
        pool.shutdown(cancel_futures=True)
