"""Fetches from hostile owners and damaged stores: what is wrong with one image is that image's error."""

import json

import numpy as np
import pytest

from mipp.client import fetching, image_file
from mipp.client import rows as owner_module
from mipp.crypto import box, schedule
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
)
from mipp.rpc import messages as m
from mipp.rpc.limits import HEAD_BYTES
from mipp.server import images as serving_images
from tests.conftest import vectors


def pack_of(world, owner, batch, server=1):
    return next((world.home(server) / "images").glob(f"*/{batch.hex()}.*"))


def all_images(world):
    return [(owner.batches()[0].id, row) for owner in world.owners for row in range(15)]


def check_others(world, images, failed, kind):
    """Every image but those of ``failed`` is there; those have an error of the kind and no path in it."""
    for image in images:
        number = next(i for i, o in enumerate(world.owners) if image.batch == o.batches()[0].id)
        if (image.batch, image.row) in failed:
            assert type(image.error) is kind and image.content == b""
            assert str(world.deployment.folder) not in str(image.error) and "/" not in str(image.error)
        else:
            assert image.error is None and image.content == bytes([number, image.row]) * 50
            assert image.name == f"{world.owners[number].name}{image.row}.png"


@pytest.mark.parametrize("damage", ["flipped", "missing", "short", "empty"])
def test_a_damaged_pack_fails_its_own_images_only(world, damage):
    batch = world.owners[0].batches()[0].id
    for server in (1, 2):
        # the other cloud has it, too, until that is damaged as well
        assert not [i.error for i in world.user.fetch(all_images(world), strict=True) if i.error]
        path = pack_of(world, world.owners[0], batch, server)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.chmod(0o600)
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"flipped": raw, "short": raw[:300], "empty": b""}[damage])
        world.deployment.servers[server].store.packs._open.clear()  # as when its process starts again
    images = world.user.fetch(all_images(world))
    check_others(world, images, {(batch, row) for row in range(15)}, IntegrityError)
    with pytest.raises(IntegrityError, match=batch.hex()):
        world.user.fetch(all_images(world), strict=True)


def test_images_that_are_not_there(world):
    batch, other = (o.batches()[1].id for o in world.owners)
    wanted = [*all_images(world), (batch, 3), (other, 99), (b"n" * 16, 0)]
    images = world.user.fetch(wanted)
    assert [type(i.error) for i in images[-3:]] == [NotFoundError, NotFoundError, AccessDeniedError]
    check_others(world, images[:-3], set(), MippError)
    with pytest.raises(NotFoundError):
        world.user.fetch(wanted, strict=True)


@pytest.mark.parametrize("end", ["revoke", "forget"])
def test_an_owner_whose_grant_ended(world, end):
    wanted = all_images(world)
    if end == "revoke":
        world.owners[0].revoke(world.user.id)
    else:
        world.owners[0].forget()
    images = world.user.fetch(wanted)
    assert {type(i.error) for i in images[:15]} == {AccessDeniedError}
    assert [i.error for i in images[15:]] == [None] * 15
    world.owners[1].revoke(world.user.id)
    with pytest.raises(AccessDeniedError, match="no owner grants"):
        world.user.fetch(wanted)


def hostile_headers():
    def framed(head, size=None):
        return (len(head) if size is None else size).to_bytes(4, "big") + head + b"content"

    return [
        b"", b"\0\0", framed(b""), framed(b"{}", 1 << 31), framed(b"{}", 10), framed(b"{"), framed(b"\xff\xfe"),
        framed(b"[" * 60000), framed(b'{"a":' * 10000), framed(b"[]"), framed(b'"name"'), framed(b"null"),
        framed(b'{"name":1}'), framed(b'{"name":null}'), framed(b'{"name":["a"]}'), framed(b"1" * 60000),
        framed(json.dumps({"name": "x" * HEAD_BYTES}).encode()),
    ]  # fmt: skip


def test_malformed_headers_of_a_hostile_owner(world, monkeypatch):
    """The owner encrypts any bytes it likes under its own keys; the other owners' images come all the same."""
    headers = [*hostile_headers(), b"\0\0\0\2{}content", b'\0\0\0\x12{"name":"\\u202e/"}content']
    waiting = list(headers)
    real = box.seal_image

    def seal(*args):
        return real(*args[:-1], waiting.pop(0))

    monkeypatch.setattr(owner_module.box, "seal_image", seal)
    anna = world.owners[0]
    ids = anna.add_vectors(vectors(len(headers), 3), [("x", b"x")] * len(headers))
    images = world.user.fetch(ids + all_images(world))
    for image, header in zip(images, hostile_headers(), strict=False):
        assert type(image.error) is MessageError, header[:20]
        assert image.name.startswith("image-") and image.content == b""
    for image in images[len(headers) - 2 : len(headers)]:
        assert (image.error, image.name, image.content) == (None, "image", b"content")
    check_others(world, images[len(headers) :], set(), MippError)


def exchange(world, server):
    """A hostile cloud exchanges two files of one pack."""
    packs, bad = world.deployment.servers[server].store.packs, world.owners[0].batches()[0].id
    real = packs.image
    packs.image = lambda owner, batch, row: real(owner, batch, row ^ 1 if batch == bad and row < 2 else row)
    return bad


def test_a_file_that_does_not_authenticate(world):
    """It is asked for at the other cloud; if that does the same, it is that image's error."""
    exchange(world, 1)
    assert not [i.error for i in world.user.fetch(all_images(world), strict=True) if i.error]
    bad = exchange(world, 2)
    check_others(world, world.user.fetch(all_images(world)), {(bad, 0), (bad, 1)}, AuthenticationError)


