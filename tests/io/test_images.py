"""Image files: every mode, orientation, and wrong files of every kind."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mipp.errors import DTypeError, ImageError, NotFoundError, ParameterError
from mipp.io import images
from mipp.io.images import find_images, load_image, thumbnail
from mipp.io.window import apply_window

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_rgb_from_path_and_bytes(tmp_path):
    data = encoded(Image.fromarray(RGB))
    path = tmp_path / "ä.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        got = load_image(source)
        assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable
        assert np.array_equal(got, RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    from PIL import ImageOps

    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(load_image(data), want)
    assert want.shape[:2] == ((5, 7) if orientation < 5 else (7, 5))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored():
    data = encoded(Image.fromarray(RGB), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(load_image(data), RGB)


def test_gray_bilevel_palette_cmyk():
    gray = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    assert np.array_equal(load_image(encoded(Image.fromarray(gray))), np.repeat(gray[:, :, None], 3, 2))
    bits = Image.fromarray(gray).convert("1")
    assert set(np.unique(load_image(encoded(bits)))) == {0, 255}
    palette = Image.fromarray(RGB).quantize(32)
    assert np.array_equal(load_image(encoded(palette)), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert np.array_equal(load_image(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))


def test_transparency_over_white():
    alpha = np.array([[0, 255, 128]], np.uint8)
    colour = np.array([[[10, 20, 30]] * 3], np.uint8)
    rgba = np.concatenate([colour, alpha[:, :, None]], axis=2)
    want = np.rint((colour * (alpha / 255)[:, :, None]) + 255 * (1 - alpha / 255)[:, :, None])
    assert np.array_equal(load_image(encoded(Image.fromarray(rgba))), want)
    layered = np.stack([np.full((1, 3), 50, np.uint8), alpha], axis=2)
    assert load_image(encoded(Image.fromarray(layered, "LA")))[0, :, 0].tolist() == [255, 50, 152]
    palette = Image.fromarray(RGB).quantize(8)
    got = load_image(encoded(palette, transparency=int(np.asarray(palette)[0, 0])))
    assert got[0, 0].tolist() == [255, 255, 255]
    see_through = encoded(Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[0, 0]))
    assert load_image(see_through)[0, 0].tolist() == [255, 255, 255]


def test_deep_gray():
    deep = np.array([[0, 128, 257, 65535, 32768]], np.uint16)
    assert load_image(encoded(Image.fromarray(deep)))[0, :, 0].tolist() == [0, 0, 1, 255, 128]
    wide = np.array([[-5, 65535, 70000]], np.int32)
    assert load_image(encoded(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 255, 255]
    real = np.array([[-1.0, 3.6, 300.0, np.nan]], np.float32)
    assert load_image(encoded(Image.fromarray(real), "TIFF"))[0, :, 0].tolist() == [0, 4, 255, 0]


def test_first_frame():
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    for kind in ("GIF", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert load_image(data).max() == 10


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("content", [
    b"", b"text", encoded(Image.fromarray(RGB))[:-40], encoded(Image.fromarray(RGB), "JPEG")[:60],
    _png_header(30000, 30000), _png_header(10000, 10000), _png_header(4, 4),
])  # fmt: skip
def test_no_image(tmp_path, content):
    path = tmp_path / "scan 7.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"scan 7\.png"):
        load_image(path)
    with pytest.raises(ImageError, match="image data"):
        load_image(content)


def test_bomb_limit_is_ours(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(ImageError, match="7 x 5"):
        load_image(encoded(Image.fromarray(RGB)))


def test_wrong_sources(tmp_path):
    with pytest.raises(NotFoundError, match="nothing"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)
    with pytest.raises(ImageError):
        load_image("a\0b")
    for bad in (None, 3, RGB):
        with pytest.raises(DTypeError):
            load_image(bad)


def test_find_images(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.tiff", "sub/notes.txt", "d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "d.webp", "sub/c.tiff"]
    notes = tmp_path / "sub" / "notes.txt"
    assert find_images([notes, tmp_path / "sub", notes]) == [notes, tmp_path / "sub" / "c.tiff"]
    assert find_images([]) == []
    with pytest.raises(NotFoundError):
        find_images([tmp_path / "nothing"])
    for bad in (None, 7, [None], [b"x"]):
        with pytest.raises(DTypeError):
            find_images(bad)


def test_thumbnail():
    image = np.zeros((100, 50, 3), np.uint8)
    assert thumbnail(image, (40, 40)).shape == (40, 20, 3)
    assert thumbnail(image, (200, 200)).shape == (200, 100, 3)
    assert thumbnail(np.zeros((1, 900, 3), np.uint8), (10, 10)).shape == (1, 10, 3)
    for size in ((0, 5), None, (5,), (1.5, 2), (float("nan"), 3), (10**12, 4), "ab"):
        with pytest.raises(ParameterError):
            thumbnail(image, size)
    for bad in (image.astype(float), image[:, :, 0], image[:0]):
        with pytest.raises(DTypeError):
            thumbnail(bad, (5, 5))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_window_of_deep_gray(kind):
    deep = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
    got = load_image(encoded(Image.fromarray(deep), kind), window=(10000, 20000))
    want = np.floor(np.clip((deep.astype(float) - 10000) * (255 / 10000), 0, 255) + 0.5)
    assert got.shape == (20, 30, 3) and np.array_equal(got, np.repeat(want[:, :, None], 3, axis=2))


def test_window_of_wide_and_float_gray():
    wide = RNG.integers(-100000, 100000, (8, 9), dtype=np.int32)
    got = load_image(encoded(Image.fromarray(wide), "TIFF"), window=(-50000, 50000))
    assert np.array_equal(got[:, :, 0], np.floor(np.clip((wide + 50000) * (255 / 100000), 0, 255) + 0.5))
    real = RNG.normal(size=(8, 9)).astype(np.float32)
    real[0, :3] = np.nan, np.inf, -np.inf
    got = load_image(encoded(Image.fromarray(real), "TIFF"), window=(-1, 1))
    assert got[0, :3, 0].tolist() == [0, 255, 0]
    rest = np.floor(np.clip((real[1:].astype(float) + 1) * 127.5, 0, 255) + 0.5)
    assert np.array_equal(got[1:, :, 0], rest)


def test_window_leaves_8_bits_alone():
    data = encoded(Image.fromarray(RGB))
    assert np.array_equal(load_image(data, window=(0, 10)), RGB)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (20000, 10), (10, 20000)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "CMYK", "I;16", "P", "1", "F", "I"])
def test_every_mode_and_size(size, mode):
    width, height = size
    base = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    image = Image.new("I;16", size, 700) if mode == "I;16" else base.convert(mode)
    got = load_image(encoded(image, "TIFF"))
    assert got.shape == (height, width, 3) and got.dtype == np.uint8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_of_an_animation(kind):
    frames = [Image.fromarray(np.full((6, 7, 3), v, np.uint8)) for v in (200, 90, 10)]
    got = load_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **(
        {"lossless": True} if kind == "WEBP" else {})))  # fmt: skip
    assert got.shape == (6, 7, 3) and np.abs(got.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(kind, share):
    noise = Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8))
    whole = encoded(noise, kind)
    with pytest.raises(ImageError):
        load_image(whole[: int(len(whole) * share)])


# --- PNG of other depths, and what is transparent in it ---------------------------------------------------------------


def _png(rows: list[bytes], width: int, bits: int, colour: int, trns: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = chunk(b"tRNS", trns) if trns else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("window", [None, (0, 4000)])
def test_transparent_value_of_deep_gray(window):
    deep = np.array([[700, 701, 956, 3000]], ">u2")
    got = load_image(_png([deep.tobytes()], 4, 16, 0, struct.pack(">H", 700)), window=window)
    want = load_image(_png([deep.tobytes()], 4, 16, 0), window=window)
    assert got[0, 0].tolist() == [255] * 3 and np.array_equal(got[0, 1:], want[0, 1:]) and want.max() < 255


@pytest.mark.parametrize(("bits", "row", "want"), [
    (1, b"\x40", [0, 255, 0]), (2, b"\x18", [0, 85, 170]), (4, b"\x01\x20", [0, 17, 34]), (8, b"\0\1\2", [0, 1, 2]),
])  # fmt: skip
@pytest.mark.parametrize("value", [0, 1, 2])
def test_transparent_value_of_shallow_gray(bits, row, want, value):
    levels = [0, 1, 0] if bits == 1 else [0, 1, 2]
    got = load_image(_png([row], 3, bits, 0, struct.pack(">H", value)))[0, :, 0]
    assert got.tolist() == [255 if level == value else w for level, w in zip(levels, want, strict=True)]


def test_transparent_colour_of_16_bits():
    deep = np.array([[[700, 20000, 5], [701, 20000, 5], [700, 20000, 5]]], ">u2")
    got = load_image(_png([deep.tobytes()], 3, 16, 2, struct.pack(">HHH", 700, 20000, 5)))
    assert got[0, 0].tolist() == got[0, 2].tolist() == [255] * 3 and got[0, 1].tolist() == [2, 78, 0]


@pytest.mark.parametrize("window", [None, (1000, 2000)])
def test_deep_gray_with_opacity(window):
    deep = np.array([[[1500, 65535], [1500, 0], [1500, 32768], [1999, 65535]]], ">u2")
    got = load_image(_png([deep.tobytes()], 4, 16, 4), window=window)[0, :, 0].tolist()
    assert got == ([6, 255, 130, 8] if window is None else [128, 255, 191, 255])


# --- folders ----------------------------------------------------------------------------------------------------------


def test_files_without_a_suffix_are_looked_into(tmp_path, caplog):
    scan = b"\0" * 128 + b"DICM" + b"\0" * 600
    contents = {
        "IM0001": scan, "DIR/IM0002": scan, "1.2.840.113": scan, "photo": encoded(Image.fromarray(RGB)),
        "photo.bak": encoded(Image.fromarray(RGB), "JPEG"), "DICOMDIR": scan[:200] + b"1.2.840.10008.1.3.10" + scan,
        "notes.txt": b"P5 is a plan", "table.csv": b"a,b", "none": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    names = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)]
    assert names == ["1.2.840.113", "DIR/IM0002", "IM0001", "photo", "photo.bak"]
    assert "no images, left out: 5 (DICOMDIR, none, notes.txt, pipe, table.csv)" in caplog.text
    caplog.clear()
    left_out = []
    find_images(tmp_path, left_out=left_out)
    assert [p.name for p in left_out] == ["DICOMDIR", "none", "notes.txt", "pipe", "table.csv"] and not caplog.text


def test_a_file_beyond_the_size_limit_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="more than"):
        load_image(path)


@pytest.mark.parametrize("window", [(-1.7e308, 1.7e308), (0.0, 5e-324), (-5e-324, 5e-324), (1e300, 1.1e300)])
def test_windows_of_any_size_are_exact_at_their_ends(window):
    values = np.array([[window[0], window[1], np.nan, np.inf, -np.inf]])
    assert apply_window(values, window)[0, :, 0].tolist() == [0, 255, 0, 255, 0]


def tiff(values, photometric, kind):
    """A TIFF file of one strip, little-endian, with the tags that say what its numbers mean."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = [(256, width), (257, height), (258, 8 * values.itemsize), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, height), (279, len(data)), (339, kind)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("dtype", "top", "kind"), [("u1", 255, 1), ("u2", 65535, 1), ("f4", 255, 3)])
