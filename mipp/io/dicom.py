"""DICOM images, through pydicom (an extra)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, missing_extra
from .coded import coded_pixels, rle_bytes
from .limits import MAX_INFLATED, MAX_PIXELS
from .recognise import PREAMBLE
from .window import apply_window

__all__ = ["load_dicom"]

#: values of colours that are converted at once
_AT_ONCE = 1 << 18
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
#: attributes of one frame, which multi-frame files keep in functional groups; those of a line belong together
_OF_FRAMES = (
    ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    ("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    ("PresentationLUTShape",),
    ("PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit",
     "DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)  # fmt: skip


def load_dicom(file: io.BytesIO, name: str, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """The first frame of a DICOM file as RGB uint8 (H, W, 3); documented at :func:`mipp.io.images.load_image`.

    Raises
    ------
    MissingExtraError, ImageError
        pydicom is not installed; no image, damaged, compressed in a way that no installed decoder knows, or too large;
        colours or display functions that are not known.
    """
    try:
        import pydicom
    except ImportError:
        raise missing_extra(f"{name}: DICOM files need pydicom", "dicom") from None
    try:
        _check_inflated(file.getbuffer(), name)
        data = pydicom.dcmread(file)
        if not any(keyword in data for keyword in _PIXELS):
            raise ImageError(f"{name}: a DICOM file without an image")
        pixels = int(data.Rows) * int(data.Columns)
        if pixels > MAX_PIXELS or pixels * int(data.get("NumberOfFrames") or 1) > 4 * MAX_PIXELS:
            raise ImageError(f"{name}: more than {MAX_PIXELS} pixels")
        _check_coded(data, name)
        with np.errstate(all="ignore"):
            return _to_rgb(data, name, window)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # patient data can be in the messages of a parser: the type alone is passed on
        raise ImageError(f"{name}: damaged or unsupported DICOM file ({type(error).__name__})") from None


def _check_inflated(content: memoryview, name: str) -> None:
    """ImageError for a deflated file that becomes larger than any file may be: pydicom would inflate it whole."""
    head = bytes(content[:1024])
    if _DEFLATED not in head:
        return
    # the meta group begins with its length, and is not deflated itself
    begin = PREAMBLE + 16 + int.from_bytes(head[PREAMBLE + 12 : PREAMBLE + 16], "little")
    inflate, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, bytes(content[begin:])
    while rest and not inflate.eof:
        size += len(inflate.decompress(rest, 1 << 24))
        rest = inflate.unconsumed_tail
        if size > MAX_INFLATED:
            raise ImageError(f"{name}: more than {MAX_INFLATED} bytes when inflated")


def _to_rgb(data: Any, name: str, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    kind = str(data.PhotometricInterpretation).strip().upper()
    samples = int(data.get("SamplesPerPixel") or 1)
    values, bits = _stored(data)
    if kind == "PALETTE COLOR" and samples == 1:
        values = np.asarray(apply_color_lut(values, data))
        # tables of 8 bits may be stored in words of 16
        narrow = int(data.RedPaletteColorLookupTableDescriptor[2]) <= 8
        return _of_colours(values[:, :, :3], 8 if narrow else 8 * values.dtype.itemsize)
    if samples == 3 and kind in _COLOURS:
        return _of_colours(values, bits)
    if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"{name}: a DICOM file whose colours are not supported")
    frame = _of_first_frame(data)
    padding = _padding(values, data, frame)
    units = _modality(values, frame, name, data)
    gray = apply_window(units, window) if window is not None else _displayed(units, frame, padding, data)
    if kind == "MONOCHROME1" or str(frame.get("PresentationLUTShape", "")).strip().upper() == "INVERSE":
        gray = 255 - gray
    gray[padding] = 0
    return gray


def _check_coded(data: Any, name: str) -> None:
    """Refuse a compressed frame that decodes to more than the file's rows and columns; ImageError."""
    syntax = data.file_meta.TransferSyntaxUID
    if "PixelData" not in data or not syntax.is_encapsulated:
        return
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    frames = int(data.get("NumberOfFrames") or 1)
    table = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets = tuple(data[keyword].value for keyword in table) if all(keyword in data for keyword in table) else None
    coded = get_frame(data.PixelData, 0, number_of_frames=frames, extended_offsets=offsets)
    pixels = int(data.Rows) * int(data.Columns)
    if syntax == RLELossless:
        # a segment holds one byte of each pixel; some programs pad it
        most = pixels + pixels // 16 + 1024
        larger = rle_bytes(coded, most) > most
    else:
        larger = coded_pixels(coded) > pixels
    if larger:
        raise ImageError(f"{name}: a frame with more pixels than the file declares")


