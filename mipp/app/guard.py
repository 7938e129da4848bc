"""Who may speak to the page's server: the page itself, in the browser that the one-time link opened."""

from __future__ import annotations

import hmac
import secrets
import threading

from flask import Request, Response

__all__ = ["HEADERS", "KEY_HEADER", "Guard"]

#: carries the session's key. Pages of other sites cannot send it, so no request of theirs is ever taken (CSRF)
KEY_HEADER = "X-Mipp-Key"
#: links that were made and not used; a person makes few
_MOST_LINKS = 8

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


class Guard:
    """Links that open the page once, and keys of the sessions that they opened.

    The key lies in the tab's session storage, not in a cookie: browsers send cookies of 127.0.0.1 to servers on every
    port of it, so a server of another account of this machine could collect them.
    """

    def __init__(self) -> None:
        self.port = 0
        self._links: list[bytes] = []
        self._keys: list[bytes] = []
        self._lock = threading.Lock()

    def link(self) -> str:
        """A new link; it opens one session, once. Secret."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._links = [*self._links, token.encode()][-_MOST_LINKS:]
        # behind the #: browsers send that part to no server
        return f"http://127.0.0.1:{self.port}/#open={token}"

    def open(self, token: str) -> str | None:
        """The key of a new session, or None if the token opens none (any more)."""
        given = token.encode("utf-8", "replace")
        with self._lock:
            kept = [one for one in self._links if not hmac.compare_digest(one, given)]
            if len(kept) == len(self._links):
                return None
            self._links = kept
            key = secrets.token_urlsafe(32)
            self._keys.append(key.encode())
            return key

    def refusal(self, request: Request) -> str:
        """Why a request is not from the page on this address; empty if it may be. Asks for no key."""
        names = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        # another name that leads here is a page of a stranger (DNS rebinding)
        if request.headers.get("Host", "") not in names:
            return "this server has no such name"
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in names}:
            return "requests of other pages are refused"
        # the page itself may be opened from anywhere, as from the file that leads to it: it holds nothing
        if request.path != "/" and request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "requests of other pages are refused"
        return ""

    def knows(self, request: Request) -> bool:
        """Whether a request carries the key of a session."""
        given = request.headers.get(KEY_HEADER, "").encode("utf-8", "replace")
        return any(hmac.compare_digest(key, given) for key in list(self._keys))

    @staticmethod
    def sealed(response: Response) -> Response:
        """A reply with the headers of every reply."""
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response