def test_tiff_files_whose_white_is_zero_are_inverted(dtype, top, kind):
    values = np.linspace(0, top, 64).round().reshape(8, 8).astype(dtype)
    black = load_image(tiff(values, 1, kind))
    assert black[0, 0, 0] == 0 and black[-1, -1, 0] == 255
    assert np.array_equal(load_image(tiff(values, 0, kind)), 255 - black)


def test_tiff_values_of_32_bits_have_no_sign():
    values = np.array([[0, 70_000], [2**31 + 5, 2**32 - 1]], np.uint32)
    assert load_image(tiff(values, 1, 1))[:, :, 0].tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_bits_of_a_transparent_value_beyond_the_depth_do_not_count(depth):
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    out = io.BytesIO()
    image.save(out, "PNG", bits=depth)
    content = out.getvalue()
    plain = load_image(content)
    at = content.index(b"IDAT") - 4
    chunk = b"tRNS" + struct.pack(">H", 1 << depth)
    clear = content[:at] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[at:]
    assert (plain == 0).all() and (load_image(clear) == 255).all()


def _large(kind: str, height: int = 2000, width: int = 3000) -> bytes:
    """A file of a few kB with many pixels."""
    black = np.zeros((height, width), np.uint8)
    if kind == "palette with opacity":
        return encoded(Image.fromarray(black).convert("P"), transparency=bytes([7]))
    if kind == "one transparent gray":
        return encoded(Image.fromarray(black), transparency=0)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        return encoded(Image.fromarray(black).convert("RGB"), exif=exif)
    if kind == "deep with opacity":
        return _png([bytes(4 * width)] * height, width, 16, 4)
    if kind == "transparent colour of 16 bits":
        return _png([bytes(6 * width)] * height, width, 16, 2, bytes(6))
    dtype = {"deep": np.uint16, "float": np.float32}.get(kind)
    options = {"compression": "tiff_lzw"} if kind == "float" else {}
    image = Image.fromarray(black if dtype is None else black.astype(dtype))
    return encoded(image if dtype else image.convert(kind), "TIFF" if kind == "float" else "PNG", **options)


