"""Secrets are in no repr, pickle, log or error; what reaches disk and wire holds none in the clear."""

import logging
import pickle

import numpy as np
import pytest

import mipp
from mipp._native import _core
from mipp.deployment.ceremony import CARD_NAME
from mipp.deployment.tls_files import TLS_CERTIFICATE_NAME
from mipp.errors import MippError
from mipp.rpc import messages as m
from mipp.rpc.wire import frames_size
from tests.conftest import DIM, home, vectors


def secrets_of(deployment):
    """Every secret byte string of the deployment's parties."""
    from mipp.crypto.keyfile import load_key_file

    out = []
    for kind, pattern in (("owner", "owners/*.key"), ("user", "users/*.key")):
        for path in deployment.folder.glob(pattern):
            out += load_key_file(path, kind)[1].values()
    for i in deployment.servers:
        out += load_key_file(home(deployment, i) / "server.key", "server")[1].values()
    for owner in deployment.owners():
        out.append(deployment.owner(owner).keys.server_key(3))
    for server in deployment.servers.values():
        out += server.keys.pair_keys(b"").values()
    assert len(out) > 12
    return out


def forms(secret):
    """A secret as bytes and as text could hold it."""
    import base64

    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), repr(secret)[2:-1].encode()]


def test_reprs_and_pickles(world):
    secret = [f for s in secrets_of(world.deployment) for f in forms(s)]
    things = [
        world.deployment,
        *world.deployment.servers.values(),
        *world.owners,
        world.user,
        world.owners[0].keys,
        world.deployment.config,
        world.owners[0].batches(),
        world.user.search(vectors(1)[0], 2),
    ]
    for thing in things:
        text = repr(thing).encode() + str(thing).encode()
        assert not any(f in text for f in secret)
    for thing in (*world.deployment.servers.values(), *world.owners, world.user, world.owners[0].keys):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    schedules = _core.KeySchedules(b"k" * 32, np.zeros((2, 8), np.uint8), 1)
    assert "kkkk" not in repr(schedules)
    with pytest.raises(TypeError):
        pickle.dumps(schedules)


def test_logs_and_errors(world, caplog):
    caplog.set_level(logging.DEBUG)
    secret = [f for s in secrets_of(world.deployment) for f in forms(s)]
    texts = []
    world.check()
    server = world.deployment.servers[1]

    def broken(*args):
        raise RuntimeError("a bug")

    server._handlers[m.SnapshotRequest] = broken
    stranger = world.deployment.create_user("stranger")
    for act in (
        lambda: world.user.index(),
        lambda: stranger.search(vectors(1)[0]),
        lambda: world.owners[0].add_vectors(np.full((1, DIM), np.nan)),
        lambda: world.deployment.create_owner("anna"),
        lambda: world.owners[0].delete([(b"x" * 16, 0)]),
    ):
        with pytest.raises(MippError) as caught:
            act()
        texts.append(str(caught.value))
    assert "internal error of the server" in texts[0]
    seen = (caplog.text + "".join(texts)).encode()
    assert "unexpected RuntimeError" in caplog.text
    assert not any(f in seen for f in secret)


def test_what_servers_store_and_receive(tmp_path):
    """Neither features nor queries nor scores nor another party's keys are in any message or file of a server."""
    captured = {1: [], 2: [], 3: []}
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("ip", DIM), threads=1) as deployment:
        for i, server in deployment.servers.items():

            def handle(frames, real=server.handle, seen=captured[i]):
                reply = real(frames)
                seen.extend(bytes(f) for f in (*frames, *reply))
                return reply

            deployment.channel._handlers[i] = handle
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.grant(user.id)
        x = np.arange(2, 2 + 20 * DIM).reshape(20, DIM) % 120
        owner.add_vectors(x, [("secret name.png", b"secret pixels")] * 20)
        hits = user.search(x[3], 5).hits
        user.fetch(hits)
        rows = owner.config.encoding.encode_rows(x)
        plain = [
            rows.tobytes(),
            rows[7].tobytes(),
            b"secret name",
            b"secret pixels",
            *(h.score.to_bytes(4, "little") for h in hits),
        ]
        secret = secrets_of(deployment)
    stored = {
        i: [p.read_bytes() for p in (tmp_path / f"d/servers/{i}").rglob("*") if p.is_file() and p.name != "server.key"]
        for i in captured
    }
    for i in captured:
        everything = b"\0".join(captured[i] + stored[i])
        assert len(everything) > 5000
        assert not any(p in everything for p in plain)
        assert not any(s in everything for s in secret)


def test_files_are_for_their_owner_only(world):
    public = "deployment.json", CARD_NAME, TLS_CERTIFICATE_NAME
    for path in (p for f in (world.deployment.folder, *map(world.home, (1, 2, 3))) for p in f.rglob("*")):
        allowed = 0o700 if path.is_dir() else 0o600
        if path.name not in public:
            assert path.stat().st_mode & 0o777 & ~allowed == 0 or path.suffix in (".sqlite-wal", ".sqlite-shm"), path


def test_message_sizes_do_not_depend_on_the_query(world):
    sizes = set()
    real = world.user.channel.gather

    class Meter:
        servers = (1, 2, 3)

        def gather(self, requests, *, together=False, spare=False):
            replies = real(requests, together=together)
            sizes.add(tuple(frames_size(f) for f in requests.values()))
            return replies

    world.user.index()
    world.user.channel = Meter()
    for scale in (1e-3, 1, 1e3):
        world.user.search(vectors(1)[0] * scale, 3)
    assert len(sizes) == 1
