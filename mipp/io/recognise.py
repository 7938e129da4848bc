"""Which files are images: by suffix, or by the first bytes. Light to import."""

from __future__ import annotations

from pathlib import Path

from .files import open_regular

__all__ = ["SUFFIXES", "is_dicom_image", "is_image_file"]

#: suffixes of image files, which are taken without looking into them
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".dcm"})
#: bytes before the letters DICM of a DICOM file
PREAMBLE = 128

#: formats, by Pillow's names, that files without a suffix of SUFFIXES are tried for
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
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


def is_dicom_image(head: bytes) -> bool:
    """Whether ``head``, the first 512 bytes or more of a file, are those of a DICOM file other than a DICOMDIR."""
    return head[PREAMBLE : PREAMBLE + 4] == b"DICM" and _DIRECTORY not in head


def _begins_as_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image that :func:`mipp.io.images.load_image` reads."""
    try:
        from PIL import Image  # Pillow loads when a file is looked into, not at import

        with open_regular(path) as (file, _):
            head = file.read(_HEAD)
            if head[PREAMBLE : PREAMBLE + 4] == b"DICM":
                return is_dicom_image(head)
            file.seek(0)
            Image.init()
            with Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN]):
                return True
    except Exception:
        # decoders raise almost any type on other files
        return False