@pytest.mark.parametrize(
    "kind",
    ["palette with opacity", "one transparent gray", "turned", "deep with opacity", "transparent colour of 16 bits",
     "deep", "float", "RGB", "RGBA", "LA"],
)  # fmt: skip
@pytest.mark.parametrize("window", [None, (0, 100)])
def test_memory_of_a_small_file_with_many_pixels(kind, window):
    """Arrays beside the decoded image: the result, and a few MB."""
    content = _large(kind)
    tracemalloc.start()
    try:
        pixels = load_image(content, window=window)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pixels.size == 3 * 2000 * 3000 and peak < pixels.nbytes + (12 << 20)


@pytest.mark.parametrize("tile", [1, 7, 16])
def test_parts_of_an_image_do_not_show(tile, monkeypatch):
    kinds = {"PNG": ("RGB", "RGBA", "LA", "1", "I;16"), "TIFF": ("CMYK", "F", "I;16B", "RGBA", "PA"), "GIF": ("P",)}
    files = [_random(mode, kind) for kind, modes in kinds.items() for mode in modes]
    exif = Image.Exif()
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        files.append(encoded(Image.fromarray(RGB), exif=exif))
    want = [load_image(content) for content in files]
    monkeypatch.setattr(images, "_TILE", tile)
    for content, whole in zip(files, want, strict=True):
        assert np.array_equal(load_image(content), whole)


def _random(mode: str, kind: str) -> bytes:
    deep = RNG.integers(0, 1 << 16, (5, 7), dtype=np.uint16)
    if mode == "F":
        return encoded(Image.fromarray((deep / 200).astype(np.float32)), kind)
    if mode == "I;16B":
        return encoded(Image.frombytes("I;16B", (7, 5), deep.tobytes()), kind)
    if mode == "I;16":
        return encoded(Image.fromarray(deep), kind)
    return encoded(Image.fromarray(RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)).convert(mode), kind)
