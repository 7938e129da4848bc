"""What strangers wrote, made fit to be shown: texts cut and without control characters, pictures encoded anew.

Web pages and notebooks take owners' texts and pictures from here, so that no byte of theirs reaches a browser as it is.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from ..errors import DTypeError, MippError, ParameterError
from .gate import Gate
from .limits import MAX_PIXELS

__all__ = ["PICTURE_TYPE", "opening", "picture", "shown"]

#: media type of what :func:`picture` makes: JPEG is encoded five times as fast as WebP, and a page shows a hundred
PICTURE_TYPE = "image/jpeg"

#: stands for a character that is not shown
_REPLACEMENT = "\ufffd"
#: invisible characters that scripts and emoji need: they join letters, and turn no text around
_JOINERS = "\u200c\u200d"
_QUALITY = 88
#: pixels of the largest thumbnail. Images up to this size are opened beside each other, and beside one large image
_SMALL = 1 << 20
#: pixels that all threads of a process have open together, of small images and of others: 106 million
_SMALL_TOGETHER, _LARGE_TOGETHER = Gate(16 * _SMALL), Gate(MAX_PIXELS)


def shown(text: str, most: int = 200) -> str:
    """Make another party's text fit to be shown as text: cut, and without characters that act on what is around them.

    It is no markup: whoever writes HTML escapes the result (:func:`html.escape`), and puts it into ``<bdi>``, as
    letters that are written from right to left turn their line around.

    Parameters
    ----------
    text : str
        The text.
    most : int
        Most characters of the result, at least 1; a longer text ends in an ellipsis.

    Returns
    -------
    str
        One line: white space is a space, and control characters, those that change the direction of text and halves of
        surrogate pairs are the replacement character.

    Raises
    ------
    DTypeError, ParameterError
        No text; ``most`` below 1.

    Examples
    --------
    >>> from mipp.io.display import shown
    >>> shown("a cat" + chr(10) + "asleep"), shown("x" * 300, 4)
    ('a cat asleep', 'xxx…')
    >>> shown("invoice" + chr(0x202E) + "fdp.exe").isprintable()
    True
    """
    if not isinstance(text, str):
        raise DTypeError(f"a text is shown, not {type(text).__name__}")
    if most < 1:
        raise ParameterError(f"at least one character is shown, not {most}")
    if len(text) > most:
        text = text[: most - 1] + "\u2026"
    return "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else _REPLACEMENT for c in text)


def picture(
    content: bytes, side: int, *, most_pixels: int = MAX_PIXELS, window: tuple[float, float] | None = None
) -> bytes | None:
    """Decode a stranger's image and encode its pixels anew, small: nothing else of the file is left.

    Threads wait for each other, so that a process has no more pixels open than :func:`opening` allows.

    Parameters
    ----------
    content : bytes
        An image file of any kind that :func:`mipp.io.images.load_image` reads. Secret where it was fetched.
    side : int
        Longest side of the result in pixels, at least 1; a smaller image is not enlarged.
    most_pixels : int
        Images with more pixels are not decoded: a small file may claim many. Below :data:`mipp.io.limits.MAX_PIXELS`,
        AVIF and DICOM files are not decoded at all, as their heads may claim fewer pixels than are decoded.
    window : tuple of float, optional
        As of :func:`mipp.io.images.load_image`.

    Returns
    -------
    bytes or None
        A JPEG file (:data:`PICTURE_TYPE`). None if it is no image, or a damaged or too large one.

    Raises
    ------
    DTypeError, ParameterError
        No bytes; ``side`` below 1, or a window that is none.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from mipp.io.display import picture
    >>> content = io.BytesIO()
    >>> Image.new("RGB", (300, 200), "red").save(content, "PNG")
    >>> Image.open(io.BytesIO(picture(content.getvalue(), 90))).size, picture(b"no image", 90)
    ((90, 60), None)
    """
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise DTypeError(f"a picture is made of bytes, not of {type(content).__name__}")
    if side < 1:
        raise ParameterError(f"a picture has a side of at least one pixel, not {side}")
    # Pillow is slow to load, and programs that show nothing do without it
    from PIL import Image

    from .images import load_image, thumbnail

    claimed = _pixels(content)
    if most_pixels < MAX_PIXELS and claimed > most_pixels:
        return None
    out = io.BytesIO()
    with _held(claimed):
        try:
            pixels = load_image(bytes(content), window=window)
            if max(pixels.shape[:2]) > side:
                pixels = thumbnail(pixels, (side, side))
        except (MippError, MemoryError):
            return None
        Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
        return out.getvalue()


@contextlib.contextmanager
def opening(content: bytes | bytearray | memoryview) -> Iterator[None]:
    """Wait until a stranger's image may be decoded: a ``with`` statement around its decoding.

    All threads of a process that decode with :func:`picture` or inside of this have at most 106,255,701 pixels open
    together: 16,777,216 of images of up to 1,048,576 pixels, and :data:`mipp.io.limits.MAX_PIXELS` of others. AVIF and
    DICOM files, whose heads may claim fewer pixels than are decoded, are opened one at a time, and not beside other
    large images; a hostile AVIF file alone may have 16384 x 16384 pixels (:func:`mipp.io.images.load_image`).

    Parameters
    ----------
    content : bytes
        The image file. It is not decoded here.

    Returns
    -------
    context manager
        Of nothing; its pixels are free for others when the statement ends.

    Examples
    --------
    >>> from mipp.io.display import opening
    >>> with opening(b"no image"):
    ...     pass
    """
    with _held(_pixels(content)):
        yield


def _held(pixels: int) -> contextlib.AbstractContextManager[None]:
    return (_SMALL_TOGETHER if pixels <= _SMALL else _LARGE_TOGETHER).holding(pixels)


def _pixels(content: bytes | bytearray | memoryview) -> int:
    """Number of pixels that will be decoded; MAX_PIXELS + 1 where that is not sure."""
    from PIL import Image

    from .coded import decoded_pixels
    from .recognise import formats

    try:
        with Image.open(io.BytesIO(content), formats=formats(sure=True)) as image:
            return decoded_pixels(image)
    except Exception:  # decoders raise almost any type on damaged files
        return MAX_PIXELS + 1
