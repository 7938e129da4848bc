"""Features of query images, as an index of images takes them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import features
from ..errors import DeploymentError, DTypeError, ImageError, ParameterError
from ..io.files import read_regular
from ..rpc.description import DeploymentConfig
from .image_file import IMAGE_FILE_BYTES

__all__ = ["image_reason", "index_descriptor", "query_vector", "query_vectors"]


def index_descriptor(config: DeploymentConfig) -> features.Descriptor:
    """The descriptor of an index of images.

    Raises
    ------
    ParameterError
        An index of vectors.
    DeploymentError
        The index holds features of another version than this program's.
    """
    if not config.descriptor:
        raise ParameterError(
            "this index holds vectors that users bring; add them with --vectors FILE, and search with --vector FILE "
            "or --vectors FILE"
        )
    found = features.get(config.descriptor)
    if found.version != config.descriptor_version:
        raise DeploymentError(
            f"this index holds {config.descriptor} of version {config.descriptor_version}, this program makes version "
            f"{found.version}; features of both are not comparable: make a new index"
        )
    return found


def query_vector(config: DeploymentConfig, image: Any) -> np.ndarray:
    """Extract the embedded features of one query image.

    Parameters
    ----------
    config : DeploymentConfig
        Of an index of images.
    image : str, path, bytes, ndarray of uint8 (H, W, 3) or Pillow image
        Path or bytes of an image file, pixels in RGB, or an image of Pillow. Secret.

    Returns
    -------
    ndarray of float, (dim,)
        Secret.

    Raises
    ------
    ImageError
        It cannot be read as an image.
    DTypeError
        A value of another type. Also the errors of :func:`index_descriptor`.
    """
    descriptor = index_descriptor(config)
    name = str(image) if isinstance(image, (str, os.PathLike)) else "the query image"
    if isinstance(image, (str, os.PathLike)):
        image = read_regular(Path(image), IMAGE_FILE_BYTES, refused=ImageError)
    elif hasattr(image, "save") and hasattr(image, "getexif"):
        image = _file_of(image)
    elif not isinstance(image, (bytes, np.ndarray)):
        raise DTypeError(f"an image is a path, bytes, an array or a Pillow image, not {type(image).__name__}")
    got = features.extract([image], descriptor, window=config.window)
    if got.errors:
        raise ImageError(f"{name}: {image_reason(got.errors[0][2])}")
    return np.asarray(descriptor.embed(got.values))[0]


def query_vectors(
    config: DeploymentConfig, images: Sequence[Path], *, workers: int | None = None
) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
    """Extract the embedded features of many query images, in threads; a broken one is reported and left out.

    Parameters
    ----------
    config : DeploymentConfig
        Of an index of images.
    images : sequence of Path
        Image files. Secret.
    workers : int, optional
        Threads; default one per processor.

    Returns
    -------
    vectors : ndarray of float, (N, dim)
        Features of the images that could be read, in order. Secret.
    kept : list of int
        Which of ``images`` these are.
    errors : list of (int, str)
        The other ones, and why.

    Raises
    ------
    ParameterError, DeploymentError
        As :func:`index_descriptor`.
    """
    descriptor = index_descriptor(config)
    got = features.extract(list(images), descriptor, workers=workers, window=config.window)
    vectors = np.asarray(descriptor.embed(got.values)) if len(got.kept) else np.empty((0, config.encoding.dim))
    return vectors, [int(i) for i in got.kept], [(index, text) for index, _, text in got.errors]


def _file_of(image: Any) -> bytes:
    """A Pillow image as an image file, so that it is read as its file would be."""
    buffer = io.BytesIO()
    try:
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            image = image.convert("RGB")
        image.save(buffer, "PNG", exif=image.getexif())
    except (OSError, ValueError) as error:
        raise ImageError(f"the query image cannot be read ({error})") from None
    return buffer.getvalue()


def image_reason(text: str) -> str:
    """The reason why an image was refused, without the name that :mod:`mipp.features` gives images without a path."""
    return text.removeprefix("image data: ")
