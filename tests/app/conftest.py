"""Pages over small deployments of images made by formula, one with all servers in a folder, one over three servers."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.app import AppServer
from mipp.features.encoding import descriptor_encoding
from tests.app.talk import Talk, plain
from tests.network import Network

#: what owners wrote to harm whoever looks at it
HOSTILE = {
    "markup": '<img src=x onerror="document.title=1"><script>document.title=1</script><b>bold</b>',
    "turned": "\u202egpj.live\u202c \u2066abc\x1b[31m\x00",
    "long": "lorem ipsum " * 600,
    "arabic": "صورة قديمة " * 5,
}


def picture(path, seed):
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 255, 96)[None, :, None] * rng.uniform(0.2, 1, 3)
    Image.fromarray(np.clip(base + rng.normal(0, 20, (72, 96, 3)), 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folders of pictures: twelve of anna, eight of berta, three that are new."""
    folder = tmp_path_factory.mktemp("photos")
    made, number = {}, 0
    for name, count in (("anna", 12), ("berta", 8), ("new", 3)):
        (folder / name).mkdir()
        made[name] = [picture(folder / name / f"{name}{n:02d}.png", number + n) for n in range(count)]
        number += count
    return made


def filled(deployment, photos, rankings=("server", "threshold")):
    """Two owners with their pictures, and a user who may search them."""
    user = deployment.create_user("ulla")
    for name in ("anna", "berta"):
        owner = deployment.create_owner(name)
        told = dict(zip(photos[name], ({"caption": text} for text in HOSTILE.values()), strict=False))
        owner.add_images(photos[name], metadata=told if name == "anna" else None, workers=1)
        owner.grant(user.id, rankings=rankings)
    return deployment


def encoding():
    return descriptor_encoding("cld", server_ranking=True)


@contextlib.contextmanager
def served(deployment, **options):
    page = AppServer(deployment, **options)
    page.start()
    try:
        yield page
    finally:
        page.stop()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("embedded")
    with mipp.Deployment.create(folder / "d", encoding(), descriptor="cld", preview_size=12288) as deployment:
        filled(deployment, photos)
        yield deployment


@pytest.fixture
def page(embedded):
    with served(embedded) as page:
        yield page


@pytest.fixture
def three_servers(tmp_path, photos):
    """A client of three servers, and these."""
    network = Network(tmp_path / "net", encoding(), descriptor="cld", preview_size=12288).start().ready()
    try:
        with network.connect() as client:
            yield filled(client, photos), network
    finally:
        network.stop()


def place(page):
    """Address and port of a page."""
    return f"{page.host}:{page.port}"


def go(screen, page):
    """Open one of the page's parts in a browser."""
    screen.click(f"[data-page={page}]")


class Caller:
    """Sends requests as the page does, or as others would."""

    def __init__(self, page, tab=None):
        self.page, self.tab = page, tab

    @classmethod
    def opened(cls, page):
        return cls(page, Talk.opened(page.link()))

    def send(self, method, path, body=None, headers=None):
        """Status, headers and body of the reply."""
        if self.tab is None:
            return plain(place(self.page), method, path, body, headers)
        return self.tab.send(method, path, body, headers)

    def get(self, path):
        status, _, body = self.send("GET", path)
        return status, json.loads(body)

    def post(self, path, told=None, headers=None):
        body = told if isinstance(told, bytes) else json.dumps(told or {}).encode()
        kind = "application/octet-stream" if isinstance(told, bytes) else "application/json"
        status, _, reply = self.send("POST", path, body, {"Content-Type": kind, **(headers or {})})
        return status, json.loads(reply)

    def work(self, path, told=None, seconds=30):
        """Begin a piece of work and follow it to its end; its last state."""
        import time

        status, job = self.post(path, told)
        assert status == 202, job
        until = time.monotonic() + seconds
        while job["state"] in ("waiting", "running"):
            assert time.monotonic() < until
            time.sleep(0.01)
            job = self.get(f"/api/jobs/{job['id']}")[1]
        return job

    def done(self, path, told=None):
        job = self.work(path, told)
        assert job["state"] == "done", job
        return job["result"]

    def opened_party(self, kind, name):
        assert self.work("/api/open", {"kind": kind, "name": name})["state"] == "done"
        return self


@pytest.fixture
def caller(page):
    return Caller.opened(page).opened_party("user", "ulla").opened_party("owner", "anna")


def raw(page, data):
    """What the server answers to bytes as they are."""
    with socket.create_connection((page.host, page.port), timeout=10) as sock:
        sock.sendall(data)
        got = b""
        while chunk := sock.recv(65536):
            got += chunk
            if b"\r\n\r\n" in got:
                break
        return got
