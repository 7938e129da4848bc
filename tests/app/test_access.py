"""Who may ask the page's server, where it listens, and what strangers cost; without a browser."""

import contextlib
import errno
import http.client
import ipaddress
import re
import socket
import time

import pytest

from mipp.app import AppServer, guard, listening
from mipp.errors import ParameterError
from tests.app.conftest import Caller, place, raw, served
from tests.app.talk import Talk, plain

PATHS = ["/api/state", "/api/searches/1", "/api/searches/1/query", "/api/searches/1/files/0", "/api/jobs/x"]


# --- who may ask ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_a_proof(page, path):
    proved = Caller.opened(page).tab.proved("GET", path, b"")
    wrong = {**proved, "X-Mipp-Mac": "0" * 64}, {**proved, "X-Mipp-Nonce": "0" * 64}, {**proved, "X-Mipp-Key": "é"}
    for headers in ({}, {"X-Mipp-Key": "x" * 5000}, {"X-Mipp-Mac": ""}, *wrong):
        status, replied, body = plain(place(page), "GET", path, None, headers)
        assert status == 401 and b"another link" in body
        assert replied["Cache-Control"] == "no-store" and "X-Mipp-Proof" not in replied


def test_a_link_opens_one_session_once(page):
    link = page.link()
    first = Talk.opened(link)
    again = Talk(place(page), link.partition("#open=")[2])
    status, told = again.hello()
    assert status == 401 and "used already" in told["error"]
    for wrong in ("", "x", again.secret[:-1]):
        assert Talk(place(page), wrong).hello()[0] == 401
    assert first.send("GET", "/api/state")[0] == 200


def test_two_tabs_of_one_link_cannot_both_open_it(page):
    link = page.link()
    one, other = (Talk(place(page), link.partition("#open=")[2]) for _ in range(2))
    asked = [tab.proved("POST", "/api/session", b"") for tab in (one, other)]
    assert [plain(place(page), "POST", "/api/session", b"", headers)[0] for headers in asked] == [200, 401]


def test_a_link_gives_nothing_but_a_session_and_a_session_opens_no_other(page):
    link = Talk(place(page), page.link().partition("#open=")[2])
    assert link.send("GET", "/api/state")[0] == 401
    assert Caller.opened(page).send("POST", "/api/session", b"")[0] == 401


def test_only_the_newest_links_are_remembered(page):
    first = page.link().partition("#open=")[2]
    for _ in range(8):
        page.link()
    assert Talk(place(page), first).hello()[0] == 401


def test_a_request_is_taken_once_and_as_it_was_proved(page):
    tab = Caller.opened(page).tab
    target, body = "/api/folders?a=1", b'{"path": "/"}'
    headers = tab.proved("POST", target, body)
    for method, path, sent in (
        ("POST", "/api/folders?a=2", body), ("POST", "/api/close?a=1", body), ("POST", "/api/%66olders?a=1", body),
        ("GET", target, None), ("DELETE", target, body),
    ):  # fmt: skip
        assert plain(place(page), method, path, sent, headers)[0] == 401, (method, path)
    kind = {"Content-Type": "application/json"}
    assert plain(place(page), "POST", target, body, headers | kind)[0] == 200
    assert plain(place(page), "POST", target, body, headers | kind)[0] == 401, "once"
    headers = tab.proved("POST", target, body)
    assert plain(place(page), "POST", target, b'{"path": "/x"}', headers | kind)[0] == 401, "another body"
    assert not page.wait(0)


def test_requests_that_were_announced_and_not_sent_are_bounded(page):
    tab = Caller.opened(page).tab
    first = tab.proved("GET", "/api/state", b"")
    for _ in range(64):
        tab.hello()
    assert plain(place(page), "GET", "/api/state", None, first)[0] == 401
    assert all(len(shared.announced) <= 64 for shared in page._guard._shared.values())
    for nonce in ("", "0" * 63, "Ä" * 64, "0" * 65):
        headers = {"X-Mipp-Key": first["X-Mipp-Key"], "X-Mipp-Nonce": nonce.encode("utf-8").decode("latin-1")}
        assert plain(place(page), "GET", "/api/hello", None, headers)[0] == 401


