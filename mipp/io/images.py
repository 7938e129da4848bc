"""Image files to RGB arrays, through Pillow."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..errors import DTypeError, ImageError, ParameterError, plain_text
from . import png
from .coded import decoded_pixels
from .files import as_path, read_regular, shown
from .limits import MAX_BYTES, MAX_PIXELS
from .recognise import SUFFIXES, formats, is_image_file
from .walk import walk_images
from .window import apply_window, check_window

__all__ = ["MAX_BYTES", "MAX_PIXELS", "SUFFIXES", "find_images", "is_image_file", "load_image", "thumbnail"]

_log = logging.getLogger(__name__)
_NAMED = 5

_ORIENTATION = 0x0112
#: tags of TIFF
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339
#: pixels that are converted at once: a few MB of temporary values
_TILE = 1 << 18
#: views of an upright image (H, W, 3) with the pixels where the file of an EXIF orientation has them
_TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def load_image(
    source: str | os.PathLike[str] | bytes, *, window: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image: an AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP or DICOM file.

    Files that hold images of other formats, such as icons, are not opened. The size of the image is known before
    anything is decoded; a hostile AVIF file alone may cost what an image of 16384 x 16384 pixels costs.

    The EXIF orientation is applied. Everything becomes 8-bit RGB: gray, palette, CMYK and YCbCr are converted;
    transparent pixels are laid over white, also those of a PNG's one transparent colour; 16-bit gray is scaled by
    255/65535 (32-bit integers likewise, after clipping to 16 bits), floating-point gray clipped to 0..255, unless a
    window is given; of an animation or a file of several pages the first is taken.

    DICOM files are read by pydicom (extra ``dicom``): the first frame, its attributes from the functional groups of a
    multi-frame file where they are there. Gray is taken in the units of the rescale slope and intercept or modality
    table, then through ``window``, else the file's own VOI table or first window (linear, linear exact or sigmoid),
    else from its least to its greatest value; MONOCHROME1 and the presentation shape INVERSE are inverted. Padding does
    not count for the least or greatest value and becomes black. Colours of more than 8 bits are scaled by the number of
    bits that the file declares as stored.

    Memory, beside the file's bytes: most images take 8 bytes a pixel, PNG files of 16 bits with transparency 12, and
    JPEG 2000 and WebP files up to 20, which their decoders need: 1.8 GB for the largest image that is read. DICOM files
    are computed in doubles, with up to 40 bytes a pixel.

    Parameters
    ----------
    source : str, path or bytes
        Path, or the content of an image file. Secret at its owner or user.
    window : tuple of float, optional
        (low, high) for gray with more than 8 bits: values up to ``low`` become 0, from ``high`` on 255, linear
        between, rounded half up. One window for a whole index keeps its images comparable.

    Returns
    -------
    ndarray
        uint8 (H, W, 3), RGB, C-contiguous and writeable.

    Raises
    ------
    NotFoundError
        No such file.
    ImageError
        Not an image, not a file, truncated, unreadable, or above :data:`MAX_PIXELS` or :data:`MAX_BYTES`; the message
        names the file.
    DTypeError, ParameterError
        Neither path nor bytes; a window that is not two finite numbers, the smaller first.
    MissingExtraError
        A DICOM file, and pydicom is not installed.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from mipp.io.images import load_image
    >>> content = io.BytesIO()
    >>> Image.new("L", (3, 2), 128).save(content, "PNG")
    >>> pixels = load_image(content.getvalue())
    >>> pixels.shape, pixels[0, 0].tolist()
    ((2, 3, 3), [128, 128, 128])
    """
    window = check_window(window)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, file = "image data", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        path = as_path(source)
        # read whole: a decoder that fails leaves no open file behind, and reading releases the GIL
        name, file = shown(path), io.BytesIO(read_regular(path, MAX_BYTES, refused=ImageError))
    else:
        raise DTypeError(f"an image comes as a path or as bytes, not as {type(source).__name__}")
    file.seek(128)  # getbuffer() would copy the file
    is_dicom = file.read(4) == b"DICM"
    file.seek(0)
    if is_dicom:
        from .dicom import load_dicom

        return load_dicom(file, name, window)
    try:
        with Image.open(file, formats=formats()) as image:
            if decoded_pixels(image) > MAX_PIXELS:
                width, height = image.size
                raise ImageError(f"{name}: {width} x {height} pixels, or a tile of them, are more than {MAX_PIXELS}")
            return _to_rgb(image, file, window)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a format that is read here") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: more than {MAX_PIXELS} pixels") from None
    except Exception as error:
        # decoders raise almost any type on damaged files
        raise ImageError(f"{name}: damaged or unsupported image ({error or type(error).__name__})") from None


