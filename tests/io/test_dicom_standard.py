"""Attributes of DICOM that decide what a picture looks like: expected values by pydicom or a line of numpy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from mipp.errors import ImageError, MippError
from mipp.io.images import load_image
from tests.io.test_dicom import DEEP, dicom

SIGNED = (DEEP.astype(np.int16) - 2000).astype(np.int16)
U = DEEP.astype(np.float64)


def gray(content: bytes, **options) -> np.ndarray:
    out = load_image(content, **options)
    assert (out == out[:, :, :1]).all()
    return out[:, :, 0]


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.floor(np.clip((values - low) * (255 / (high - low)), 0, 255) + 0.5)


def item(**elements) -> Sequence:
    out = Dataset()
    for name, value in elements.items():
        if isinstance(value, tuple):
            out.add_new(name, *value)
        else:
            setattr(out, name, value)
    return Sequence([out])


def table(data: np.ndarray, first: int, bits: int, kind: str = "US") -> Sequence:
    value = data.astype("<u2").tobytes() if kind == "OW" else data.tolist()
    return item(LUTDescriptor=("SS" if first < 0 else "US", [len(data) % 65536, first, bits]), LUTData=(kind, value))


@pytest.mark.parametrize("width", [1, 2, 1500, 0.5])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_window_functions(width, function):
    elements = {"WindowCenter": 2000, "WindowWidth": width} | ({"VOILUTFunction": function} if function else {})
    got = gray(dicom(DEEP, **elements))
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            want = 255 / (1 + np.exp(-4 * (U - 2000) / width))
    elif function == "LINEAR_EXACT" or width < 1:
        want = np.clip((U - 2000) / width + 0.5, 0, 1) * 255
    elif width == 1:
        want = np.where(U <= 1999.5, 0, 255)
    else:
        want = np.clip((U - 1999.5) / (width - 1) + 0.5, 0, 1) * 255
    assert np.abs(got - want).max() <= 0.5 + 1e-6


def test_an_unknown_window_function_is_an_error():
    with pytest.raises(ImageError):
        load_image(dicom(DEEP, WindowCenter=1, WindowWidth=5, VOILUTFunction="NEW"))


@pytest.mark.parametrize("kind", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_voi_tables(kind, bits):
    values = np.sort(np.random.default_rng(1).integers(0, 1 << bits, 3000))
    data = dicom(DEEP, VOILUTSequence=table(values, 500, bits, kind), WindowCenter=5, WindowWidth=9)
    want = values[np.clip(DEEP.astype(int) - 500, 0, 2999)] * 255 / ((1 << bits) - 1)
    assert np.abs(gray(data) - want).max() <= 0.5 + 1e-9
    assert np.array_equal(gray(data, window=(0, 4095)), scaled(U, 0, 4095))


def test_voi_table_after_rescaling_begins_below_zero():
    values = np.arange(4096) * 16
    data = dicom(DEEP, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=table(values, -1024, 16))
    assert np.abs(gray(data) - U * 16 * 255 / 65535).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("pixels", [DEEP, SIGNED])
def test_modality_table(pixels):
    values = np.random.default_rng(2).integers(0, 65536, 4096)
    first = int(pixels.min())
    got = gray(dicom(pixels, ModalityLUTSequence=table(values, first, 16)), window=(0, 65535))
    assert np.array_equal(got, scaled(values[pixels.astype(int) - first].astype(float), 0, 65535))


def test_a_table_shorter_than_declared_is_an_error():
    bad = item(LUTDescriptor=("US", [4096, 0, 16]), LUTData=("US", [1, 2, 3]))
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        with pytest.raises(ImageError):
            load_image(dicom(DEEP, **{keyword: bad}))


def test_inverse_shape_inverts_once():
    normal = gray(dicom(DEEP, WindowCenter=2000, WindowWidth=1500, PresentationLUTShape="IDENTITY"))
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        got = gray(dicom(DEEP, kind, WindowCenter=2000, WindowWidth=1500, PresentationLUTShape="INVERSE"))
        assert np.array_equal(got, 255 - normal)


@pytest.mark.parametrize("elements", [{"RescaleIntercept": -1024}, {"RescaleSlope": 2}])
def test_half_a_rescaling(elements):
    units = U * elements.get("RescaleSlope", 1) + elements.get("RescaleIntercept", 0)
    assert np.array_equal(gray(dicom(DEEP, **elements), window=(0, 3000)), scaled(units, 0, 3000))


@pytest.mark.parametrize("slope", ["0", "nan", "inf"])
@pytest.mark.filterwarnings("ignore")
def test_a_slope_without_a_picture_is_an_error(slope):
    data = dicom(DEEP, RescaleSlope="9.9", RescaleIntercept="1")
    with pytest.raises(ImageError):
        load_image(data.replace(b"9.9 ", slope.ljust(4).encode()))


def test_negative_slope():
    data = dicom(DEEP, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(gray(data, window=(0, 4095)), scaled(4095 - U, 0, 4095))


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "limit"), [(0, None), (60000, None), (60000, 65535), (65535, 60000)])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_counts_for_nothing(value, limit, kind):
    pixels, outside = DEEP + np.uint16(1), np.zeros(DEEP.shape, bool)
    outside[:2] = True
    pixels[:2] = value
    elements = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    got = gray(dicom(pixels, kind, **elements))
    inside = pixels[~outside].astype(float)
    want = scaled(inside, inside.min(), inside.max())
    assert np.array_equal(got[~outside], want if kind == "MONOCHROME2" else 255 - want)
    assert not got[outside].any()


@pytest.mark.parametrize("kind", ["SS", "US"])
def test_signed_padding_of_either_type(kind):
    pixels = SIGNED.copy()
    pixels[0] = -30000
    data = pydicom.dcmread(io.BytesIO(dicom(pixels)))
    data.add_new("PixelPaddingValue", kind, -30000 if kind == "SS" else 35536)
    out = io.BytesIO()
    data.save_as(out)
    got = gray(out.getvalue())
    assert not got[0].any() and np.array_equal(got[1:], scaled(U[1:], U[1:].min(), U[1:].max()))


# --- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [8, 10, 12, 15, 16])
def test_colours_of_fewer_bits_than_allocated(stored):
    top = (1 << stored) - 1
    pixels = np.random.default_rng(3).integers(0, top + 1, (6, 8, 3), dtype=np.uint16)
    data = dicom(pixels, "RGB", BitsStored=stored, HighBit=stored - 1)
    assert np.abs(load_image(data) - pixels * (255 / top)).max() <= 0.5 + 1e-9
    planes = dicom(pixels, "RGB", BitsStored=stored, HighBit=stored - 1, PlanarConfiguration=1,
                   PixelData=pixels.transpose(2, 0, 1).tobytes())  # fmt: skip
    assert np.array_equal(load_image(planes), load_image(data))


@pytest.mark.parametrize("pixels", [DEEP, SIGNED])
@pytest.mark.parametrize("shift", [0, 4])
def test_rubbish_in_unused_bits(pixels, shift):
    raw = (pixels.astype(np.int32) & 0xFFF) << shift
    rubbish = np.random.default_rng(4).integers(0, 65536, DEEP.shape) & ~(0xFFF << shift) & 0xFFFF
    data = dicom(pixels, BitsStored=12, HighBit=11 + shift, PixelData=(raw | rubbish).astype("<u2").tobytes())
    values = pixels.astype(float) if pixels is DEEP else (raw >> shift ^ 0x800) - 0x800
    assert np.array_equal(gray(data, window=(-2048, 4095)), scaled(values, -2048, 4095))


def test_big_endian():
    data = pydicom.dcmread(io.BytesIO(dicom(DEEP)))
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data["PixelData"].VR, data.PixelData = "OW", DEEP.astype(">u2").tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, little_endian=False, implicit_vr=False, enforce_file_format=True)
    assert np.array_equal(gray(out.getvalue(), window=(0, 4095)), scaled(U, 0, 4095))


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_float_pixels(keyword, dtype):
    values = np.random.default_rng(5).normal(size=DEEP.shape).astype(dtype)
    values[0, :2] = np.nan, -1e30
    data = pydicom.dcmread(io.BytesIO(dicom(DEEP)))
    del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
    data.BitsAllocated = 8 * values.itemsize
    setattr(data, keyword, values.tobytes())
    setattr(data, keyword.replace("PixelData", "PixelPaddingValue"), float(values[0, 1]))
    out = io.BytesIO()
    data.save_as(out)
    rest = np.float64(values[1:])
    assert np.array_equal(gray(out.getvalue(), window=(-1, 1))[1:], scaled(rest, -1, 1))
    got, inside = gray(out.getvalue()), np.float64(values.ravel()[2:])
    assert got[0, :2].tolist() == [0, 0]
    assert np.array_equal(got.ravel()[2:], scaled(inside, inside.min(), inside.max()))


def test_colours_that_are_not_known_are_an_error():
    for kind in ("YBR_PARTIAL_422", "YBR_PARTIAL_420", "HSV", "CMYK"):
        with pytest.raises(ImageError):
            load_image(dicom(np.zeros((4, 4, 3), np.uint8), kind))


def test_deflated_files_are_bounded(monkeypatch):
    data = dicom(DEEP, syntax=DeflatedExplicitVRLittleEndian)
    assert np.array_equal(gray(data, window=(0, 4095)), scaled(U, 0, 4095))
    monkeypatch.setattr("mipp.io.dicom.MAX_INFLATED", 400)
    assert gray(dicom(DEEP)).shape == DEEP.shape
    with pytest.raises(ImageError, match="inflated"):
        load_image(dicom(DEEP, syntax=DeflatedExplicitVRLittleEndian))


# --- multi-frame ------------------------------------------------------------------------------------------------------


def _enhanced(where: str, **elements) -> bytes:
    groups = item(
        PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=-1024, RescaleType="US"),
        FrameVOILUTSequence=item(WindowCenter=3000, WindowWidth=1500, **elements),
    )
    other = item(PixelValueTransformationSequence=item(RescaleSlope=7, RescaleIntercept=0),
                 FrameVOILUTSequence=item(WindowCenter=10, WindowWidth=20))[0]  # fmt: skip
    frames = np.stack([DEEP, DEEP[::-1]])
    if where == "shared":
        return dicom(frames, SharedFunctionalGroupsSequence=groups)
    if where == "per-frame":
        return dicom(frames, PerFrameFunctionalGroupsSequence=Sequence([groups[0], other]))
    return dicom(frames, PerFrameFunctionalGroupsSequence=Sequence([groups[0], other]),
                 SharedFunctionalGroupsSequence=Sequence([other]))  # fmt: skip


@pytest.mark.parametrize("where", ["shared", "per-frame", "both"])
def test_functional_groups(where):
    units = U * 2 - 1024
    want = np.clip((units - 2999.5) / 1499 + 0.5, 0, 1) * 255
    assert np.abs(gray(_enhanced(where)) - want).max() <= 0.5 + 1e-9
    assert np.array_equal(gray(_enhanced(where), window=(0, 4000)), scaled(units, 0, 4000))
    exact = np.clip((units - 3000) / 1500 + 0.5, 0, 1) * 255
    assert np.abs(gray(_enhanced(where, VOILUTFunction="LINEAR_EXACT")) - exact).max() <= 0.5 + 1e-9


# --- pydicom's own files ----------------------------------------------------------------------------------------------


# those that come with the package; others would be fetched
LOCAL = [
    path for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
    if path.stat().st_size < 3_000_000 and path.read_bytes()[128:132] == b"DICM"
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", LOCAL, ids=lambda path: path.name)
def test_pydicoms_own_files(path):
    content = path.read_bytes()
    try:
        got = load_image(content)
    except MippError:
        got = None
    try:
        data = pydicom.dcmread(io.BytesIO(content))
        values = pixel_array(data, index=0)
    except Exception:
        assert got is None
        return
    if got is None:
        return  # refused with a typed error: no picture to compare
    assert got.shape == (data.Rows, data.Columns, 3)
    if data.PhotometricInterpretation.startswith("MONO") and "WindowWidth" in data and data.get("BitsStored", 1) > 1:
        own = apply_voi_lut(apply_modality_lut(values, data), data)
        units = apply_modality_lut(np.array([0, (1 << data.BitsStored) - 1]) - (
            data.PixelRepresentation << data.BitsStored >> 1), data)  # fmt: skip
        want = (own - units[0]) / (units[1] - units[0]) * 255
        want = 255 - want if data.PhotometricInterpretation == "MONOCHROME1" else want
        if "PixelPaddingValue" not in data:
            assert np.abs(got[:, :, 0] - want).max() <= 0.5 + 1e-6
    elif data.PhotometricInterpretation in ("RGB", "YBR_FULL", "YBR_FULL_422") and values.dtype == np.uint8:
        assert np.array_equal(got, values)


def test_a_makers_own_groups_are_not_read():
    groups = item(FrameVOILUTSequence=item(WindowCenter=3000, WindowWidth=1500))
    groups[0].add_new(0x20050010, "LO", "Somebody")
    private = item(RescaleSlope=77, RescaleIntercept=5, WindowCenter=5, WindowWidth=3, PresentationLUTShape="INVERSE")
    groups[0].add_new(0x2005100F, "SQ", private)
    shared = item(PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=-1024, RescaleType="US"))
    both = {"PerFrameFunctionalGroupsSequence": groups, "SharedFunctionalGroupsSequence": shared}
    want = np.clip((U * 2 - 1024 - 2999.5) / 1499 + 0.5, 0, 1) * 255
    assert np.abs(gray(dicom(np.stack([DEEP]), **both)) - want).max() <= 0.5 + 1e-9


def test_a_window_and_its_function_are_of_one_place():
    shared = item(FrameVOILUTSequence=item(WindowCenter=9, WindowWidth=9, VOILUTFunction="SIGMOID"))
    frames = {"PerFrameFunctionalGroupsSequence": item(FrameVOILUTSequence=item(WindowCenter=3000, WindowWidth=1500))}
    want = np.clip((U - 2999.5) / 1499 + 0.5, 0, 1) * 255
    found = gray(dicom(np.stack([DEEP]), SharedFunctionalGroupsSequence=shared, **frames))
    assert np.abs(found - want).max() <= 0.5 + 1e-9


def test_a_palette_of_8_bits_in_words_keeps_its_colours():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    tables = {}
    for colour, entries in (("Red", np.arange(256)), ("Green", 255 - np.arange(256)), ("Blue", np.full(256, 7))):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        tables[f"{colour}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    found = load_image(dicom(pixels, "PALETTE COLOR", **tables))
    assert np.array_equal(found, np.stack([pixels, 255 - pixels, np.full_like(pixels, 7)], axis=2))


def test_padding_below_zero_of_pixels_without_a_sign():
    pixels = DEEP.astype(np.uint16) // 4
    padded = pixels.copy()
    padded[:2] = 65536 - 2000
    data = pydicom.dcmread(io.BytesIO(dicom(padded)))
    data.add_new("PixelPaddingValue", "SS", -2000)
    out = io.BytesIO()
    data.save_as(out)
    found = gray(out.getvalue())
    assert (found[:2] == 0).all() and found[2:].max() == 255
