"""Image files: unreadable for each server alone, refused when tampered with, keys only to granted users."""

import numpy as np
import pytest

from mipp.crypto import schedule
from mipp.errors import AuthenticationError, IntegrityError, NotFoundError
from mipp.rpc import messages as m
from tests.conftest import vectors


def test_fetch_gives_back_the_owners_files(world):
    hits = [h for h in world.user.search(vectors(1)[0], 60).hits if h.row < 15]
    some = [h for h in hits if h.batch in (world.owners[0].batches()[0].id, world.owners[1].batches()[0].id)]
    files = world.user.fetch(some)
    assert len(files) == 30
    for hit, file in zip(some, files, strict=True):
        number = [o.id for o in world.owners].index(hit.owner)
        assert (file.batch, file.row, file.name) == (hit.batch, hit.row, f"{world.owners[number].name}{hit.row}.png")
        assert file.content == bytes([number, hit.row]) * 50
    assert world.user.fetch([]) == []
    with pytest.raises(NotFoundError, match="no image"):
        world.user.fetch([(world.owners[0].batches()[1].id, 0)], strict=True)


def test_no_server_file_holds_a_clear_image_or_name(world):
    files = [p for server in (1, 2, 3) for p in world.home(server).rglob("*") if p.is_file()]
    assert len([p for p in files if p.parent.parent.name == "images"]) == 4
    for path in files:
        raw = path.read_bytes()
        assert b"anna3.png" not in raw and bytes([0, 3]) * 10 not in raw


def test_the_client_asks_in_row_order(world):
    """The cloud must not see the ranking."""
    seen = []
    server = world.deployment.servers[1]
    real = server._handlers[m.FetchImages]

    def spy(request):
        msg = request.content
        seen.append([(b.tobytes(), int(r)) for b, r in zip(msg.batches, msg.rows, strict=True)])
        return real(request)

    batch = world.owners[0].batches()[0].id
    server._handlers[m.FetchImages] = spy
    world.user.fetch([(batch, 9), (batch, 2), (batch, 5), (batch, 2)])
    assert seen == [[(batch, 2), (batch, 5), (batch, 9)]]


def test_parts_of_one_image_do_not_open_another(world):
    part = b"p" * 32
    assert schedule.image_part(part, b"i" * 24) != schedule.image_part(part, b"j" * 24)
    key = schedule.image_key(b"k" * 32, b"c" * 32, b"i" * 24, b"s" * 16)
    assert key != schedule.image_key(b"c" * 32, b"k" * 32, b"i" * 24, b"s" * 16)


def test_a_tampered_file_is_refused(world):
    """By the user's AEAD even if the cloud's own checksums were made to fit; by the checksum otherwise."""
    batch = world.owners[0].batches()[0].id
    for server in (1, 2):
        path = next((world.home(server) / "images").glob(f"*/{batch.hex()}.*"))
        raw = bytearray(path.read_bytes())
        raw[-60] ^= 1
        path.chmod(0o600)
        path.write_bytes(raw)
    with pytest.raises(IntegrityError, match=batch.hex()):
        world.user.fetch([(batch, 14)], strict=True)
    for server in (1, 2):
        world.deployment.servers[server].store.packs.check = False
    with pytest.raises(AuthenticationError, match="tampered"):
        world.user.fetch([(batch, 14)], strict=True)
    good, bad = world.user.fetch([(batch, 1), (batch, 14)])
    assert good.error is None and good.content == bytes([0, 1]) * 50
    assert isinstance(bad.error, AuthenticationError) and bad.content == b""


def test_a_cloud_that_swaps_files_is_noticed(world):
    for server in (1, 2):
        packs = world.deployment.servers[server].store.packs
        packs.image = lambda owner, batch, row, real=packs.image: real(owner, batch, (row + 1) % 15)
    with pytest.raises(AuthenticationError):
        world.user.fetch([(world.owners[0].batches()[0].id, 3)], strict=True)


def test_encryption_is_fresh(world):
    owner = world.owners[0]
    a, _ = owner._seal_images(b"b" * 16, [("n", b"x" * 100)], 1)
    b, _ = owner._seal_images(b"b" * 16, [("n", b"x" * 100)], 1)
    assert (np.asarray(a) != np.asarray(b)).mean() > 0.5
