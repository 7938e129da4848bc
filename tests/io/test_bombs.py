"""Small files that cost much: the size that will be decoded is known before it is decoded, whatever a head claims."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from mipp.errors import ImageError
from mipp.io import coded, images
from mipp.io.display import picture
from mipp.io.images import load_image
from mipp.io.recognise import formats, is_image_file


def saved(kind, side, **options):
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, kind, **options)
    return out.getvalue()


def icns(side):
    """The directory says 128 x 128."""
    inner = saved("JPEG2000", side)
    body = b"ic07" + struct.pack(">I", 8 + len(inner)) + inner
    return b"icns" + struct.pack(">I", 8 + len(body)) + body


def ico(side):
    """The directory says 16 x 16."""
    inner = saved("PNG", side)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def tiles(side):
    """A TIFF image of 16 x 16 in one tile."""
    data = zlib.compress(bytes(side * side), 9)
    start = 8 + 2 + 12 * 10 + 4
    out = b"II*\0" + struct.pack("<IH", 8, 10)
    for tag, kind, value in (
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (322, 4, side), (323, 4, side),
        (324, 4, start), (325, 4, len(data)),
    ):  # fmt: skip
        out += struct.pack("<HHII", tag, kind, 1, value)
    return out + b"\0\0\0\0" + data


@pytest.mark.parametrize("content", [icns(128), ico(16)])
def test_files_that_hold_other_files_are_not_opened(content, tmp_path):
    with Image.open(io.BytesIO(content)) as image:  # Pillow would
        image.load()
    with pytest.raises(ImageError, match="not an image of a format that is read here"):
        load_image(content)
    assert picture(content, 64) is None and picture(content, 64, most_pixels=1 << 20) is None
    (tmp_path / "icon").write_bytes(content)
    assert not is_image_file(tmp_path / "icon")


def test_tiles_of_tiff_count(monkeypatch):
    assert load_image(tiles(64)).shape == (16, 16, 3)
    with Image.open(io.BytesIO(tiles(4096))) as image:
        assert image.size == (16, 16) and coded.decoded_pixels(image) == 1 << 24
    assert picture(tiles(4096), 64, most_pixels=1 << 20) is None
    monkeypatch.setattr(images, "MAX_PIXELS", 1 << 20)
    with pytest.raises(ImageError, match="16 x 16 pixels, or a tile of them"):
        load_image(tiles(4096))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF files")
def test_an_avif_file_is_no_thumbnail():
    """Its head can claim 16 x 16 pixels, and 300 x 300 are decoded."""
    content = bytearray(saved("AVIF", 300))
    place = content.find(b"ispe") + 8
    content[place : place + 8] = struct.pack(">II", 16, 16)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (16, 16)
        image.load()
    assert picture(bytes(content), 64, most_pixels=1 << 20) is None
    assert load_image(saved("AVIF", 40)).shape == (40, 40, 3), "an owner's own image"
    assert set(formats()) - set(formats(sure=True)) == {"AVIF"}


@pytest.mark.parametrize(
    "content",
    [saved("JPEG", 70), saved("JPEG", 70, progressive=True), saved("JPEG2000", 70), saved("JPEG2000", 70, no_jp2=True)],
)
def test_sizes_of_codestreams(content):
    assert coded.coded_pixels(content) == 4900
    for end in range(0, len(content), 7):
        assert coded.coded_pixels(content[:end]) in (0, 4900)
    assert coded.coded_pixels(b"") == coded.coded_pixels(saved("PNG", 70)) == coded.coded_pixels(b"\xff\xd8\xff") == 0
    lossless = b"\xff\xd8\xff\xf7\x00\x0b\x08\x01\x00\x02\x00\x01\x01\x11\x00"
    assert coded.coded_pixels(lossless) == 256 * 512, "JPEG-LS"


SYNTAX = {"JPEG2000": "1.2.840.10008.1.2.4.91", "JPEG": "1.2.840.10008.1.2.4.50", "RLE": "1.2.840.10008.1.2.5"}


def dicom(kind, rows, frame, bits=8):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = SYNTAX[kind]
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows = data.Columns = rows
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.SamplesPerPixel, data.PixelRepresentation = bits - 1, 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def rle(*segments):
    starts = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize(("kind", "side"), [("JPEG2000", 300), ("JPEG", 300), ("RLE", 800)])
def test_frames_of_dicom_files_have_the_declared_size(kind, side):
    def file(rows, frame):
        return dicom(kind, rows, frame)

    if kind == "RLE":  # 128 equal pixels take two bytes
        frame = rle(b"\x81\x00" * (side * side // 128))
    else:
        frame = saved(kind, side, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    assert load_image(file(side, frame)).shape == (side, side, 3)
    with pytest.raises(ImageError, match="more pixels than the file declares"):
        load_image(file(16, frame))


@pytest.mark.filterwarnings("ignore:The decoded RLE segment")
def test_runs_of_dicom_frames_are_counted_before_they_are_decoded(monkeypatch):
    """A frame that is no longer than its pixels may decode to 64 times as much, in any of its segments."""
    pytest.importorskip("pydicom")
    side = 256
    good, bomb = b"\x81\x07" * (side * side // 128), b"\x81\x07" * (side * side // 2)
    for padding in (b"", b"\x00", b"\x80" * 4000, b"\x00" * 2 * 1000):  # none, of the standard, no runs, pixels
        assert load_image(dicom("RLE", side, rle(good + padding))).shape == (side, side, 3)
    assert load_image(dicom("RLE", side, rle(good, good), 16)).shape == (side, side, 3)

    def decode(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("mipp.io.dicom._to_rgb", decode)
    for frame, bits in ((rle(bomb), 8), (rle(bomb, good), 16), (rle(good, bomb), 16)):
        with pytest.raises(ImageError, match="more pixels than the file declares"):
            load_image(dicom("RLE", side, frame, bits))


def test_a_dicom_frame_has_as_many_pixels_as_any_image(monkeypatch):
    side = 256
    monkeypatch.setattr("mipp.io.dicom.MAX_PIXELS", side * side - 1)
    with pytest.raises(ImageError, match="more than 65535 pixels"):
        load_image(dicom("RLE", side, rle(b"\x81\x07" * (side * side // 128))))


def test_runs_are_counted_as_the_decoder_decodes_them():
    decoder = pytest.importorskip("pydicom.pixels.decoders.rle")
    rng = np.random.default_rng(0)
    for _ in range(500):
        segments = [rng.integers(0, 256, rng.integers(0, 400), np.uint8).tobytes() for _ in range(rng.integers(1, 16))]
        sizes = [len(decoder._rle_decode_segment(segment)) for segment in segments]
        assert coded.rle_bytes(rle(*segments), 1 << 30) == max(sizes)
        most = max(sizes) - 1
        assert most < 0 or coded.rle_bytes(rle(*segments), most) > most
    for frame in (b"", bytes(63), bytes(64), b"\xff" * 64, b"\xff" * 90, rle(b"\x81")[:-1]):
        assert coded.rle_bytes(frame, 100) == 0
