"""Three servers and a client with addresses of their own: each in a network namespace, where even loopback is down.

Needs Linux and the right to make namespaces; the test says why it is skipped elsewhere.
"""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

import mipp
from mipp.crypto import signing
from mipp.deployment.ceremony import assemble, connect_folder, init_server, join_server
from mipp.rpc.invitations import Invitation, invite
from tests.conftest import DIM

pytestmark = pytest.mark.slow

NAMES = {1: "cloud1", 2: "cloud2", 3: "keycentre", 4: "client"}
PORT = 7443
KEY = signing.private_key(b"r" * 32)
#: what owners and users do, from the client's namespace
JOB = """
import sys, time
import numpy as np
import mipp

folder, *invitations = sys.argv[1:]
rows = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
with mipp.Deployment.connect(folder) as deployment:
    until = time.monotonic() + 60
    while not all(s["ready"] and s["takes_changes"] for s in deployment.server_states().values()):
        assert time.monotonic() < until, deployment.server_states()
        time.sleep(0.05)
    anna = deployment.create_owner("anna", invitation=invitations[0])
    ulla = deployment.create_user("ulla", invitation=invitations[1])
    anna.add_vectors(rows, images=[(f"{i}.jpg", b"image %d" % i) for i in range(40)])
    anna.grant(ulla.id, rankings=("server", "user", "threshold"))
    best = {r: [h.row for h in ulla.search(rows[7], 3, ranking=r).hits] for r in ("server", "user")}
    assert best["server"] == best["user"] and best["server"][0] == 7, best
    (image,) = ulla.fetch(ulla.search(rows[7], 1).hits)
    assert image.content == b"image 7", image
    assert 7 in [h.row for h in ulla.range_search(rows[7], 0.9)]
print("done")
"""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def spaces():
    """Name of the network namespace of each server and of the client, which holds the bridge between them."""
    if shutil.which("ip") is None:
        # a check of whole systems: what it needs is not on every developer's machine, and CI has it
        pytest.skip("no ip command here (package iproute2)")
    made = {i: f"mipp-{os.getpid()}-{name}" for i, name in NAMES.items()}
    try:
        try:
            for name in made.values():
                ip("netns", "add", name)
            ip("-n", made[4], "link", "add", "bridge", "type", "bridge")
            ip("-n", made[4], "addr", "add", address(4) + "/24", "dev", "bridge")
            ip("-n", made[4], "link", "set", "bridge", "up")
            for i in (1, 2, 3):
                ip("-n", made[i], "link", "add", "eth0", "type", "veth", "peer", "name", f"to{i}", "netns", made[4])
                ip("-n", made[i], "addr", "add", address(i) + "/24", "dev", "eth0")
                ip("-n", made[i], "link", "set", "eth0", "up")
                ip("-n", made[4], "link", "set", f"to{i}", "master", "bridge", "up")
        except OSError as error:
            # the kernel or the sandbox decides; nothing of mipp was run yet
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made
    finally:
        for name in made.values():
            with contextlib.suppress(OSError):
                ip("netns", "del", name)


def address(number):
    return f"10.211.77.{number}"


def ceremony(folder):
    """Three servers with URLs of their own, the client's folder, and invitations for an owner and a user."""
    cards = [
        init_server(folder / NAMES[i], "cloud" if i < 3 else "key-centre", NAMES[i], f"https://{address(i)}:{PORT}")
        for i in (1, 2, 3)
    ]
    registrar = KEY.public_key().public_bytes_raw()
    config = assemble(cards, mipp.Encoding("cosine", DIM), registrar=registrar)
    for i in (1, 2, 3):
        join_server(folder / NAMES[i], config)
    connect_folder(folder / "client", config, config.fingerprint)
    invited = [Invitation(config.id, kind, name, 1 << 40) for kind, name in (("owner", "anna"), ("user", "ulla"))]
    return [invite(one, KEY).to_text() for one in invited]


def test_servers_with_addresses_of_their_own(tmp_path, spaces):
    invitations = ceremony(tmp_path)
    servers = {}
    try:
        for i in (1, 2, 3):
            command = [sys.executable, "-m", "mipp", "server", "run", str(tmp_path / NAMES[i])]
            with open(tmp_path / f"{NAMES[i]}.log", "wb") as log:
                servers[i] = subprocess.Popen(["ip", "netns", "exec", spaces[i], *command], stdout=log, stderr=log)
        job = ["ip", "netns", "exec", spaces[4], sys.executable, "-c", JOB, str(tmp_path / "client"), *invitations]
        done = subprocess.run(job, capture_output=True, text=True, timeout=120)
        logs = "".join((tmp_path / f"{NAMES[i]}.log").read_text() for i in servers)
        assert done.stdout == "done\n", logs + done.stderr
        for server in servers.values():
            server.terminate()
        assert [server.wait(60) for server in servers.values()] == [0, 0, 0]
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
