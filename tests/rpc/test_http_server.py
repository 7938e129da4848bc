"""HTTP of servers: strangers who are silent, slow or malformed hold nobody up; limits hold before memory is taken."""

import contextlib
import logging
import os
import signal
import threading
import time
import types

import msgpack
import pytest

from mipp.errors import (
    LimitError,
    MessageError,
    UnreachableError,
)
from mipp.rpc import http_channel, http_server, tls
from mipp.rpc import messages as m
from mipp.rpc.bodies import BLOCK_BYTES, BODY_BYTES, REQUEST_PATH, UPLOAD_PATH, body_parts
from mipp.rpc.wire import decode, encode
from tests.rpc.running import SOON, drip, ended, get, post, reply_of, request

# --- slow and silent ----------------------------------------------------------------------------------------------


def test_silent_connections_hold_nobody_up(it):
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(it.silent())
        for _ in range(20):
            stack.enter_context(it.dial())
        began = time.monotonic()
        assert it.ask(get())[:2] == (200, b"ok\n")
        assert time.monotonic() - began < SOON


def test_a_dripped_handshake_is_cut(start):
    with start(handshake_seconds=0.3).silent() as sock:
        assert drip(sock, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)) < 1.5


def test_a_dripped_head_is_cut(start, monkeypatch):
    it = start(head_seconds=0.3)
    monkeypatch.setattr(http_server, "LINGER", 0.1)
    with it.dial() as sock:
        assert drip(sock) < 1.5
    monkeypatch.setattr(http_server, "LINGER", 5)
    with it.dial() as sock:  # who stops in the middle reads why
        assert it.asked(sock, b"GET /hea")[0] == 408


def test_an_idle_connection_is_closed(start):
    with start(idle_seconds=0.2).dial() as sock:
        assert ended(sock)


@pytest.mark.parametrize("limit", ["body_seconds", "pause_seconds"])
@pytest.mark.parametrize("path", [REQUEST_PATH, UPLOAD_PATH])
def test_a_dripped_body_is_cut(start, monkeypatch, limit, path):
    it = start(**{limit: 0.3})
    monkeypatch.setattr(http_server, "BODY_RATE", 1 << 40)
    with it.dial() as sock:
        sock.sendall(post(path, 10_000) + b"xxx")
        if limit == "pause_seconds":
            assert ended(sock, 1.5)
        else:
            assert drip(sock) < 1.5
    assert it.ask(get())[0] == 200


def test_who_hardly_reads_its_reply_is_cut(start, monkeypatch):
    """The time limit is of the whole reply; each piece of it used to have one of its own."""
    it = start(reply_seconds=0.4)
    monkeypatch.setattr(http_server, "REPLY_RATE", 1 << 40)
    it.server.reply = [*encode(m.Pending(1)), bytes(64 << 20)]
    monkeypatch.setattr("mipp.server.site._frames", lambda frames: http_server.Reply(200, body_parts(frames)))
    body = b"".join(body_parts(request(1)))
    with it.dial() as sock:
        sock.sendall(post(REQUEST_PATH, len(body)) + body)
        sock.settimeout(SOON)
        began = time.monotonic()
        while it.http.connections and time.monotonic() - began < SOON:
            with contextlib.suppress(OSError):
                sock.recv(1 << 14)
            time.sleep(0.05)
        assert time.monotonic() - began < 1.5


# --- malformed ----------------------------------------------------------------------------------------------------


def test_a_head_that_is_too_long(it):
    status, body, last = it.ask(b"GET /" + b"x" * (http_server.HEAD_BYTES + 100))
    assert (status, last) == (400, True) and b"at most 16384 bytes" in body
    assert it.ask(get("/healthz", "1.1", "x: " + "y" * http_server.HEAD_BYTES))[0] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(REQUEST_PATH, 4, "content-length: 5"), 400),
        (post(REQUEST_PATH, "-1"), 400),
        (post(REQUEST_PATH, "9" * 30), 400),
        (post(REQUEST_PATH, "0x10"), 400),
        (b"POST /v1/request HTTP/1.1\r\nhost: it\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (post(REQUEST_PATH, 4, "transfer-encoding: chunked"), 411),
        (post(REQUEST_PATH, 4, "expect: 100-continue"), 411),
        (post(REQUEST_PATH, 4, "upgrade: websocket"), 411),
        (get("/healthz", "1.1", "content-length: 3") + b"abc", 400),
        (b"PUT /v1/request HTTP/1.1\r\nhost: it\r\n\r\n", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\nhost: it\n\nGET /readyz HTTP/1.1\r\n\r\n", 400),
        (post("/v1/upload/00/zz", 3) + b"abc", 404),
        (post("/v1/upload/" + "00" * 16 + "/" + "9" * 16, 3) + b"abc", 404),
    ],
)
def test_heads_that_are_refused(it, data, status):
    got = it.ask(data)
    assert (got[0], got[2]) == (status, True)
    assert not it.server.requests
    assert it.ask(get())[0] == 200


