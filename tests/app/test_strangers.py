"""What strangers try with the page in a real browser: other sites, other programs of the machine, false replies.

Slow: each test starts a browser. They are left out where no Chromium is installed; CI installs it.
"""

import http.server
import json
import threading
import time

import pytest

from benchmarks.chromium import browser, missing
from mipp.app import AppServer
from tests.app.conftest import go, place, served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

EVIL = """<!doctype html><title>begins</title><iframe id=frame src="TARGETPAGE"></iframe>
<img id=image src="TARGETPAGEicon.svg"><script src="TARGETPAGEdom.js"></script>
<form id=form target=frame2 method=post action="TARGET/api/close" enctype="text/plain">
<input name='{"a":"' value='"}'></form><iframe name=frame2></iframe><script>
const got = [];
const attempt = async (name, what) => {
  try { got.push([name, String(await what())]); } catch (e) { got.push([name, "refused"]); }
};
(async () => {
  await attempt("read", async () => (await fetch("TARGET/api/state")).status);
  const headers = { "X-Mipp-Key": "x" };
  await attempt("key", async () => (await fetch("TARGET/api/state", { headers })).status);
  const blind = { method: "POST", mode: "no-cors", body: "{}" };
  await attempt("blind", async () => (await fetch("TARGET/api/close", blind)).type);
  await attempt("cookie", async () => (await fetch("TARGET/api/state", { credentials: "include" })).status);
  await attempt("module", async () => Object.keys(await import("TARGETPAGEapi.js")));
  document.getElementById("form").submit();
  await new Promise((go) => setTimeout(go, 800));
  await attempt("frame", async () => document.getElementById("frame").contentDocument);
  got.push(["image", String(document.getElementById("image").naturalWidth)]);
  got.push(["cookies", document.cookie]);
  window.got = got; document.title = "done";
})();
</script>"""


def test_a_page_of_another_site_reads_and_does_nothing(embedded, photos):
    """Also one on another port of this machine, which browsers take for the same site."""
    with served(embedded) as page, browser() as screen:
        screen.open(page.link())
        screen.drop(photos["anna"][0])
        evil = EVIL.replace("PAGE", page._guard.page).replace("TARGET", f"http://{place(page)}").encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers.get("Cookie")))
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(evil)

            def log_message(self, *args):
                pass

        asked = []
        with http.server.ThreadingHTTPServer(("", 0), Handler) as site:
            threading.Thread(target=site.serve_forever, daemon=True).start()
            for name in (page.host, "127.0.0.1", "localhost"):
                screen.driver.switch_to.new_window("tab")
                screen.driver.get(f"http://{name}:{site.server_port}/")
                screen.until(lambda: screen.driver.title == "done", "it has tried all")
                got = dict(screen.run("return window.got"))
                assert got.pop("cookies") == "" and got.pop("image") == "0"
                assert got.pop("frame") in ("null", "refused") and got.pop("blind") in ("opaque", "refused")
                assert set(got.values()) == {"refused"}, got
            site.shutdown()
        assert all(cookie is None for _, cookie in asked)
        assert not page.wait(0.5), "nobody closed it"


def test_a_used_link_and_a_closed_page(embedded):
    page = AppServer(embedded)
    page.start()
    link = page.link()
    with browser() as screen:
        screen.open(link)
        with browser() as other:
            other.driver.get(link)
            other.until(lambda: "used already" in (other.said or ""), "a link opens one page")
            assert not other.find("#page-search").is_displayed()
        screen.click("#close")
        screen.driver.switch_to.alert.accept()
        screen.until(lambda: "has ended" in screen.text("body"), "the page says that it is over")
        assert screen.run("return sessionStorage.length") == 0
        assert page.wait(5)
    page.stop()