def _stored(data: Any) -> tuple[npt.NDArray[Any], int]:
    """Values of the first frame, luma and chroma as RGB, and how many bits they have."""
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in data:
        values = np.asarray(pixel_array(data, index=0))
        return values, 8 * values.dtype.itemsize
    allocated, stored = int(data.BitsAllocated), int(data.get("BitsStored") or data.BitsAllocated)
    high = int(data.get("HighBit", stored - 1))
    if allocated == 1 or data.file_meta.TransferSyntaxUID.is_encapsulated:
        return np.asarray(pixel_array(data, index=0)), stored
    # bits outside BitsStored may hold anything, such as overlays
    values = np.array(pixel_array(data, index=0, correct_unused_bits=False))
    high = high if stored - 1 <= high < allocated else stored - 1
    values <<= values.dtype.type(allocated - 1 - high)
    values >>= values.dtype.type(allocated - stored)
    return values, stored


def _of_colours(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """RGB of ``bits`` bits as 8 bits."""
    if bits == 8 and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    top = (1 << bits) - 1
    out = np.empty(values.shape, np.uint8)
    step = max(1, _AT_ONCE // max(1, values[:1].size))
    for start in range(0, len(values), step):
        wide = np.clip(values[start : start + step].astype(np.int64), 0, top)
        out[start : start + step] = (wide * 255 + top // 2) // top
    return out


def _of_first_frame(data: Any) -> Any:
    """The :data:`_OF_FRAMES` attributes of the first frame: its own, else those of all frames, else the file's.

    What belongs together is taken from one place: a window of one and a function of another mean nothing.
    """
    from pydicom.dataset import Dataset

    found = Dataset()
    sources = [*_groups(data, "PerFrameFunctionalGroupsSequence"),
               *_groups(data, "SharedFunctionalGroupsSequence"), data]  # fmt: skip
    for keywords in _OF_FRAMES:
        for source in sources:
            there = [k for k in keywords if k in source and source[k].value not in (None, "")]
            for keyword in there:
                found.add(source[keyword])
            if there:
                break
    return found


def _groups(data: Any, keyword: str) -> Iterator[Any]:
    """The first item of each functional group of the first frame; private groups of a maker are skipped."""
    for element in (data.get(keyword) or [{}])[0]:
        if element.VR == "SQ" and element.value and not element.tag.is_private:
            yield element.value[0]


def _is_signed(data: Any) -> bool:
    return "PixelData" in data and int(data.get("PixelRepresentation") or 0) == 1


def _padding(values: npt.NDArray[Any], data: Any, frame: Any) -> npt.NDArray[np.bool_]:
    """Which pixels are no part of the picture: padding values of the file, and NaN."""
    out = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    prefix = next(k for k in _PIXELS if k in data).removesuffix("PixelData")
    first = frame.get(f"{prefix}PixelPaddingValue")
    if first is None:
        return out
    last = frame.get(f"{prefix}PixelPaddingRangeLimit", first)
    ends = [_as_stored(end, data) for end in (first, last)]
    return np.asarray(out | ((values >= min(ends)) & (values <= max(ends))))


def _as_stored(value: Any, data: Any) -> Any:
    """A padding value with the sign of the pixels; some files write it with another."""
    bits = int(data.get("BitsAllocated") or 16)
    if not isinstance(value, (int, float)):
        value = int.from_bytes(value, "little") if isinstance(value, bytes) else float(value)
    if _is_signed(data):
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if "PixelData" in data and value < 0 else value


def _modality(values: npt.NDArray[Any], frame: Any, name: str, data: Any) -> npt.NDArray[Any]:
    """Values in the units of the device, as float64."""
    from pydicom.pixels.processing import apply_modality_lut

    if frame.get("ModalityLUTSequence"):
        return _looked_up(values, frame.ModalityLUTSequence[0], data, _is_signed(data))[0]
    if "RescaleSlope" in frame or "RescaleIntercept" in frame:
        frame.RescaleSlope, frame.RescaleIntercept = frame.get("RescaleSlope", 1), frame.get("RescaleIntercept", 0)
        if not np.isfinite([float(frame.RescaleSlope), float(frame.RescaleIntercept)]).all() or not frame.RescaleSlope:
            raise ImageError(f"{name}: a DICOM file whose rescale slope makes all pixels alike")
    return np.asarray(apply_modality_lut(values, frame), np.float64)


def _looked_up(values: npt.NDArray[Any], item: Any, data: Any, signed: bool) -> tuple[npt.NDArray[Any], float]:
    """Values through a table of the file (PS3.3 C.11.1.1), and the largest that its bits allow.

    pydicom's own functions do this in the type of the pixels or of the table, where differences wrap.
    """
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    count, first = count or 1 << 16, first - (1 << 16) if signed and first >= 1 << 15 else first
    table = item.LUTData
    if isinstance(table, bytes):
        words = "<u2" if data.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
        table = np.frombuffer(table, np.uint8 if bits <= 8 and len(table) < 2 * count else words)
    table = np.atleast_1d(np.asarray(table, np.int64))[:count] & 0xFFFF
    if len(table) < count or not 1 <= bits <= 16:
        raise ValueError("a table shorter than declared")
    top = (1 << bits) - 1
    index = np.clip(np.rint(np.nan_to_num(values.astype(np.float64))) - first, 0, count - 1).astype(np.int64)
    return np.minimum(table[index], top).astype(np.float64), float(top)


def _displayed(units: npt.NDArray[Any], frame: Any, padding: npt.NDArray[np.bool_], data: Any) -> npt.NDArray[np.uint8]:
    """Gray (H, W, 3) by the file's own table or window, else from the least to the greatest value."""
    if frame.get("VOILUTSequence"):
        signed = _is_signed(data) or bool(units.min(initial=0) < 0)
        shown, top = _looked_up(units, frame.VOILUTSequence[0], data, signed)
        return apply_window(shown, (0.0, top))
    windowed = _windowed(units, frame)
    if windowed is not None:
        return apply_window(windowed, (0.0, 255.0))
    counted = units[~padding & np.isfinite(units)]
    low, high = float(counted.min(initial=np.inf)), float(counted.max(initial=-np.inf))
    if not low < high:
        return np.zeros((*units.shape, 3), np.uint8)
    return apply_window(units, (low, high))


def _windowed(units: npt.NDArray[Any], frame: Any) -> npt.NDArray[Any] | None:
    """Values 0 to 255 through the first window of the file, or None if it has none (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    def first(keyword: str) -> float:
        value = frame.get(keyword)
        return float(value if isinstance(value, (int, float, str)) else value[0])

    if "WindowCenter" not in frame or "WindowWidth" not in frame:
        return None
    centre, width = first("WindowCenter"), first("WindowWidth")
    function = str(frame.get("VOILUTFunction", "LINEAR")).strip().upper()
    if not np.isfinite([centre, width]).all() or width <= 0:
        return None
    if function == "LINEAR" and width < 1:
        # not allowed by the standard, but the intent is clear
        function = "LINEAR_EXACT"
    # unsigned, 8 bits: the function's range is 0 to 255
    display = Dataset()
    display.PhotometricInterpretation, display.BitsStored, display.PixelRepresentation = "MONOCHROME2", 8, 0
    display.VOILUTFunction = function
    # as doubles: decimal text would round them
    display.add_new("WindowCenter", "FD", centre)
    display.add_new("WindowWidth", "FD", width)
    return np.asarray(apply_windowing(units, display))
