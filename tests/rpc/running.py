"""One HTTP server on a port of its own, in place of a server of a deployment, and what strangers do to it."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
import types

import numpy as np

from mipp.rpc import messages as m
from mipp.rpc import tls
from mipp.rpc.failures import error_to_wire
from mipp.rpc.http_channel import HttpChannel
from mipp.rpc.http_server import Connections, HttpServer
from mipp.rpc.wire import encode
from mipp.server.site import ServerSite
from mipp.server.uploads import Uploads
from tests.certificates import make

SOON = 3.0  # seconds; in these tests limits are a few tenths
LOST = ConnectionError, ssl.SSLEOFError
OK = encode(m.UploadState(b"t" * 16, 7))


class Answering:
    """In place of a server: answers everything, and keeps the last large request."""

    def __init__(self):
        self.requests, self.large, self.reply, self.replies = [], [], OK, None
        self.go_on = threading.Event()
        self.go_on.set()

    def handle(self, frames, *, arrived=None):
        (self.requests if arrived is None else self.large).append([bytes(f) for f in frames])
        self.go_on.wait(10)
        return self.reply

    def announced(self, told):
        return b"p" * 16

    def failure(self, error):
        return m.Failure(*error_to_wire(error))


class Running:
    """One HTTP server, on a port of its own."""

    def __init__(self, folder, **limits):
        pem, key, self.certificate = make(folder, "it")
        self.server = Answering()
        self.site = ServerSite(self.server, Uploads(folder), b"{}", list)
        self.pem = pem, key
        context = tls.server_context(pem, key)
        self.http = HttpServer("127.0.0.1", 0, lambda: context, self.site, limits=Connections(**limits))
        self.http.start()
        address = types.SimpleNamespace(host="127.0.0.1", port=self.http.port, certificate=self.certificate, name="it")
        self.channel = HttpChannel(types.SimpleNamespace(addresses={1: address}))

    def dial(self):
        return tls.connect("127.0.0.1", self.http.port, tls.client_context(), [self.certificate], 5, "it")

    def silent(self):
        return socket.create_connection(("127.0.0.1", self.http.port), 5)

    def asked(self, sock, *parts):
        """Status, body, and whether the connection ends."""
        for part in parts:
            sock.sendall(part)
        return reply_of(sock)

    def ask(self, *parts):
        with self.dial() as sock:
            return self.asked(sock, *parts)

    def gather(self, frames=None):
        return self.channel.gather({1: frames or request(1)})[1]

    def wait(self, ready, seconds=SOON):
        until = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < until
            time.sleep(0.01)


def reply_of(sock):
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.read(), response.will_close


def get(path="/healthz", version="1.1", *fields):
    return "\r\n".join([f"GET {path} HTTP/{version}", "host: it", *fields, "", ""]).encode()


def post(path, length, *fields):
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: it", f"content-length: {length}", *fields, "", ""]).encode()


def request(rows):
    """A signed request with so many words of eight bytes."""
    content = encode(m.FetchOwnImages(b"b" * 16, np.arange(rows)))
    arrays = [np.frombuffer(f, np.uint8) for f in content]
    return encode(m.Signed(b"d" * 16, b"p" * 16, 1, 0, b"r" * 16, b"s" * 64, arrays))


def ended(sock, seconds=SOON):
    """Whether the other end closes in time; what it still sends is dropped."""
    sock.settimeout(seconds)
    with contextlib.suppress(*LOST):
        while sock.recv(1 << 16):
            pass
    return True


def drip(sock, data=b"x" * 10_000):
    """Send a byte at a time until the other end has had enough; seconds that it took."""
    began = time.monotonic()
    with contextlib.suppress(*LOST):
        for i in range(len(data)):
            sock.sendall(data[i : i + 1])
            time.sleep(0.02)
            if time.monotonic() - began > SOON:
                break
    return time.monotonic() - began
