"""Who may speak to the page's server: the page itself, in the browser that the one-time link opened."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Request, Response

__all__ = ["HEADERS", "HELLO", "OPEN", "PROOF", "Access", "Guard"]

#: a server proves who it is; a link becomes a session
HELLO, OPEN = "/api/hello", "/api/session"
#: headers of a request: which key, the server's number, SHA-256 of the body, the page's proof. Pages of other sites
#: cannot send them, so no request of theirs is ever taken (CSRF)
_KEY, _NONCE, _BODY, _MAC = "X-Mipp-Key", "X-Mipp-Nonce", "X-Mipp-Body", "X-Mipp-Mac"
#: header of a reply: the server's proof
PROOF = "X-Mipp-Proof"
#: links that were made and not used (a person makes few); requests of a session that were announced and not sent
_MOST_LINKS, _MOST_ANNOUNCED = 8, 64
_NUMBER = re.compile(r"[0-9a-f]{64}")

#: of every reply. Scripts, styles and pictures come from this server alone, and nothing is kept by the browser
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _mac(key: str, *parts: str) -> str:
    """HMAC-SHA256 of lines, as 64 hex digits. No part holds a line feed."""
    return hmac.new(key.encode(), "\n".join(parts).encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


@dataclass(eq=False, repr=False)
class _Announced:
    """A request that the page may send now: its key, and that of the session which a link would become."""

    key: str
    tab: str


@dataclass(eq=False, repr=False)
class _Shared:
    """A secret that the page and the server share: a link's token, or a session's key."""

    secret: str
    link: bool
    announced: dict[str, _Announced] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Access:
    """A request that was proved, once."""

    key: str
    #: of the body, as it was proved
    digest: str
    #: whether the secret is a link's, which opens a session and nothing else
    link: bool

    def proof(self, status: int, body: bytes) -> str:
        """The server's proof of a reply to this request."""
        return _mac(self.key, "reply", str(status), hashlib.sha256(body).hexdigest())


class Guard:
    """Links that open the page once, and keys of the sessions that they opened.

    Headers of requests come as a function of their names; a missing one is empty.

    Neither a link's token nor a session's key is ever sent. Before each request the page has the server prove that it
    knows the key (:meth:`hello`), as another program may listen on the port of one that has ended. The number that the
    server chooses then makes the key of one request, which is taken once, and of its reply.

    A session's key lies in the tab's session storage, not in a cookie: browsers send cookies of an address to servers
    on every port of it, so a server of another account of this machine could collect them.

    The page and its files lie under a path of this run: what a browser keeps of another program's files at the same
    address and port is found under no name of ours.
    """

    def __init__(self) -> None:
        self.host, self.port = "", 0
        #: path of the page; its files are beside it
        self.page = f"/{secrets.token_hex(16)}/"
        #: by the name of the secret
        self._shared: dict[str, _Shared] = {}
        self._lock = threading.Lock()

    def _add(self, secret: str, link: bool) -> None:
        self._shared[_mac(secret, "name")] = _Shared(secret, link)

    def link(self) -> str:
        """A new link; it opens one session, once. Secret."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._add(token, True)
            links = [name for name, shared in self._shared.items() if shared.link]
            for name in links[:-_MOST_LINKS]:
                del self._shared[name]
        # behind the #: browsers send that part to no server
        return f"http://{self.host}:{self.port}{self.page}#open={token}"

    def hello(self, header: Callable[[str], str]) -> dict[str, str] | None:
        """Announce a request: a fresh number, and the proof that this server knows the secret; None if it does not."""
        name, nonce = header(_KEY), header(_NONCE)
        if not _NUMBER.fullmatch(nonce):
            return None
        with self._lock:
            shared = self._shared.get(name)
            if shared is None:
                return None
            number = secrets.token_hex(32)
            key = _mac(shared.secret, "request", nonce, number)
            shared.announced[number] = _Announced(key, _mac(shared.secret, "tab", nonce, number))
            for old in list(shared.announced)[:-_MOST_ANNOUNCED]:
                del shared.announced[old]
        return {"nonce": number, "proof": _mac(key, "server")}

    def _find(self, method: str, target: str, header: Callable[[str], str]) -> tuple[_Shared, _Announced] | None:
        shared = self._shared.get(header(_KEY))
        announced = None if shared is None else shared.announced.get(header(_NONCE))
        if shared is None or announced is None:
            return None
        digest = header(_BODY)
        if not _NUMBER.fullmatch(digest):
            return None
        mac = _mac(announced.key, "page", method, target, digest)
        return (shared, announced) if _same(mac, header(_MAC)) else None

    def admits(self, method: str, target: str, header: Callable[[str], str]) -> bool:
        """Whether the head of a request is proved, so that its body may come."""
        with self._lock:
            return self._find(method, target, header) is not None

    def take(self, method: str, target: str, header: Callable[[str], str]) -> Access | None:
        """Take a request that is proved, once; None for any other. The body is still to be compared."""
        with self._lock:
            found = self._find(method, target, header)
            if found is None:
                return None
            shared, announced = found
            del shared.announced[header(_NONCE)]
            if shared.link:
                del self._shared[header(_KEY)]
                self._add(announced.tab, False)
            return Access(announced.key, header(_BODY), shared.link)

    def refusal(self, request: Request) -> str:
        """Why a request is not from the page on this address; empty if it may be. Asks for no key."""
        name = f"{self.host}:{self.port}"
        # another name that leads here is a page of a stranger (DNS rebinding)
        if request.headers.get("Host", "") != name:
            return "this server has no such name"
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{name}":
            return "requests of other pages are refused"
        # the page itself may be opened from anywhere, as from the file that leads to it: it holds nothing
        if request.path != self.page and request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "requests of other pages are refused"
        return ""

    @staticmethod
    def sealed(response: Response) -> Response:
        """A reply with the headers of every reply."""
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response