class Heir:
    """A program of another account on the port of one that has ended; it keeps all that it is sent."""

    def __init__(self, page, answer):
        kept = self.kept = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kept.append(f"{self.command} {self.path} {self.headers}".encode() + body)
                status, content = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_GET

            def log_message(self, *args):
                pass

        self.site = http.server.ThreadingHTTPServer((page.host, page.port), Handler)
        threading.Thread(target=self.site.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.site.shutdown()
        self.site.server_close()


JOB = {
    "id": "1",
    "state": "failed",
    "text": "a passphrase is needed",
    "result": None,
    "done": 0,
    "total": 0,
    "file": None,
}


@pytest.mark.parametrize(
    "answer",
    [
        lambda path: (200, json.dumps({**JOB, "nonce": "0" * 64, "proof": "0" * 64}).encode()),
        lambda path: (200, b"[]"),
        lambda path: (401, b'{"error": "open me again"}'),
    ],
)
def test_who_takes_the_port_of_a_program_that_ended_gets_nothing(embedded, photos, answer):
    if "sara" not in embedded.users():
        embedded.create_user("sara", "correct horse")
    page = AppServer(embedded)
    page.start()
    with browser() as screen:
        screen.open(page.link())
        screen.run(
            "[...document.querySelectorAll('#user-party button')].find((b) => b.innerText.includes('ulla')).click()"
        )
        screen.idle()
        screen.drop(photos["anna"][0])
        key = screen.run("return sessionStorage.getItem('mipp-key')")
        # the person has begun to type when the program ends
        screen.run(
            "[...document.querySelectorAll('#user-party button')].find((b) => b.innerText.includes('sara')).click()"
        )
        screen.type("#user-passphrase", "correct horse")
        page.stop()
        with Heir(page, answer) as heir:
            screen.run("document.querySelector('#user-passphrase').form.requestSubmit()")
            screen.until(lambda: "Another program answers here" in screen.text("body"), "the page stops")
            assert len(heir.kept) == 1 and heir.kept[0].startswith(b"GET /api/hello")
            assert key.encode() not in heir.kept[0] and b"correct" not in heir.kept[0]
            assert screen.run("return sessionStorage.length") == 0
            left = screen.run("return document.documentElement.outerHTML")
            assert "anna" not in left and "<img" not in left and len(left) < 1500
            time.sleep(1)
            assert len(heir.kept) == 1, "for good"


WORKER = """self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(clients.claim()));
self.addEventListener("fetch", (event) => event.respondWith(new Response(
  "<title>stolen</title>", { headers: { "Content-Type": "text/html" } })));"""
PLANTS = {
    "worker": "<script>navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)"
    ".then(() => { document.title = 'planted'; })</script>",
    "cache": "<script src=/static/main.js></script><script src=/main.js></script><iframe src=/kept></iframe>"
    "<script>onload = () => { document.title = 'planted'; }</script>",
}


@pytest.mark.parametrize(("way", "address"), [("worker", ""), ("cache", ""), ("cache", "127.0.0.1")])
def test_what_another_program_left_in_the_browser_for_the_port_does_not_run(embedded, way, address, monkeypatch):
    """A service worker, or files that stay in the cache, of whoever served the port before.

    Where a system has 127.0.0.1 alone, the names of a run's files still keep cached ones away.
    """
    if address:
        monkeypatch.setattr("mipp.app.serving.fresh_address", lambda: address)

    class Planter(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = "text/javascript", b"document.title = 'stolen'"
            if self.path == "/":
                kind, body = "text/html", PLANTS[way].encode()
            elif self.path == "/sw.js":
                body = WORKER.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store" if self.path == "/" else "max-age=31536000, immutable")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with browser() as screen:
        with http.server.ThreadingHTTPServer(("", 0), Planter) as site:
            threading.Thread(target=site.serve_forever, daemon=True).start()
            screen.driver.get(f"http://127.0.0.1:{site.server_port}/")
            # scripts of the planter rename its page, too
            screen.until(lambda: screen.driver.title == "planted", "it is planted")
            screen.driver.get("about:blank")
            site.shutdown()
        with served(embedded, port=site.server_port) as page:
            screen.open(page.link())
            assert screen.driver.title == "mipp"
            assert screen.run("return navigator.serviceWorker.getRegistrations().then((all) => all.length)") == 0
            assert screen.run("return isSecureContext && crypto.subtle !== undefined")


def test_false_replies_stop_the_page(embedded, photos, monkeypatch):
    """Whoever comes between the proof and the reply, or changes a reply."""
    with served(embedded) as page, browser() as screen:
        screen.open(page.link())
        monkeypatch.setattr("mipp.app.guard.Access.proof", lambda self, status, body: "0" * 64)
        go(screen, "servers")
        screen.click("#ask-servers")
        screen.until(lambda: "This page stops" in screen.text("body"), "the page stops")


def test_a_page_without_its_program_stops(embedded, photos):
    page = AppServer(embedded)
    page.start()
    with browser() as screen:
        screen.open(page.link())
        page.stop()
        go(screen, "servers")
        screen.click("#ask-servers")
        screen.until(lambda: "has ended, or does not answer" in screen.text("body"), "the page stops")
