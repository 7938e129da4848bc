"""Records that an owner packed by itself: the replies of the page are JSON, bounded, and tell what is wrong."""

import io
import json
import zlib

import pytest
from PIL import Image

import mipp
from mipp.client import recording
from tests.app.conftest import Caller, encoding, picture, served

METADATA = [
    '{"caption":1e400}',
    '{"caption":NaN}',
    '{"caption":"x","n":%s}' % ("9" * 5000),
    '{"caption":' + "[" * 900 + "]" * 900 + "}",
    '{"caption":"\\ud800\\u0000"}',
    '{"__proto__":"p","caption":"c","constructor":{"toString":1}}',
    "{" + ",".join(f'"k{i}":"v"' for i in range(500)) + "}",
    "[1,2]",
    '{"caption":"' + "\\u202e" * 1500 + '"}',
    '{"a":1,"a":2}',
    "no json",
    '{"caption":"' + "A" * 9000 + '"}',
    '{"' + "k" * 9000 + '":"v"}',
]


def bomb():
    """A small file that claims to be 8000 x 8000 pixels."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (8000).to_bytes(4, "big") * 2
    head = chunk(b"IHDR", size + bytes([1, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1001 * 8000), 9)) + chunk(b"IEND", b"")


THUMBNAILS = [
    b"",
    b"no picture",
    bomb(),
    b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    b"GIF89a" + bytes(50),
]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    heads = iter(METADATA * 2)
    thumbnails = iter(THUMBNAILS * 10)

    def pack(record, room):
        thumbnail = next(thumbnails)
        head = f'{{"path":"../../{"x" * 50}.png","metadata":{next(heads)},"thumbnail":{len(thumbnail)}}}'.encode()
        return (len(head).to_bytes(4, "big") + head + thumbnail).ljust(room, b"\0")[:room]

    with mipp.Deployment.create(tmp_path / "d", encoding(), descriptor="cld", preview_size=16384) as deployment:
        user, owner = deployment.create_user("ulla"), deployment.create_owner("mallory")
        (tmp_path / "p").mkdir()
        paths = [picture(tmp_path / "p" / f"{n:02d}.png", n) for n in range(len(METADATA))]
        with monkeypatch.context() as patch:
            patch.setattr(recording, "pack_record", pack)
            owner.add_images(paths, workers=1)
        owner.grant(user)
        with served(deployment) as page:
            yield Caller.opened(page).opened_party("user", "ulla").opened_party("owner", "mallory"), paths


def strict(body):
    def no(value):
        raise AssertionError(f"{value} is no JSON")

    return json.loads(body, parse_constant=no)


def test_searches_lists_and_exports_of_hostile_records(hostile):
    caller, paths = hostile
    number = caller.done("/api/user/ulla/search?k=20&named=1", paths[0].read_bytes())
    _, _, body = caller.send("GET", f"/api/searches/{number}")
    found = strict(body)
    assert len(body) < 2_000_000 and found["total"] == len(METADATA) and not found["unnamed"]
    assert all(hit["named"] for hit in found["hits"])
    shown = {hit["caption"][:10] for hit in found["hits"] if not hit["problem"]}
    assert {"c", "A" * 10} <= shown, "some are what owners may write"
    broken = [hit for hit in found["hits"] if hit["problem"]]
    assert broken and all("\n" not in hit["problem"] for hit in broken)
    body.decode().encode("utf-8")  # no halves of surrogates
    assert not any(c in body.decode() for c in "\u202e\x00")
    packed = caller.send("GET", f"/api/searches/{number}/pictures?count=20")[2]
    while packed:
        length = int.from_bytes(packed[4:8], "big")
        assert Image.open(io.BytesIO(packed[8 : 8 + length])).format == "JPEG"
        packed = packed[8 + length :]
    job = caller.work(f"/api/searches/{number}/export", {"hits": list(range(len(METADATA))), "kind": "zip"})
    assert job["state"] == "done"
    # the owner's own page: a list says which record is wrong, or shows it
    job = caller.work("/api/owner/mallory/images", {})
    assert job["state"] in ("done", "failed") and "program failed" not in job["text"]
    strict(caller.send("GET", f"/api/jobs/{job['id']}")[2])
