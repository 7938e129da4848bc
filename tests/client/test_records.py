"""Records: what is packed comes back, hostile ones end in MessageError, thumbnails fit and show the image."""

import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mipp.client.albums import album_of
from mipp.client.image_metadata import METADATA_DEPTH
from mipp.client.records import (
    ORIGINAL_BYTES,
    Record,
    fits,
    pack_record,
    parse_record,
    record_room,
    safe_path,
    thumbnail,
)
from mipp.crypto.records import RECORD_OVERHEAD
from mipp.errors import ImageError, MessageError, ParameterError
from mipp.rpc.names import safe_name
from mipp.rpc.records import PREFIX_BYTES

ROOM = 600
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
METADATA = st.none() | st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


def plain(head, rest=b"", room=ROOM):
    """A record as a hostile owner writes it."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return (len(raw).to_bytes(4, "big") + raw + rest).ljust(room, b"\0")


# --- packing --------------------------------------------------------------------------------------------------------
@given(path=st.text(max_size=40), metadata=METADATA, image=st.binary(max_size=40))
def test_round_trip(path, metadata, image):
    room = 4000
    packed = pack_record(Record(path, metadata, image), room)
    assert len(packed) == room
    assert parse_record(packed) == Record(safe_path(path) if path else "", metadata, image)


@given(path=st.text(max_size=20), metadata=METADATA)
def test_what_fits_is_what_packs(path, metadata):
    left = fits(metadata, path, 4000)
    need = 4000 - left
    assert len(pack_record(Record(path, metadata, b""), need)) == need
    assert parse_record(pack_record(Record(path, metadata, b"x" * left), 4000)).thumbnail == b"x" * left
    with pytest.raises(ParameterError, match=f"{left + 1} bytes, {left} are left"):
        pack_record(Record(path, metadata, b"x" * (left + 1)), 4000)


def test_the_layout_is_fixed():
    head = '{"path":"a/ö.png","thumbnail":3,"metadata":{"b":1}}'.encode()
    got = pack_record(Record("a/ö.png", {"b": 1}, b"RIF"), 100)
    assert got == len(head).to_bytes(4, "big") + head + b"RIF" + bytes(100 - 7 - len(head))


def test_too_much_is_refused_by_name_and_size():
    with pytest.raises(ParameterError, match=r"6\d\d bytes in a record, 600 fit; the largest field is 'note'"):
        fits({"note": "x" * 550, "b": "y"}, "a.png", ROOM)
    with pytest.raises(ParameterError, match=r"1000\d\d\d bytes in a record, 600 fit; the largest field is 'long"):
        fits({"long" * 30: "x" * 1_000_000}, "a.png", ROOM)
    with pytest.raises(ParameterError, match="the largest field is 'path'"):
        fits({"note": "x" * 10}, "a" * 200, 100)
    with pytest.raises(ParameterError, match="largest field is 'note'"):
        pack_record(Record("a.png", {"note": "x" * 601}, b""), ROOM)
    note = {"note": "x" * 500}
    need = ROOM - fits(note, "a.png", ROOM)
    assert fits(note, "a.png", need) == 0
    with pytest.raises(ParameterError, match=f" {need} bytes in a record, {need - 1} fit"):
        fits(note, "a.png", need - 1)
    # text is UTF-8: escapes would take 6 bytes a character
    assert fits({"note": "ж" * 250}, "a.png", ROOM) > 0


def test_metadata_is_checked_as_for_image_files():
    deep = []
    for _ in range(METADATA_DEPTH):
        deep = [deep]
    for wrong, message in (
        ([], "mapping"), ({1: 2}, "named by text"), ({"a": {1}}, "JSON"), ({"a": float("nan")}, "JSON"),
        ({"a": [*deep, 1]}, "levels"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=message):
            fits(wrong, "a.png", ROOM)
    with pytest.raises(ParameterError, match="path"):
        fits(None, b"a.png", ROOM)
    # keys that JSON makes equal are one, so the owner's own record can be read again
    record = parse_record(pack_record(Record("a", {"a": {1: "x", "1": "y"}}, b""), ROOM))
    assert record.metadata == {"a": {"1": "y"}}
    # half of a surrogate pair, as file names have it, has no UTF-8
    assert parse_record(pack_record(Record("a", {"a": "\udc80"}, b""), ROOM)).metadata == {"a": "\udc80"}


def test_sizes_and_repr():
    assert (
        record_room(8192) == 8192 - RECORD_OVERHEAD - PREFIX_BYTES - ORIGINAL_BYTES and record_room(np.int64(256)) == 72
    )
    for wrong in (0, 192, 8200, (1 << 16) + 64, 8192.0, True, "8192"):
        with pytest.raises(ParameterError, match="record"):
            record_room(wrong)
    shown = repr(Record("secret.png", {"secret": "secret"}, b"secret"))
    assert "secret" not in shown and shown == "Record(...)"


# --- hostile owners -------------------------------------------------------------------------------------------------
GOOD = {"path": "a.png", "thumbnail": 3, "metadata": {"a": 1}}


def test_what_tests_of_hostile_records_start_from_is_good():
    assert parse_record(plain(GOOD, b"xyz")) == Record("a.png", {"a": 1}, b"xyz")
    assert parse_record(plain({"path": "a", "thumbnail": 0, "metadata": None})) == Record("a", None, b"")


@pytest.mark.parametrize(("bad", "message"), [
    (b"", "length"), (b"\0\0\0", "length"), (b"\0\0\0\2{", "length"), (b"\xff" * 100, "length"),
    (bytes(ROOM), "not JSON"), (plain(b"{"), "not JSON"), (plain(b'{"path": "\xff", "thumbnail": 0}'), "not JSON"),
    (plain(b'{"path": "a", "thumbnail": 0, "metadata": {"a": NaN}}'), "not JSON"),
    (plain(b'{"path": "a", "thumbnail": 0, "metadata": {"a": 1e999}}'), "not JSON"),
    (plain(b'{"path": "a", "path": "b", "thumbnail": 0}'), "not JSON"),
    (plain(b"[" * 100_000, room=100_010), "not JSON"), (plain(b"1" * 9000, room=9010), "not JSON"),
    (plain([]), "other fields"), (plain({}), "other fields"), (plain({"path": "a"}), "other fields"),
    (plain({**GOOD, "more": 1}, b"xyz"), "other fields"),
    (plain({**GOOD, "path": 1}, b"xyz"), "path"), (plain({**GOOD, "path": None}, b"xyz"), "path"),
    (plain({**GOOD, "metadata": []}, b"xyz"), "metadata"), (plain({**GOOD, "metadata": "a"}, b"xyz"), "metadata"),
    (plain({**GOOD, "thumbnail": True}, b"x"), "wrong length"), (plain({**GOOD, "thumbnail": 3.0}, b"xyz"), "wrong l"),
    (plain({**GOOD, "thumbnail": -1}), "wrong length"), (plain({**GOOD, "thumbnail": ROOM}), "wrong length"),
    (plain({**GOOD, "thumbnail": 2}, b"xyz"), "padding"), (plain(GOOD, b"xyz")[:-1] + b"\1", "padding"),
])  # fmt: skip
def test_hostile_records(bad, message):
    with pytest.raises(MessageError, match=message):
        parse_record(bad)


def test_metadata_that_is_too_deep():
    def nested(levels):
        return plain(b'{"path":"a","thumbnail":0,"metadata":{"a":' + b"[" * levels + b"1" + b"]" * levels + b"}}")

    parse_record(nested(METADATA_DEPTH - 1))
    with pytest.raises(MessageError, match="metadata"):
        parse_record(nested(METADATA_DEPTH))


@given(st.binary(max_size=200) | st.builds(lambda raw, rest: plain(raw, rest, 0), st.binary(max_size=60), st.binary()))
def test_any_bytes(data):
    try:
        record = parse_record(data)
    except MessageError:
        return
    assert isinstance(record, Record)


@given(st.data())
def test_changed_records(data):
    """Heads that are nearly right, and a byte changed anywhere."""
    head = {**GOOD, data.draw(st.sampled_from([*GOOD, "x"])): data.draw(VALUES)}
    raw = bytearray(plain(head, b"xyz", 200))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(0, 255))
    try:
        record = parse_record(bytes(raw))
    except MessageError:
        return
    assert record.path == (safe_path(record.path) if record.path else "")
    assert record.metadata is None or isinstance(record.metadata, dict)


@pytest.mark.parametrize(("path", "safe"), [
    ("a.png", "a.png"), ("a/b/c.png", "a/b/c.png"), ("/etc/passwd", "etc/passwd"), ("../../x", "x"), ("a/../b", "a/b"),
    ("C:\\win\\nul", "C_/win/_nul"), ("a//./b", "a/b"), ("..", "image"), ("/", "image"),
    ("a\x1b[31m/b\u202e.png", "a[31m/b.png"), ("~/a", "~/a"), (".ssh/key", "ssh/key"),
])  # fmt: skip
def test_paths_are_made_safe(path, safe):
    assert safe_path(path) == safe
    assert parse_record(plain({"path": path, "thumbnail": 0})).path == safe


@given(st.text() | st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "con", " ", "\0", ":"])).map("".join))
def test_no_path_leads_out(path):
    safe = safe_path(path)
    assert safe == safe_path(safe) and not safe.startswith("/")
    assert all(part == safe_name(part) and part not in ("", ".", "..") for part in safe.split("/"))
    assert len(safe_path(path * 2000).encode()) < 4096


# --- thumbnails -----------------------------------------------------------------------------------------------------
def photo(width=900, height=600, seed=0):
    """Something like a photo: coarse and fine structure."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3))
    for cells in (3, 12, 48, 192):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        out += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.7
    return Image.fromarray((255 * (out - out.min()) / (out.max() - out.min())).astype(np.uint8))


