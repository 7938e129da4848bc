"""Image files to RGB arrays, through Pillow."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..errors import DTypeError, ImageError, NotFoundError, ParameterError
from .window import apply_window, check_window

__all__ = ["MAX_PIXELS", "SUFFIXES", "find_images", "is_image_file", "load_image", "thumbnail"]

#: what :func:`find_images` takes for images
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".dcm"})
#: larger images are refused before they are decoded (a decompression bomb is a small file with many pixels)
MAX_PIXELS = 89_478_485

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | os.PathLike[str] | bytes, *, window: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image.

    The EXIF orientation is applied. Everything becomes 8-bit RGB: gray, palette, CMYK and YCbCr are converted;
    transparent pixels are laid over white; 16-bit gray is scaled by 255/65535 (32-bit integers likewise, after clipping
    to 16 bits), floating-point gray clipped to 0..255, unless a window says otherwise; of an animation or a file of
    several pages the first is taken. DICOM files are read by pydicom (extra ``dicom``): the first frame, in the units
    of its rescale slope and intercept, through ``window``, else the file's own first window, else from its least to its
    greatest value; MONOCHROME1 is inverted.

    Parameters
    ----------
    source : path, or the content of an image file
    window : (low, high) for gray with more than 8 bits: values up to ``low`` become 0, from ``high`` on 255, linear
        between, rounded half up. One window for a whole index keeps its images comparable.

    Returns
    -------
    ndarray
        uint8 (H, W, 3), C-contiguous and writeable.

    Raises
    ------
    NotFoundError
        No such file.
    ImageError
        Not an image, truncated, unreadable, or above :data:`MAX_PIXELS`; the message names the file.
    DTypeError, ParameterError
        Neither path nor bytes; a window that is not two finite numbers, the smaller first.
    MissingExtraError
        A DICOM file, and pydicom is not installed.
    """
    window = check_window(window)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, file = "image data", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(os.fspath(source))
        try:
            # read whole: a decoder that fails leaves no open file behind, and reading releases the GIL
            file = io.BytesIO(Path(name).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"{name}: no such file") from None
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    else:
        raise DTypeError(f"an image comes as a path or as bytes, not as {type(source).__name__}")
    if file.getvalue()[128:132] == b"DICM":
        from .dicom import load_dicom

        return load_dicom(file, name, window)
    try:
        with Image.open(file) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{name}: {width} x {height} pixels are more than {MAX_PIXELS}")
            image.load()
            return _to_rgb(_upright(image), window)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: more than {MAX_PIXELS} pixels") from None
    except Exception as error:
        # decoders raise almost any type on damaged files
        raise ImageError(f"{name}: damaged or unsupported image ({error or type(error).__name__})") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # broken EXIF data says nothing about the pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(image)
        if window is not None:
            return apply_window(values, window)
        if mode == "F":
            gray = np.rint(np.clip(np.nan_to_num(values, posinf=255.0), 0, 255)).astype(np.uint8)
        else:
            wide = np.clip(values.astype(np.int64), 0, 65535)
            gray = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layers = np.asarray(image.convert("RGBA")).astype(np.uint32)
        alpha = layers[:, :, 3:]
        return np.ascontiguousarray((layers[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255, dtype=np.uint8)
    return np.array(image if mode == "RGB" else image.convert("RGB"), dtype=np.uint8, order="C")


def is_image_file(path: Path) -> bool:
    """Whether a regular file of a folder is taken for an image."""
    return path.suffix.lower() in SUFFIXES


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files among ``paths``: folders are walked and filtered by suffix, files named directly are taken as is.

    The files of :func:`mipp.io.walk.walk_images`, which also says what was left out and why.

    Returns
    -------
    list of Path
        Arguments in order, files of a folder sorted by path, each file once.

    Raises
    ------
    NotFoundError, ImageError
        A path that does not exist; one that is neither a folder nor a regular file.
    """
    from .walk import walk_images

    return walk_images(paths)[0]


def thumbnail(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """``image``, uint8 (H, W, 3), scaled to fit into ``size`` = (width, height) pixels, its proportions kept.

    Raises
    ------
    DTypeError, ParameterError
        Not a uint8 array (H, W, 3); a side below 1.
    """
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not good or not image.size:
        raise DTypeError("an image must be a uint8 array (H, W, 3)")
    if min(size) < 1:
        raise ParameterError("size must be at least 1 x 1")
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    box = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.array(Image.fromarray(image).resize(box, Image.Resampling.LANCZOS), dtype=np.uint8)
