"""DICOM images, through pydicom (an extra)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, missing_extra
from .images import MAX_PIXELS
from .window import apply_window

__all__ = ["load_dicom"]


def load_dicom(file: io.BytesIO, name: str, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """The first frame of a DICOM file as RGB uint8 (H, W, 3); documented at :func:`mipp.io.images.load_image`.

    Raises
    ------
    MissingExtraError, ImageError
        pydicom is not installed; no image, damaged, compressed in a way that no installed decoder knows, or too large.
    """
    try:
        import pydicom
    except ImportError:
        raise missing_extra(f"{name}: DICOM files need pydicom", "dicom") from None
    try:
        data = pydicom.dcmread(file)
        if "PixelData" not in data:
            raise ImageError(f"{name}: a DICOM file without an image")
        if int(data.Rows) * int(data.Columns) * int(data.get("NumberOfFrames") or 1) > 4 * MAX_PIXELS:
            raise ImageError(f"{name}: more than {MAX_PIXELS} pixels")
        return _to_rgb(data, window)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # patient data can be in the messages of a parser: the type alone is passed on
        raise ImageError(f"{name}: damaged or unsupported DICOM file ({type(error).__name__})") from None


def _to_rgb(data: Any, window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    kind = str(data.PhotometricInterpretation)
    # luma and chroma become RGB here
    values = np.asarray(pixel_array(data, index=0))
    colour = int(data.get("SamplesPerPixel") or 1) == 3
    if kind == "PALETTE COLOR":
        values, colour = np.asarray(apply_color_lut(values, data)), True
    if colour:
        if values.dtype != np.uint8:
            values = apply_window(values.reshape(len(values), -1), (0.0, float(np.iinfo(values.dtype).max)))[:, :, 0]
            values = values.reshape(len(values), -1, 3)
        return np.ascontiguousarray(values[:, :, :3])
    values = np.asarray(apply_modality_lut(values, data), np.float64)
    if window is None:
        window = _own_window(data)
    if window is None:
        low, high = float(values.min()), float(values.max())
        window = (low, high if high > low else low + 1.0)
    gray = apply_window(values, window)
    return 255 - gray if kind == "MONOCHROME1" else gray


def _own_window(data: Any) -> tuple[float, float] | None:
    """First window of the file as (low, high), by the linear function of DICOM PS3.3 C.11.2.1.2."""

    def first(name: str) -> float | None:
        value = data.get(name)
        if value is None or value == "":
            return None
        return float(value if isinstance(value, (int, float, str)) else value[0])

    centre, width = first("WindowCenter"), first("WindowWidth")
    if centre is None or width is None or width <= 1:
        return None
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
