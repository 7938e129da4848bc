"""Changes made by hand, step by step, as a hostile owner's program would: any id, any content for any server."""

import contextlib
from unittest import mock

import numpy as np

from mipp.errors import MippError
from mipp.rpc import messages as m
from mipp.rpc.chain import NO_SHARE, Content, facts_hash, next_view
from mipp.rpc.wire import encode, pack_frames
from mipp.sharing import share_rows

SERVERS = (1, 2, 3)


@contextlib.contextmanager
def uncertified(deployment):
    """As before servers tested rows: what is uploaded meanwhile is visible without a certificate, whatever it holds."""
    configs = [deployment.config, *(s.config for s in deployment.servers.values())]
    stores = [s.store for s in deployment.servers.values()]
    before = deployment.config.certifies
    for config in configs:
        config.__dict__["certifies"] = False
    for store in stores:
        store.changes.certified_only = False
    try:
        yield
    finally:
        for config in configs:
            config.__dict__["certifies"] = before
        for store in stores:
            store.changes.certified_only = before


def ask_certificate(owner, op, servers=SERVERS):
    """Let the servers test the rows of a prepared change; their replies, or the error."""

    def asked(msg, servers):
        return owner.channel.gather({s: owner.sign(msg, s) for s in servers}, together=True)

    replies = asked(m.CertifyRows(op), servers)
    while waiting := [s for s, r in replies.items() if isinstance(r, m.Pending)]:
        replies |= asked(m.CollectCertificate(op), waiting)
    return replies


class Change:
    """An upload of ``owner`` under the id ``op``; ``parts`` are what each server is given."""

    def __init__(self, owner, op, rows=2, *, images=b"", parts=None, replaces=()):
        encoding, self.owner, self.op = owner.config.encoding, owner, op
        plain = encoding.encode_rows(np.random.default_rng(3).normal(size=(rows, encoding.dim)))
        with mock.patch(
            "mipp.crypto.schedule.batch_nonce", lambda *_: op
        ):  # keystream of that id, so rows are in range
            shares = share_rows(plain, owner.keys, encoding.hash).shares
        offsets = np.zeros(rows + 1, "<i8")
        offsets[1:] = len(images)
        self.rows, self.replaces = rows, list(replaces)
        self.parts = parts or {
            s: m.UploadOp(
                op, rows, encoding.encoded_dim, encoding.hash, self.replaces,
                shares[s] if s in shares else np.empty((0, 0), np.uint32),
                np.frombuffer(images if s in shares else b"", np.uint8),
                offsets if s in shares else np.zeros(rows + 1, "<i8"),
                np.empty((0, 16), np.uint8), np.empty(0, "<i8"),
            )
            for s in SERVERS
        }  # fmt: skip
        self.signed = {s: owner.signed(msg, s) for s, msg in self.parts.items()}

    def prepare(self, servers=SERVERS):
        return {s: self.owner.channel.gather({s: self.signed[s][0]})[s] for s in servers}

    def ask_certificate(self, servers=SERVERS):
        return ask_certificate(self.owner, self.op, servers)

    def commit_message(self, head=None, **changes):
        head = head or self.owner.ask({1: m.HeadRequest(self.owner.id)})[1]
        contents = [self.signed[s][2] for s in SERVERS]
        shares = [self.signed[s][1][1] if self.parts[s].share.size else NO_SHARE for s in SERVERS]
        kind = "merge" if self.replaces else "upload"
        dim = self.owner.config.encoding.encoded_dim
        facts = facts_hash(kind, Content(self.rows, dim, tuple(self.replaces)), SERVERS, contents, shares)
        view = next_view(self.owner.id, head.position + 1, head.view, self.op, facts)
        fields = {
            "op": self.op, "kind": kind, "position": head.position + 1, "parent": head.view, "view": view,
            "servers": list(SERVERS), "contents": contents, "shares": shares,
        }  # fmt: skip
        return m.CommitOp(**(fields | changes))

    def commit(self, at=SERVERS, **changes):
        """Votes of the servers, as packed frames; asks for a certificate first."""
        with contextlib.suppress(MippError):
            self.ask_certificate()
        return [pack_frames(encode(v)) for v in self.owner.ask_all(self.commit_message(**changes), at).values()]

    def certify(self, votes, servers=SERVERS):
        return [o.state for o in self.owner.ask_all(m.Certify(self.owner.id, self.op, votes), servers).values()]

    def make(self):
        self.prepare()
        return self.certify(self.commit())
