"""What the page's modules do to be heard, once more in Python: keys are never sent, requests and replies are proved."""

import hashlib
import hmac
import json
import re
import secrets
import urllib.error
import urllib.request


def mac(key, *parts):
    return hmac.new(key.encode(), "\n".join(parts).encode(), hashlib.sha256).hexdigest()


#: a proxy of the machine may be told to leave 127.0.0.1 alone, and no other address
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def plain(place, method, path, body=None, headers=None):
    """Status, headers and body of the reply to a request as it is."""
    request = urllib.request.Request(f"http://{place}{path}", body, headers or {}, method=method)
    try:
        with _DIRECT.open(request, timeout=30) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class Talk:
    """A tab: address and port of a page, its path, and the secret of a link or of the session that it opened."""

    def __init__(self, place, secret, page="/"):
        self.place, self.secret, self.page = place, secret, page

    @classmethod
    def opened(cls, link):
        place, page, token = re.search(r"http://([^/]+)(/[^#]*)#open=(\S+)", link).groups()
        tab = cls(place, token, page)
        headers = tab.proved("POST", "/api/session", b"")
        status, replied, body = plain(tab.place, "POST", "/api/session", b"", headers)
        assert status == 200, body
        tab.check(headers, replied, status, body)
        tab.secret = mac(tab.secret, "tab", tab.nonce, headers["X-Mipp-Nonce"])
        return tab

    def hello(self):
        """Status and what the server says to a fresh nonce."""
        self.nonce = secrets.token_hex(32)
        headers = {"X-Mipp-Key": mac(self.secret, "name"), "X-Mipp-Nonce": self.nonce}
        status, _, body = plain(self.place, "GET", "/api/hello", None, headers)
        return status, json.loads(body)

    def proved(self, method, path, body):
        """Headers of a request, after the server has proved that it knows the key."""
        status, told = self.hello()
        assert status == 200, told
        self.once = mac(self.secret, "request", self.nonce, told["nonce"])
        assert told["proof"] == mac(self.once, "server")
        digest = hashlib.sha256(body).hexdigest()
        return {
            "X-Mipp-Key": mac(self.secret, "name"), "X-Mipp-Nonce": told["nonce"], "X-Mipp-Body": digest,
            "X-Mipp-Mac": mac(self.once, "page", method, path, digest),
        }  # fmt: skip

    def check(self, headers, replied, status, body):
        expected = mac(self.once, "reply", str(status), hashlib.sha256(body).hexdigest())
        assert replied["X-Mipp-Proof"] == expected, "the reply is proved"

    def send(self, method, path, body=None, headers=None):
        """Status, headers and body of the reply to a proved request."""
        given = self.proved(method, path, body or b"")
        status, replied, content = plain(self.place, method, path, body, {**given, **(headers or {})})
        if "X-Mipp-Proof" in replied:
            self.check(given, replied, status, content)
        else:
            assert status in (401, 403, 411, 413) or path.startswith(("/api/hello", self.page))
        return status, replied, content