def test_errors_are_proved_too(page):
    caller = Caller.opened(page)
    for path, status in (("/api/searches/7", 404), ("/nowhere", 404), ("/api/searches/7/pictures?start=x", 400)):
        got, replied, _ = caller.send("GET", path)
        assert got == status and replied["X-Mipp-Proof"]


# --- what strangers cost --------------------------------------------------------------------------------------------


def head(page, path, length, *lines):
    more = "".join(f"{line}\r\n" for line in (f"Content-Length: {length}", *lines))
    return f"POST {path} HTTP/1.1\r\nHost: {place(page)}\r\n{more}\r\n".encode()


@pytest.mark.parametrize("path", ["/api/session", "/api/user/ulla/search", "/api/hello", "/", "/nowhere"])
def test_a_body_is_not_read_before_its_sender_is_known(page, path):
    """The reply comes while no byte of the body was sent."""
    for length in (1, 1 << 20, 60 << 20):
        assert raw(page, head(page, path, length)).startswith((b"HTTP/1.1 401", b"HTTP/1.1 413"))
    chunked = f"POST {path} HTTP/1.1\r\nHost: {place(page)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(page, chunked.encode()).startswith(b"HTTP/1.1 411")
    assert raw(page, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000).startswith(b"HTTP/1.0 431")


def test_bodies_are_as_long_as_their_path_needs(page):
    caller = Caller.opened(page)
    tab = caller.tab
    for path, most in (("/api/user/ulla/search", listening.LARGEST_BODY), ("/api/folders", listening.LARGEST_FIELDS)):
        lines = [f"{name}: {value}" for name, value in tab.proved("POST", path, b"").items()]
        assert raw(page, head(page, path, most + 1, *lines)).startswith(b"HTTP/1.1 413")
    script = caller.send("GET", f"{page._guard.page}api.js")[2].decode()
    known = re.search(r"LARGEST_BODY = (.*), LARGEST_FIELDS = (.*); //", script).groups()
    assert tuple(eval(text) for text in known) == (listening.LARGEST_BODY, listening.LARGEST_FIELDS)


def test_silent_and_dripping_connections_give_way(page):
    """More than are taken: the page is answered at once, and its own connection stays."""
    own = http.client.HTTPConnection(page.host, page.port, timeout=5)
    tab = Caller.opened(page).tab
    sock = None
    strangers = []
    try:
        for n in range(300):
            if n % 100 == 0:
                own.request("GET", "/api/state", headers=tab.proved("GET", "/api/state", b""))
                reply = own.getresponse()
                assert (reply.status, bool(reply.read())) == (200, True)
                assert sock in (None, own.sock), "the connection of a page is not closed for a stranger's"
                sock = own.sock
            stranger = socket.create_connection((page.host, page.port), timeout=5)
            stranger.sendall((b"", b"POST /api/session HTTP/1.1\r\nX: ", b"GET /")[n % 3])
            strangers.append(stranger)
        began = time.monotonic()
        assert Caller(page).send("GET", page._guard.page)[0] == 200 and tab.send("GET", "/api/state")[0] == 200
        assert time.monotonic() - began < 3
        assert len(page._server.active_channels) <= 130
    finally:
        for one in (own, *strangers):
            one.close()


def test_a_connection_that_proves_nothing_is_closed_in_time(page, monkeypatch):
    monkeypatch.setattr(listening, "_UNPROVED_SECONDS", 0.2)
    with socket.create_connection((page.host, page.port), timeout=10) as stranger:
        until = time.monotonic() + 9
        with contextlib.suppress(OSError):
            while time.monotonic() < until:  # a byte now and then keeps it from being idle
                stranger.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() < until