def _to_rgb(image: Image.Image, file: io.BytesIO, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3) of an opened image, upright, transparent pixels laid over white.

    Made tile by tile: beside the decoded image and the result nothing is as large as the image.
    """
    raw = png.raw_mode(image)
    image.load()
    turn = _orientation(image)
    clear = png.transparent(image, file, raw)
    if clear is not None:
        # laid over white below; Pillow's conversion would compare it again
        del image.info["transparency"]
    convert = _conversion(image, file, raw, window)
    width, height = image.size
    out = np.empty((width, height, 3) if turn >= 5 else (height, width, 3), np.uint8)
    as_stored = _TURNS[turn](out) if turn in _TURNS else out
    for box in _tiles(width, height):
        pixels = convert(box)
        if clear is not None:
            pixels[clear(box)] = 255
        left, top, right, bottom = box
        as_stored[top:bottom, left:right] = pixels
    return out


def _tiles(width: int, height: int) -> Iterator[png.Box]:
    """Parts of an image, each of at most :data:`_TILE` pixels."""
    across = min(width, _TILE)
    down = max(1, _TILE // max(1, across))
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def _conversion(
    image: Image.Image, file: io.BytesIO, raw: str, window: tuple[float, float] | None
) -> Callable[[png.Box], npt.NDArray[np.uint8]]:  # fmt: skip
    """How to make RGB of a part of a loaded image; what it gives may be written to."""
    layers = png.deep_gray(file, raw)
    if layers is not None:
        return lambda box: _over_white(*_gray_and_alpha(layers(box), window), 65535)
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (2,))
        # Pillow's 32 bits have a sign, which few TIFF files mean
        unsigned = tuple(formats)[:1] == (1,)
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow inverts up to 8 bits

        def deep(box: png.Box) -> npt.NDArray[np.uint8]:
            values = np.asarray(image.crop(box))
            gray = _deep_gray(values.view(np.uint32) if unsigned and values.dtype == np.int32 else values, window)
            return 255 - gray if inverted else gray

        return deep
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:

        def blended(box: png.Box) -> npt.NDArray[np.uint8]:
            layers = np.asarray(image.crop(box).convert("RGBA"))
            return _over_white(layers[:, :, :3], layers[:, :, 3:], 255)

        return blended
    return lambda box: np.array(image.crop(box).convert("RGB"), dtype=np.uint8)


def _gray_and_alpha(
    layers: tuple[npt.NDArray[Any], npt.NDArray[Any]], window: tuple[float, float] | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:  # fmt: skip
    return _deep_gray(layers[0], window), layers[1][:, :, None]


def _over_white(colours: npt.NDArray[np.uint8], alpha: npt.NDArray[Any], top: int) -> npt.NDArray[np.uint8]:
    """Colours over white with the opacity ``alpha`` of ``top``, rounded half up."""
    wide = alpha.astype(np.uint32)
    return np.asarray(((colours * wide + 255 * (top - wide) + top // 2) // top).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none that says how to turn the image."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in _TURNS else 1
    except Exception:
        # broken EXIF data does not make the pixels bad
        return 1


def _deep_gray(values: npt.NDArray[Any], window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Gray (H, W) of more than 8 bits, or floating-point, as RGB."""
    if window is not None:
        return apply_window(values, window)
    if values.dtype.kind == "f":
        gray = np.rint(np.clip(np.nan_to_num(values, posinf=255.0), 0, 255)).astype(np.uint8)
    else:
        gray = ((np.clip(values.astype(np.int64), 0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def find_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, left_out: list[Path] | None = None
) -> list[Path]:
    """Find image files among paths: folders are walked, files named directly are taken as they are.

    In a folder, a file with a suffix of :data:`SUFFIXES` is taken; of all others, such as DICOM files that a picture
    archive exports without suffix, those are taken that begin as an image of a known format does. A logged warning
    counts the files of a folder that were left out, and names some. :func:`mipp.io.walk.walk_images` also tells why
    files were left out.

    Parameters
    ----------
    paths : str, path, or iterable of them
        Files and folders.
    left_out : list, optional
        Files that were left out are appended to it, and no warning is logged.

    Returns
    -------
    list of Path
        Arguments in order, files of a folder sorted by path, each file once.

    Raises
    ------
    NotFoundError, ImageError
        A path that does not exist; one that is neither a folder nor a regular file.
    DTypeError
        Not a path.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.io.images import find_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a.jpg", "notes.txt"):
    ...         pathlib.Path(folder, name).touch()
    ...     skipped = []
    ...     [path.name for path in find_images(folder, left_out=skipped)], [path.name for path in skipped]
    (['a.jpg', 'b.png'], ['notes.txt'])
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not isinstance(paths, Iterable):
        raise DTypeError(f"paths come as one path or several, not as {type(paths).__name__}")
    others: list[Path] = []
    found, unreadable = walk_images([as_path(path) for path in paths], others=others)
    others = sorted([*others, *(path for path, _ in unreadable)])
    if left_out is not None:
        left_out += others
    elif others:
        named = ", ".join(path.name for path in others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        _log.warning("no images, left out: %d (%s)", len(others), plain_text(named))
    return found


def thumbnail(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Scale an image to fit into a box; proportions are kept.

    Parameters
    ----------
    image : ndarray
        uint8 (H, W, 3).
    size : tuple of int
        (width, height) of the box in pixels.

    Returns
    -------
    ndarray
        uint8 (h, w, 3) with w <= width and h <= height.

    Raises
    ------
    DTypeError, ParameterError
        Not a uint8 array (H, W, 3); a side below 1, or a size that is not two integers.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.io.images import thumbnail
    >>> thumbnail(np.zeros((100, 200, 3), np.uint8), (50, 50)).shape
    (25, 50, 3)
    """
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not good or not image.size:
        raise DTypeError("an image must be a uint8 array (H, W, 3)")
    sides = size if isinstance(size, (tuple, list)) and len(size) == 2 else (0, 0)
    if not all(isinstance(side, (int, np.integer)) and 1 <= side <= MAX_PIXELS for side in sides):
        raise ParameterError("size must be two integers, at least 1 x 1")
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    box = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.array(Image.fromarray(image).resize(box, Image.Resampling.LANCZOS), dtype=np.uint8)