@pytest.mark.parametrize(("data", "status"), [(get("/nowhere"), 404), (post("/v1/nowhere", 2) + b"ab", 404)])
def test_an_unknown_path(it, data, status):
    with it.dial() as sock:
        assert it.asked(sock, data)[0] == status
        assert it.asked(sock, get())[0] == 200  # the connection goes on


def test_two_requests_at_once(it):
    with it.dial() as sock:
        sock.sendall(get() + get("/v1/description"))
        assert reply_of(sock)[1] == b"ok\n" and reply_of(sock)[1] == b"{}"


@pytest.mark.parametrize("data", [get("/healthz", "1.0"), get("/healthz", "1.1", "connection: close")])
def test_who_wants_its_connection_closed(it, data):
    """Old probes wait for the end of the connection."""
    with it.dial() as sock:
        assert it.asked(sock, data) == (200, b"ok\n", True)
        assert ended(sock)


def test_a_body_that_is_no_message(it):
    status, body, _ = it.ask(post(REQUEST_PATH, 6), b"abcdef")
    assert status == 200 and b"MessageError" in body
    reply = decode(it.channel._exchange(1, http_channel._Call(), UPLOAD_PATH, [b"abc"]))
    assert reply.name == "MessageError" and not it.site._uploads._open


def test_an_unexpected_error_is_answered_and_logged(it, monkeypatch, caplog):
    monkeypatch.setattr(it.site, "_posted", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR, "mipp.http"):
        assert it.ask(post(REQUEST_PATH, 3), b"abc")[0] == 500
    assert "unexpected error in a request" in caplog.text
    assert it.ask(get())[0] == 200


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 10 << 30])
def test_a_body_beyond_the_limit_is_refused_before_it_comes(it, size):
    status, body, last = it.ask(post(REQUEST_PATH, size))
    assert (status, last) == (413, True) and b"announced" in body


def test_who_sends_it_all_the_same_reads_the_refusal(it):
    """It used to be lost: the connection was reset while the body came."""
    assert it.ask(post(REQUEST_PATH, 3 << 20), bytes(3 << 20))[0] == 413
    unknown = f"{UPLOAD_PATH}/{bytes(16).hex()}/0"
    assert it.ask(post(unknown, BLOCK_BYTES), bytes(BLOCK_BYTES))[0] == 404
    for _ in range(3):
        with pytest.raises(LimitError, match="at most"):
            it.channel._exchange(1, http_channel._Call(), REQUEST_PATH, [bytes(3 << 20)])
        with pytest.raises(LimitError, match="at most"):
            it.channel._exchange(1, http_channel._Call(), REQUEST_PATH, [bytes(40 << 20)])


def test_an_announcement_of_ten_gigabytes(it):
    told = msgpack.packb([b"head", "UploadOp", [10 << 30], [b"h" * 32]])
    status, body, _ = it.ask(post(UPLOAD_PATH, len(told)), told)
    assert status == 413 and b"LimitError" in body and not it.site._uploads._open


def test_a_reply_that_is_too_large(it, monkeypatch):
    monkeypatch.setattr(http_channel, "MAX_REPLY", 10)
    with pytest.raises(LimitError, match="announced a reply"):
        it.gather()


def test_a_page_that_is_too_large(it):
    it.site._description = bytes(2000)
    assert it.channel.get(1, "/v1/description", 2000) == (200, bytes(2000))
    with pytest.raises(LimitError):
        it.channel.get(1, "/v1/description", 1999)


def test_a_page_that_is_cut(it, monkeypatch):
    """It used to be taken for the whole."""
    for cut, kind in ((b"content-length: 9\r\n\r\n{}", UnreachableError), (b"content-ty", MessageError)):

        def answer(server, connection, reader, cut=cut):
            reader.head()
            reader.sock.sendall(b"HTTP/1.1 200 OK\r\n" + cut)
            return False

        monkeypatch.setattr(http_server.HttpServer, "_request", answer)
        with pytest.raises(kind):
            it.channel.get(1, "/v1/description")


@pytest.mark.parametrize("page", [False, True])
def test_a_server_that_drips_its_reply(it, monkeypatch, page):
    """Each byte comes in time, the head never ends: the client gives up all the same."""
    for name in ("WAIT", "HEAD", "PAGE"):
        monkeypatch.setattr(http_channel, name, 0.5)

    def dripping(server, sock, *args, **options):
        drip(sock, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000)

    monkeypatch.setattr(http_server.HttpServer, "_send", dripping)
    began = time.monotonic()
    with pytest.raises((UnreachableError, MessageError)):
        it.channel.get(1, "/healthz") if page else it.gather()
    assert time.monotonic() - began < 2.5


