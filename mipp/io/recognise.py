"""Which files are images: by suffix, or by the first bytes. Light to import."""

from __future__ import annotations

import functools
from pathlib import Path

from .files import open_regular

__all__ = ["SUFFIXES", "formats", "is_dicom_image", "is_image_file"]

#: suffixes of image files, which are taken without looking into them
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".dcm"})
#: bytes before the letters DICM of a DICOM file
PREAMBLE = 128

#: formats that are opened, by Pillow's names: one image a file, and no other formats inside. Icons (ICNS, ICO) and the
#: like hold an image of another format, which is decoded before anybody has seen how large it is
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: an AVIF file's head may claim fewer pixels than are decoded: its decoder bounds them, at 16384 x 16384
_UNSURE = frozenset({"AVIF"})
_HEAD = 1024
#: a DICOMDIR, the table of contents of a medium, is a DICOM file without an image
_DIRECTORY = b"1.2.840.10008.1.3.10"


def is_image_file(path: Path) -> bool:
    """Tell whether a regular file of a folder is taken for an image: by its suffix, or by its first bytes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool

    Examples
    --------
    >>> from pathlib import Path
    >>> from mipp.io.recognise import is_image_file
    >>> is_image_file(Path("photo.jpg")), is_image_file(Path("no such file"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES or _begins_as_image(path)


@functools.cache
def formats(*, sure: bool = False) -> tuple[str, ...]:
    """Formats of image files that are opened, by Pillow's names, as far as this Pillow has them.

    Parameters
    ----------
    sure : bool
        Only those whose heads tell how many pixels will be decoded (:func:`mipp.io.coded.decoded_pixels`).

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from mipp.io.recognise import formats
    >>> "PNG" in formats(), "ICNS" in formats(), "AVIF" in formats(sure=True)
    (True, False, False)
    """
    from PIL import Image  # Pillow loads when a file is looked into, not at import

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN and not (sure and name in _UNSURE))


def is_dicom_image(head: bytes) -> bool:
    """Whether ``head``, the first 512 bytes or more of a file, are those of a DICOM file other than a DICOMDIR."""
    return head[PREAMBLE : PREAMBLE + 4] == b"DICM" and _DIRECTORY not in head


def _begins_as_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image that :func:`mipp.io.images.load_image` reads."""
    try:
        from PIL import Image

        with open_regular(path) as (file, _):
            head = file.read(_HEAD)
            if head[PREAMBLE : PREAMBLE + 4] == b"DICM":
                return is_dicom_image(head)
            file.seek(0)
            with Image.open(file, formats=formats()):
                return True
    except Exception:
        # decoders raise almost any type on other files
        return False