def test_servers_that_disagree(world):
    """A key centre that names another image for one that was asked for."""
    centre = world.deployment.servers[3]
    real = centre.store.packs.origins
    bad = world.owners[1].batches()[0].id

    def origins(owner, batch):
        batches, rows = real(owner, batch)
        return batches, rows[::-1] if batch == bad else rows

    centre.store.packs.origins = origins
    failed = {(bad, row) for row in range(15) if row != 7}
    check_others(world, world.user.fetch(all_images(world)), failed, AuthenticationError)


def ask(world, server, batches, rows):
    owners = np.frombuffer(world.owners[0].id * len(batches), np.uint8).reshape(-1, 16)
    msg = m.FetchImages(owners, np.frombuffer(b"".join(batches), np.uint8).reshape(-1, 16), np.array(rows, "<i8"))
    return world.user.ask({server: msg})[server]


def test_requests_that_servers_refuse(world):
    batch = world.owners[0].batches()[0].id
    for server in (1, 2, 3):
        with pytest.raises(ShapeError, match="once"):
            ask(world, server, [batch] * 2, [3, 3])
        with pytest.raises(ShapeError, match="at most 1024"):
            ask(world, server, [batch] * 1025, range(1025))
        with pytest.raises(ShapeError):
            ask(world, server, [], [])
        with pytest.raises(ShapeError):
            ask(world, server, [batch], [1, 2])
        reply = ask(world, server, [batch] * 3, [-1, -(1 << 63), (1 << 63) - 1])
        assert reply.error_names == ["NotFoundError"] * 3


def test_sizes_are_added_up_before_a_file_is_read(world, monkeypatch):
    batch = world.owners[0].batches()[0].id
    monkeypatch.setattr(serving_images, "FETCH_BYTES", 1000)
    monkeypatch.setattr(world.deployment.servers[1].store.packs, "image", lambda *args: pytest.fail("a file was read"))
    with pytest.raises(ShapeError, match="at most 1000"):
        ask(world, 1, [batch] * 15, range(15))


def test_the_client_splits_large_fetches(world, monkeypatch):
    """By number before it asks, by size when a cloud refuses; an image larger than a reply comes alone."""
    monkeypatch.setattr(fetching, "FETCH_IMAGES", 12)
    monkeypatch.setattr(serving_images, "FETCH_IMAGES", 12)
    monkeypatch.setattr(serving_images, "FETCH_BYTES", 800)
    anna = world.owners[0]
    big = anna.add_vectors(vectors(1, 9), [("big.png", b"b" * 5000)])
    wanted = all_images(world)[:20] + big + all_images(world)[20:]
    images = world.user.fetch(wanted)
    assert images.pop(20).content == b"b" * 5000
    check_others(world, images, set(), MippError)
    monkeypatch.setattr(serving_images, "IMAGE_BYTES", 4000)
    images = world.user.fetch(wanted)
    assert isinstance(images.pop(20).error, ShapeError)
    check_others(world, images, set(), MippError)
    monkeypatch.setattr(image_file, "IMAGE_BYTES", 5000)
    with pytest.raises(ParameterError, match="at most 904 bytes"):
        anna.add_vectors(vectors(1, 9), [("big.png", b"b" * 1000)])


def test_a_request_that_fails_midway_costs_its_own_images(world, monkeypatch):
    """The grant ends between two requests of one fetch."""
    monkeypatch.setattr(fetching, "FETCH_IMAGES", 15)
    wanted = [
        w
        for owner in sorted(world.owners, key=lambda o: o.id)
        for w in all_images(world)
        if w[0] == owner.batches()[0].id
    ]
    calls = []
    real = world.user.ask_all

    def tell(msg, servers=None):
        if not isinstance(msg, m.FetchImages):
            return real(msg, servers)
        calls.append(len(msg.rows))
        if len(calls) == 2:
            raise AccessDeniedError("no owner grants this user anything")
        return real(msg, servers)

    monkeypatch.setattr(world.user, "ask_all", tell)
    images = world.user.fetch(wanted)
    assert calls == [15, 15]
    assert [i.error is None for i in images] == [True] * 15 + [False] * 15


def test_row_numbers_that_point_nowhere(world):
    """A hostile owner says that its rows' images lie far outside any pack, or are others'."""
    anna, berta = world.owners
    rows = world.deployment.config.encoding.encode_rows(vectors(4, 2))
    theirs, own = berta.batches()[0].id, anna.batches()[0].id
    ids = np.frombuffer(b"n" * 16 + own + theirs + own, np.uint8).reshape(4, 16)
    numbers = np.array([5, (1 << 48) - 1, 3, 15], "<i8")
    new = anna._upload(rows, origin=(ids, numbers))
    images = world.user.fetch(new + all_images(world))
    assert {type(i.error) for i in images[:4]} == {NotFoundError}
    check_others(world, images[4:], set(), MippError)
    for bad in (-1, 1 << 48, (1 << 63) - 1, -(1 << 63)):
        with pytest.raises(ShapeError, match="2\\^48"):
            anna._upload(rows[:1], origin=(ids[:1], np.array([bad], "<i8")))


def test_a_fetch_asks_for_each_image_once(world):
    batch = world.owners[0].batches()[0].id
    first, again = world.user.fetch([(batch, 4), (batch, 4)])
    assert first is again and first.content == bytes([0, 4]) * 50
    key = schedule.random_bytes(32)
    assert box.open_sealed(key, box.seal(box.box_private(key).public_key().public_bytes_raw(), b"", b""), b"") == b""
