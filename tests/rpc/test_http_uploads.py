"""Announced requests: their data come in blocks, and go on where they broke."""

import msgpack
import pytest

from mipp.errors import (
    ConflictError,
    NotFoundError,
    ParameterError,
)
from mipp.rpc import http_channel, http_server
from mipp.rpc.bodies import BODY_BYTES, FINISH_PATH, UPLOAD_PATH, body_parts
from mipp.rpc.wire import decode
from mipp.server.uploads import Uploads
from tests.rpc.running import request

# --- announced requests -------------------------------------------------------------------------------------------


def test_an_announced_request_arrives_whole(it):
    frames = request((9 << 20) // 8 + 5)
    assert it.gather(frames).received == 7
    assert it.server.large == [[bytes(f) for f in frames]] and not it.server.requests
    assert not it.site._uploads._open


@pytest.mark.parametrize("where", ["half a block", "block without reply", "forgotten"])
def test_an_upload_goes_on_where_it_broke(it, monkeypatch, where):
    monkeypatch.setattr(http_channel, "RESUME", (0.05, 0.05))
    frames, blocks = request((14 << 20) // 8), []
    real_block, real_body, real_written = Uploads.block, http_server._Reader.body, Uploads.written

    def block(uploads, token, at, size):
        blocks.append(size)
        if len(blocks) == 2 and where == "forgotten":  # as after a restart
            uploads.__init__(uploads._folder)
        return real_block(uploads, token, at, size)

    def body(reader, into):
        if into.nbytes > BODY_BYTES and len(blocks) == 2 and where == "half a block":
            real_body(reader, into[: into.nbytes // 2])
            raise ConnectionError
        real_body(reader, into)

    def written(uploads, token, size):
        at = real_written(uploads, token, size)
        if len(blocks) == 2 and where == "block without reply":
            for connection in list(it.http._open):
                connection.drop()
        return at

    monkeypatch.setattr(Uploads, "block", block)
    monkeypatch.setattr(http_server._Reader, "body", body)
    monkeypatch.setattr(Uploads, "written", written)
    assert it.gather(frames).received == 7
    assert it.server.large == [[bytes(f) for f in frames]]
    assert len(blocks) == {"half a block": 5, "block without reply": 5, "forgotten": 6}[where]


def test_an_upload_that_never_gets_on_ends(it, monkeypatch):
    monkeypatch.setattr(http_channel, "RESUME", (0.05, 0.05))
    tries = []
    monkeypatch.setattr(it.site._uploads, "block", lambda *a: tries.append(a) or (_ for _ in ()).throw(NotFoundError))
    with pytest.raises(NotFoundError):
        it.gather(request(1 << 20))
    assert len(tries) == 3


def announced(it, size):
    told = msgpack.packb([b"head", "UploadOp", [size], [b"h" * 32]])
    state = decode(it.channel._exchange(1, http_channel._Call(), UPLOAD_PATH, [told]))
    return state.token.hex()


def test_a_finish_without_all_data_and_a_second_one(it):
    parts = [bytes(p) for p in body_parts([b"a" * 1000])]
    body = b"".join(parts)
    token, call = announced(it, 1000), http_channel._Call()

    def posted(path, data=b""):
        return decode(it.channel._exchange(1, call, path, [data]))

    assert posted(f"{FINISH_PATH}/{token}").name == ParameterError.__name__
    assert posted(f"{UPLOAD_PATH}/{token}/0", body[:600]).received == 600
    for at in (0, 599, 601, len(body)):
        with pytest.raises(ConflictError, match="the next byte of this request is 600"):
            posted(f"{UPLOAD_PATH}/{token}/{at}", body[600:])
    with pytest.raises(ConflictError):
        posted(f"{UPLOAD_PATH}/{token}/600", body[600:] + b"x")
    assert posted(f"{FINISH_PATH}/{token}").name == ParameterError.__name__
    assert posted(f"{UPLOAD_PATH}/{token}/600", body[600:]).received == len(body)
    assert posted(f"{FINISH_PATH}/{token}").received == 7
    assert it.server.large == [[b"head", b"a" * 1000]]
    assert posted(f"{FINISH_PATH}/{token}").name == NotFoundError.__name__
    assert len(it.server.large) == 1


@pytest.mark.parametrize("token", ["00" * 16, "00", "zz" * 16, ""])
def test_a_token_of_nobody(it, token):
    call = http_channel._Call()
    with pytest.raises(NotFoundError):
        it.channel._exchange(1, call, f"{UPLOAD_PATH}/{token}/0", [b"abc"])
    failure = decode(it.channel._exchange(1, call, f"{FINISH_PATH}/{token}", []))
    assert failure.name in (NotFoundError.__name__, ParameterError.__name__)


# --- ends ---------------------------------------------------------------------------------------------------------
