"""Texts and pictures of strangers, before they are shown."""

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mipp.errors import DTypeError, ParameterError
from mipp.io import display, gate
from mipp.io.display import PICTURE_TYPE, picture, shown
from mipp.io.limits import MAX_PIXELS

#: U+202A-202E, U+2066-2069, marks, the byte order mark, a tag character, C0, C1, a surrogate, a private character
ACTING = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C, 0xFEFF, 0xE0041, 0, 0x1B, 0x9B, 0x7F,
          0xD800, 0xE000]  # fmt: skip


@pytest.mark.parametrize("code", ACTING, ids=hex)
def test_characters_that_act_on_others_are_replaced(code):
    assert shown(f"a{chr(code)}b") == "a\ufffdb"


def test_white_space_is_a_space_and_text_stays():
    assert shown("a\tb\r\nc\u2028d\u00a0e") == "a b  c d e"
    for text in ("Mädchen mit Katze", "שלום", "می\u200cخواهم", "👩\u200d🔬", "<b>&amp;", ""):
        assert shown(text) == text


def test_long_texts_are_cut():
    assert shown("x" * 200) == "x" * 200
    assert shown("x" * 10_000) == "x" * 199 + "…" and shown("xyz", 1) == "…"
    for wrong, error in ((("x", 0), ParameterError), ((b"x",), DTypeError), ((None,), DTypeError)):
        with pytest.raises(error):
            shown(*wrong)


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_pictures_are_encoded_anew_and_small(form):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    content = encoded(Image.fromarray(pixels), form)
    for side, size in ((30, (30, 20)), (90, (90, 60)), (500, (90, 60))):
        made = Image.open(io.BytesIO(picture(content, side)))
        assert made.size == size and made.get_format_mimetype() == PICTURE_TYPE


def test_nothing_of_the_file_but_pixels_is_left():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "<script>alert(1)</script>")
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    content = encoded(Image.new("RGB", (8, 8)), pnginfo=notes, exif=exif) + b"<script>trailing</script>"
    made = picture(content, 8)
    assert b"script" in content and b"secret" in content
    assert b"script" not in made and b"secret" not in made


@pytest.mark.parametrize("content", [b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a" * 9])
def test_what_is_no_image_gives_no_picture(content):
    assert picture(content, 90) is None
    assert picture(encoded(Image.new("RGB", (64, 64), "red"))[:60] + content, 90) is None


def test_a_small_file_that_claims_many_pixels_is_not_decoded(monkeypatch):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(4001 * 4000))) + chunk(b"IEND", b"")
    assert len(bomb) < 20_000 and picture(bomb, 8) is not None

    def decode(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("mipp.io.images.load_image", decode)
    assert picture(bomb, 8, most_pixels=1 << 20) is None
    assert picture(b"no image", 8, most_pixels=1 << 20) is None


def claiming(side):
    """A PNG file of a few bytes whose head claims a square of this side."""
    content = bytearray(encoded(Image.new("L", (1, 1))))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_threads_have_a_bounded_number_of_pixels_open_together(monkeypatch):
    """Large images wait for each other; small ones go on beside them."""
    opened, most, lock = {}, {True: 0, False: 0}, threading.Lock()

    def decode(content, window=None):
        with Image.open(io.BytesIO(content)) as image:
            pixels = image.width * image.height
        with lock:
            opened[threading.get_ident()] = pixels
            for small in most:
                total = sum(one for one in opened.values() if (one <= 1 << 20) is small)
                most[small] = max(most[small], total)
        time.sleep(0.02)
        with lock:
            del opened[threading.get_ident()]
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr("mipp.io.images.load_image", decode)
    contents = [claiming(side) for side in (1000, 4000, 9400, 6000, 1024, 5000) * 6]
    with ThreadPoolExecutor(36) as pool:
        assert all(pool.map(lambda content: picture(content, 8), contents))
    assert 9400**2 <= most[False] <= MAX_PIXELS
    assert 1024**2 < most[True] <= 16 << 20
    assert opened == {} and display._LARGE_TOGETHER.held == display._SMALL_TOGETHER.held == 0


@pytest.mark.parametrize("content", [b"no image", b"\0" * 128 + b"DICM"])
def test_files_of_unknown_size_are_opened_alone(content):
    with ThreadPoolExecutor(1) as pool:
        with display._LARGE_TOGETHER.holding(1):
            waiting = pool.submit(picture, content, 8)
            time.sleep(0.05)
            assert not waiting.done()
            assert picture(encoded(Image.new("L", (9, 9))), 8) is not None, "a small one goes on"
        assert waiting.result(10) is None


def test_a_gate_lets_in_by_the_order_of_arrival_and_forgets_who_gave_up(monkeypatch):
    one, order = gate.Gate(10), []

    def enter(amount):
        with one.holding(amount):
            order.append(amount)

    with ThreadPoolExecutor(3) as pool:
        with one.holding(5):
            for amount in (99, 3, 2):  # more than all is all; those behind it do not overtake it
                pool.submit(enter, amount)
                time.sleep(0.05)
            assert order == []
        pool.shutdown()
    assert order[0] == 99 and sorted(order) == [2, 3, 99] and one.held == 0
    with monkeypatch.context() as patch:
        patch.setattr(one._changed, "wait_for", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enter(1)
    with pytest.raises(ZeroDivisionError), one.holding(10):
        raise ZeroDivisionError
    enter(10)
    assert one.held == 0 and not one._waiting


def test_bad_arguments():
    for wrong, error in ((("text", 8), DTypeError), ((None, 8), DTypeError), ((b"", 0), ParameterError)):
        with pytest.raises(error):
            picture(*wrong)