def saved(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize("room", [700, 2000, 8000, 30_000])
@pytest.mark.parametrize("size", [(900, 600), (600, 900), (1500, 100)])
def test_thumbnails_fill_the_room_and_show_the_image(room, size):
    image = photo(*size)
    made = thumbnail(saved(image), room)
    assert len(made) <= room
    small = opened(made)
    # most of the room is used, unless the image is there at its largest already
    assert len(made) > 0.6 * room or max(small.size) >= 256
    assert abs(small.width / small.height - size[0] / size[1]) < 0.1 * size[0] / size[1] + 16 / min(small.size) / 10
    whole = np.asarray(image.resize(small.size, Image.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(small, float) - whole).mean() < 12
    assert thumbnail(saved(image), room) == made == thumbnail(np.asarray(image), room)


def test_more_room_gives_a_larger_thumbnail():
    content = saved(photo(), "JPEG")
    sides = [max(opened(thumbnail(content, room)).size) for room in (500, 2000, 8000, 32_000)]
    assert sides == sorted(set(sides)) and sides[0] < 100 and sides[-1] > 400


def test_small_images_stay_as_large_as_they_are():
    for size in ((1, 1), (10, 7), (120, 80), (3, 200)):
        assert opened(thumbnail(saved(photo(*size)), 30_000)).size == size
    # a plain image has the longest side that this room allows, and no more
    assert max(opened(thumbnail(saved(Image.new("RGB", (5000, 3000), "red")), 1 << 20)).size) == 1024


def test_high_quality_fits_too():
    """Small images that leave much of the room are made once more, which may need more than the room."""
    faint = Image.fromarray(np.random.default_rng(0).integers(100, 112, (40, 60, 3), np.uint8))
    sizes = {room: len(thumbnail(saved(faint), room)) for room in range(150, 900, 25)}
    assert all(size <= room for room, size in sizes.items())
    # 106 bytes at the usual quality, 538 at the high one
    assert sizes[400] < 200 and sizes[875] > 400


def test_no_room_no_thumbnail():
    content = saved(photo(300, 200))
    for room in (-1, 0, 10, 40):
        assert thumbnail(content, room) == b""
    least = next(room for room in range(41, 400) if thumbnail(content, room))
    assert 16 <= max(opened(thumbnail(content, least)).size) <= 20
    with pytest.raises(ImageError):
        thumbnail(b"no image", 8000)


def test_it_is_upright_and_has_nothing_but_pixels():
    image = Image.new("RGB", (80, 40), "black")
    image.paste("white", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret words"
    content = saved(image, "JPEG", exif=exif, comment=b"secret words", icc_profile=b"secret words")
    assert content.count(b"secret words") == 3
    made = thumbnail(content, 4000)
    assert b"secret" not in made and not any(chunk in made for chunk in (b"EXIF", b"XMP ", b"ICCP"))
    small = opened(made)
    assert small.size == (40, 80) and not small.getexif()
    pixels = np.asarray(small.convert("L"))
    assert pixels[:30].mean() > 240 and pixels[50:].mean() < 15


def test_deep_gray_goes_through_the_window():
    deep = Image.fromarray(np.full((20, 20), 1000, np.uint16))
    plain_value = np.asarray(opened(thumbnail(saved(deep), 4000))).mean()
    seen = np.asarray(opened(thumbnail(saved(deep), 4000, window=(0, 2000)))).mean()
    assert plain_value < 8 and abs(seen - 128) < 4


# --- albums ---------------------------------------------------------------------------------------------------------
def test_albums():
    owner, ids = b"o" * 16, [bytes([i]) * 16 for i in (3, 1, 2)]
    want = hashlib.sha256(b"mipp v1 album id" + owner + ids[1] + ids[2] + ids[0]).digest()[:16]
    assert album_of(owner, iter(ids)) == album_of(owner, ids[::-1] + ids) == want
    known = {album_of(owner, ids[:n]) for n in range(4)} | {album_of(b"p" * 16, [])}
    assert len(known) == 5
    for wrong in ((b"o" * 15, []), (owner, [b"x" * 15]), (owner, [b"x" * 32])):
        with pytest.raises(ParameterError, match="16 bytes"):
            album_of(*wrong)