# --- connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["in_all", "per_address"])
def test_too_many_connections(start, limit):
    it = start(**{limit: 3})
    with contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(it.dial()) for _ in range(3)]
        for sock in (first, *others, first):  # so that the second was idle longest
            assert it.asked(sock, get())[0] == 200
            it.wait(lambda: not any(c.busy for c in it.http._open))
        assert it.ask(get())[0] == 200
        assert ended(others[0])
        assert it.asked(first, get())[0] == 200 and it.asked(others[1], get())[0] == 200


def test_connections_in_their_handshake_give_way_and_end(start):
    """They used to go on, uncounted, until the handshake's time limit."""
    it = start(in_all=3)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(it.silent()) for _ in range(8)]
        assert it.ask(get())[0] == 200
        for sock in silent[:5]:
            assert ended(sock, 1)
        it.wait(lambda: sum(t.name == "mipp http" for t in threading.enumerate()) <= 3)


def test_a_connection_that_is_dropped_before_its_handshake_ends(it):
    """The socket of the connection is exchanged for another one then."""
    real, context = it.http._context, tls.server_context(*it.pem)

    def wrap_socket(sock, **options):
        secured = context.wrap_socket(sock, **options)
        for connection in list(it.http._open):
            connection.drop()
        return secured

    it.http._context = lambda: types.SimpleNamespace(wrap_socket=wrap_socket)
    with it.silent() as sock:
        assert ended(sock, 2)
    it.http._context = real
    assert it.ask(get())[0] == 200


def test_who_is_served_does_not_give_way(start):
    it = start(in_all=2)
    it.server.go_on.clear()
    body = b"".join(body_parts(request(1)))
    with it.dial() as one, it.dial() as two:
        for sock in (one, two):
            sock.sendall(post(REQUEST_PATH, len(body)) + body)
        it.wait(lambda: len(it.server.requests) == 2)
        with pytest.raises(UnreachableError):
            it.channel.get(1, "/healthz")
        it.server.go_on.set()
        assert reply_of(one)[0] == reply_of(two)[0] == 200


@pytest.mark.parametrize("noticed", [True, False])
def test_a_connection_that_the_server_closed_is_replaced(it, monkeypatch, noticed):
    """Also if its end comes while the next request is on its way."""
    assert it.gather().received == 7
    for connection in list(it.http._open):
        connection.drop()
    it.wait(lambda: not it.http.connections)
    if not noticed:
        monkeypatch.setattr(http_channel._Connection, "fresh", True)
    assert it.gather().received == 7 and len(it.server.requests) == 2
    for connection in list(it.http._open):
        connection.drop()
    it.wait(lambda: not it.http.connections)
    it.gather(request(1 << 19))
    assert len(it.server.large) == 1


def test_a_request_that_was_taken_in_is_not_sent_again(it, monkeypatch):
    """On a new connection the server got it: it may have acted on it."""
    monkeypatch.setattr(it.site, "_posted", lambda *_: time.sleep(0.1) or [c.drop() for c in list(it.http._open)])
    with pytest.raises(UnreachableError):
        it.gather()


@pytest.fixture
def interrupts():
    """Ctrl-C is an exception, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("large", [False, True])
def test_an_interrupt_leaves_at_once(it, large, interrupts):
    it.server.go_on.clear()
    if large:
        it.server.large = it.server.requests
    frames = request(1 << 18 if large else 1)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        it.gather(frames)
    assert time.monotonic() - began < 2
    timer.join()
    it.wait(lambda: not any(t.name == "mipp request" for t in threading.enumerate()))
    assert len(it.server.requests) == 1
    it.server.go_on.set()
    assert it.gather().received == 7


def test_a_server_that_stops_waits_for_requests_under_way(it):
    it.server.go_on.clear()
    body = b"".join(body_parts(request(1)))
    with it.dial() as served, it.dial() as coming, it.dial() as idle, it.silent() as silent:
        assert it.asked(idle, get())[0] == 200
        served.sendall(post(REQUEST_PATH, len(body)) + body)
        coming.sendall(post(REQUEST_PATH, len(body)) + body[:10])
        it.wait(lambda: sum(c.asked for c in it.http._open) == 2)
        ends = []
        stop = threading.Thread(target=lambda: ends.append(it.http.stop(5)))
        stop.start()
        assert ended(idle, 1) and ended(silent, 1)
        with pytest.raises(UnreachableError):
            it.channel.get(1, "/healthz")
        coming.sendall(body[10:])
        assert not ends
        it.server.go_on.set()
        assert reply_of(served)[::2] == reply_of(coming)[::2] == (200, True)
        stop.join(SOON)
        assert ends == [True]


def test_a_server_that_stops_does_not_wait_for_ever(it):
    it.server.go_on.clear()
    with it.dial() as sock:
        body = b"".join(body_parts(request(1)))
        sock.sendall(post(REQUEST_PATH, len(body)) + body)
        it.wait(lambda: it.server.requests)
        began = time.monotonic()
        assert not it.http.stop(0.3)
        assert 0.3 <= time.monotonic() - began < 1.5
        assert ended(sock)