def test_pages_of_other_sites_are_refused(page):
    caller = Caller.opened(page)
    assert caller.get("/api/state")[0] == 200
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{page.port}"},
        {"Host": f"{page.host}.evil.example:{page.port}"},
        {"Host": f"localhost:{page.port}"},
        {"Host": f"127.0.0.1:{page.port}"},
        {"Origin": f"http://127.0.0.1:{page.port}"},
        {"Origin": f"http://localhost:{page.port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{page.host}:{page.port + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        status, _, _ = caller.send("POST", "/api/close", b"{}", {"Content-Type": "application/json", **headers})
        assert status == 403, headers
    assert caller.get("/api/state")[0] == 200


def test_a_server_on_another_port_gets_no_cookie(page):
    """Browsers send cookies of an address to all its ports, so there are none."""
    caller = Caller.opened(page)
    for path in (page._guard.page, f"{page._guard.page}main.js", "/api/state"):
        _, headers, _ = caller.send("GET", path)
        assert headers["Set-Cookie"] is None


def test_every_reply_has_the_headers(page):
    caller, at = Caller.opened(page), page._guard.page
    for path in (at, f"{at}main.js", "/api/state", "/", "/nowhere", f"{at}../site.py", f"{at}nowhere"):
        _, headers, body = caller.send("GET", path)
        for name, value in guard.HEADERS.items():
            assert headers[name] == value
        assert b"Traceback" not in body and b"def " not in body
    assert "unsafe" not in guard.HEADERS["Content-Security-Policy"]


def test_files_beside_the_page_are_not_served(page):
    for name in ("../site.py", "..%2fsite.py", "%2e%2e/site.py", "/etc/passwd"):
        path = page._guard.page + name
        assert raw(page, f"GET {path} HTTP/1.1\r\nHost: {place(page)}\r\n\r\n".encode()).startswith(
            (b"HTTP/1.1 404", b"HTTP/1.1 308", b"HTTP/1.1 401")
        )


def test_the_page_listens_on_loopback_alone(page):
    assert page._server.socket.getsockname() == (page.host, page.port)
    assert ipaddress.ip_address(page.host).is_loopback


def test_each_run_has_an_origin_and_paths_of_its_own(page, embedded):
    """Else what another program left in the browser for the same origin or file would run in the page."""
    with served(embedded, port=page.port) as other:
        if page.host == "127.0.0.1":  # macOS binds no other one, so there is nothing to tell apart
            pytest.skip("this system has one loopback address")
        assert page.port == other.port and page.host != other.host
        assert not any(one.host.startswith("127.0.") for one in (page, other))
        paths = [one.link().partition("#")[0].partition(str(one.port))[2] for one in (page, other)]
        assert paths[0] != paths[1] and all(re.fullmatch(r"/[0-9a-f]{32}/", path) for path in paths)
        for path in ("/", "/index.html", "/main.js", "/static/main.js", paths[1] + "main.js"):
            assert Caller(page).send("GET", path)[0] == 401, path
        text = Caller(page).send("GET", paths[0])[2].decode()
        for name in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert "/" not in name and Caller(page).send("GET", paths[0] + name)[0] == 200


def test_a_system_without_further_loopback_addresses_has_one(embedded, monkeypatch):
    def refuse(code):
        class Refusing(socket.socket):
            def bind(self, address):
                if address[0] != "127.0.0.1":
                    raise OSError(code, "refused")
                super().bind(address)

        monkeypatch.setattr(listening.socket, "socket", Refusing)

    refuse(errno.EADDRNOTAVAIL)
    with served(embedded) as page:
        assert page.host == "127.0.0.1" and Caller.opened(page).get("/api/state")[0] == 200
    refuse(errno.EACCES)
    with pytest.raises(ParameterError, match="cannot be used"):
        AppServer(embedded)


def test_addresses_are_drawn_from_all_but_those_that_others_use(monkeypatch):
    ends = {0: "127.1.0.0", (1 << 24) - (1 << 16) - 2: "127.255.255.254"}
    for drawn, host in ends.items():
        monkeypatch.setattr(listening.secrets, "randbelow", lambda most, drawn=drawn: drawn)
        assert listening.fresh_address() in (host, "127.0.0.1")


def test_a_request_that_is_too_large_is_refused(page):
    assert b" 413 " in raw(page, head(page, "/api/session", 99999999999)).split(b"\r\n")[0]


def test_broken_requests_end_in_a_sentence(page):
    assert raw(page, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n").startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
