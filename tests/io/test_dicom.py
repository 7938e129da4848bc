"""DICOM files, made here by pydicom; expected values by the standard's linear function (PS3.3 C.11.2.1.2)."""

from __future__ import annotations

import io
import sys

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from mipp.errors import ImageError, MissingExtraError, ParameterError
from mipp.io.images import find_images, load_image

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (9, 12), dtype=np.uint16)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def dicom(pixels: np.ndarray, kind: str = "MONOCHROME2", syntax: str = ExplicitVRLittleEndian, **elements) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName = "Secret^Person"
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    data.SamplesPerPixel = 3 if colour else 1
    if colour:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    frames = pixels.ndim - 2 - colour
    if frames:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[frames : frames + 2]
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The standard's function into 0..255, as RGB."""
    y = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    y = np.where(values <= centre - 0.5 - (width - 1) / 2, 0, np.where(values > centre - 0.5 + (width - 1) / 2, 255, y))
    return np.repeat(np.floor(y + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)


def test_own_window():
    got = load_image(dicom(DEEP, WindowCenter=2000, WindowWidth=1500))
    assert got.dtype == np.uint8 and np.array_equal(got, linear(DEEP.astype(float), 2000, 1500))
    several = dicom(DEEP, WindowCenter=[2000, 100], WindowWidth=[1500, 50])
    assert np.array_equal(load_image(several), got)


def test_rescaled_and_signed():
    signed = (DEEP.astype(np.int16) - 2000).astype(np.int16)
    units = signed * 2.0 - 1024.0
    data = dicom(signed, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert np.array_equal(load_image(data), linear(units, 40, 400))


def test_given_window_wins():
    got = load_image(dicom(DEEP, WindowCenter=2000, WindowWidth=1500), window=(1000, 3000))
    want = np.floor(np.clip((DEEP.astype(float) - 1000) * (255 / 2000), 0, 255) + 0.5)
    assert np.array_equal(got[:, :, 1], want)


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 5}, {"WindowCenter": 5, "WindowWidth": 0}])
def test_no_window_takes_all_values(elements):
    got = load_image(dicom(DEEP, **elements))[:, :, 0].astype(float)
    low, high = float(DEEP.min()), float(DEEP.max())
    assert got.min() == 0 and got.max() == 255
    assert np.abs(got - (DEEP - low) / (high - low) * 255).max() <= 0.5 + 1e-9
    assert not load_image(dicom(np.full((4, 4), 77, np.uint16))).any()


def test_inverted():
    normal = load_image(dicom(DEEP, WindowCenter=2000, WindowWidth=1500))
    assert np.array_equal(load_image(dicom(DEEP, "MONOCHROME1", WindowCenter=2000, WindowWidth=1500)), 255 - normal)


def test_first_frame():
    frames = np.stack([DEEP, DEEP[::-1]])
    assert np.array_equal(load_image(dicom(frames, WindowCenter=2000, WindowWidth=1500)),
                          load_image(dicom(DEEP, WindowCenter=2000, WindowWidth=1500)))  # fmt: skip
    assert np.array_equal(load_image(dicom(np.stack([RGB, RGB[::-1]]), "RGB")), RGB)


def test_colour():
    assert np.array_equal(load_image(dicom(RGB, "RGB")), RGB)
    gray = np.full((4, 6, 3), 128, np.uint8)
    gray[:, :, 0] = RNG.integers(0, 256, (4, 6))
    assert np.array_equal(load_image(dicom(gray, "YBR_FULL")), np.repeat(gray[:, :, :1], 3, axis=2))
    wide = RGB.astype(np.uint16) * 257
    assert np.array_equal(load_image(dicom(wide, "RGB")), RGB)


def test_palette():
    index = RNG.integers(0, 4, (5, 6), dtype=np.uint8)
    table = RNG.integers(0, 256, (3, 4), dtype=np.uint16) * 257
    names = ("Red", "Green", "Blue")
    elements = {f"{n}PaletteColorLookupTableDescriptor": [4, 0, 16] for n in names}
    elements |= {f"{n}PaletteColorLookupTableData": t.tobytes() for n, t in zip(names, table, strict=True)}
    got = load_image(dicom(index, "PALETTE COLOR", **elements))
    assert np.array_equal(got, (table // 257).astype(np.uint8).T[index])


def test_files_are_found(tmp_path):
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom(DEEP))
    assert find_images(tmp_path) == [path] and load_image(path).shape == (9, 12, 3)


def _without_pixels() -> bytes:
    data = pydicom.dcmread(io.BytesIO(dicom(DEEP)))
    del data.PixelData
    out = io.BytesIO()
    pydicom.dcmwrite(out, data)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _without_pixels(),
        dicom(DEEP)[:200],
        dicom(DEEP)[:-40],
        dicom(DEEP, Rows=60000, Columns=60000),
        dicom(DEEP, Rows=0),
        dicom(DEEP, NumberOfFrames=100000),
        dicom(DEEP, PhotometricInterpretation="NONSENSE", SamplesPerPixel=3),
        dicom(DEEP).replace(ExplicitVRLittleEndian.encode() + b"\0", JPEG2000Lossless.encode()[:20]),
        b"\0" * 128 + b"DICM",
        b"\0" * 128 + b"DICM" + b"\xff" * 500,
    ],
    ids=["no-pixels", "truncated", "short", "huge", "empty", "frames", "kind", "syntax", "nothing", "garbage"],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_files_say_nothing_of_patients(content):
    with pytest.raises(ImageError) as caught:
        load_image(content)
    assert "Secret" not in str(caught.value) and caught.value.__cause__ is None


def test_without_pydicom(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"mipp-retrieval\[dicom\]"):
        load_image(dicom_bytes)


@pytest.mark.parametrize("window", [(1,), (1, 2, 3), (2, 1), (1, 1), (float("nan"), 1), (0, float("inf")), "ab", 5])
def test_bad_windows(window):
    with pytest.raises(ParameterError, match="window"):
        load_image(dicom(DEEP), window=window)


dicom_bytes = dicom(DEEP)
