"""Frames, their parser, and the links: queues in one process, sealed TCP between three processes."""

import multiprocessing
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import MessageError, MippError, ProtocolError
from mipp.mpc import ideal, link
from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.link import HEADER_BYTES, KINDS, Frame, Header, TcpLink, local_links, parse_header
from mipp.mpc.session import Party
from mipp.mpc.topk import combine_top_k, top_k
from tests.mpc.parties import KEYS, public, share

GOOD = Header("and", 1, 2, 7, b"s" * 16, 1000)


def frame(*parts, **changes):
    values = {"kind": "and", "sender": 1, "receiver": 2, "step": 0, "session": b"s" * 16, **changes}
    return Frame(Header(**values, length=sum(map(len, parts))).pack(), [memoryview(p) for p in parts])


def test_header_round_trip():
    assert HEADER_BYTES == 36 == len(GOOD.pack())
    assert parse_header(GOOD.pack()) == parse_header(memoryview(GOOD.pack())) == GOOD


@pytest.mark.parametrize(
    "at, value", [(0, 0), (4, 2), (5, 0), (5, len(KINDS)), (6, 0), (6, 4), (6, 2), (7, 9), (35, 1)]
)
def test_malformed_headers(at, value):
    data = bytearray(GOOD.pack())
    data[at] = value
    with pytest.raises(MessageError):
        parse_header(bytes(data))


@given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, 35), st.integers(0, 255))))
@settings(max_examples=500, deadline=None)
def test_parser_takes_anything(data):
    """Random bytes, and good headers with one byte changed: a header that packs to the same, or the error."""
    if isinstance(data, tuple):
        changed = bytearray(GOOD.pack())
        changed[data[0]] = data[1]
        data = bytes(changed)
    try:
        header = parse_header(data)
    except MessageError:
        return
    assert header.pack() == data


def test_local_links_hand_over_without_a_copy():
    links, words = local_links(), np.arange(4, dtype=np.uint64)
    links[1].send(2, frame(words.data.cast("B")))
    got = links[2].receive(1, 32, 1)
    assert np.shares_memory(np.frombuffer(got.parts[0], np.uint64), words)
    links[1].send(2, frame(bytes(33)))
    with pytest.raises(MessageError):
        links[2].receive(1, 32, 1)
    begin = time.monotonic()
    with pytest.raises(ProtocolError):
        links[2].receive(1, 32, 0.05)
    assert time.monotonic() - begin < 1
    assert "payload" in repr(got)
    links[1].close()


# --- TCP ------------------------------------------------------------------------------------------------------------


def listeners():
    made = {i: socket.create_server(("127.0.0.1", 0)) for i in (1, 2, 3)}
    return made, {i: s.getsockname() for i, s in made.items()}


def connected(keys=KEYS, timeout=5.0):
    """Three TCP links in this process, or the errors that came instead."""
    sockets, addresses = listeners()
    made = {}

    def work(i):
        try:
            made[i] = TcpLink.connect(i, sockets[i], addresses, keys[i], timeout)
        except MippError as error:
            made[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in (1, 2, 3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for s in sockets.values():
        s.close()
    return made


def test_tcp_frames_arrive_sealed_and_in_order(monkeypatch):
    monkeypatch.setattr(link, "_CHUNK", 64)
    made = connected()
    big = bytes(range(256)) * 5
    for payload in ((), (b"x",), (big,), (big[:7], big[7:])):
        made[1].send(3, frame(*payload, receiver=3))
        got = made[3].receive(1, 5000, 2)
        assert b"".join(got.parts) == b"".join(payload) and parse_header(got.head).length == len(b"".join(payload))
    made[1].send(2, frame(b"12345"))
    with pytest.raises(MessageError):
        made[2].receive(1, 4, 2)
    with pytest.raises(ProtocolError, match="silent"):
        made[3].receive(2, 4, 0.05)
    made[2].close()
    with pytest.raises(ProtocolError, match="closed"):
        made[3].receive(2, 4, 2)
    for i in (1, 3):
        made[i].close()


def test_tcp_with_another_key_is_refused():
    keys = {i: dict(k) for i, k in KEYS.items()}
    keys[1][2] = b"z" * 32
    made = connected(keys)
    made[1].send(2, frame(b"hello"))
    with pytest.raises(MessageError, match="changed"):
        made[2].receive(1, 5, 2)
    for one in made.values():
        one.close()


@given(st.integers(0, 60), st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_a_byte_changed_on_the_way_is_noticed(at, difference):
    """What one stream sealed, opened by the other end with one byte of header, payload or tag changed."""
    out, into = (link._Stream(b"k" * 32, b"r" * 64, 1, 2) for _ in range(2))
    head, payload = frame(b"payload!").head, b"payload!"
    wire = bytearray(head + out.seal(memoryview(payload), head))
    wire[at % len(wire)] ^= difference
    with pytest.raises(MessageError):
        into.open(memoryview(wire[HEADER_BYTES:]), bytes(wire[:HEADER_BYTES]))


def test_a_repeated_sealed_frame_is_noticed():
    out, into = (link._Stream(b"k" * 32, b"r" * 64, 1, 2) for _ in range(2))
    sealed = out.seal(memoryview(b"x"), b"head")
    assert into.open(memoryview(sealed), b"head") == b"x"
    with pytest.raises(MessageError):
        into.open(memoryview(sealed), b"head")


@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3, b"MIP3\x01\x09" + bytes(32)])
def test_strangers_are_refused(greeting):
    """Something that is no peer connects first: a typed error in time, no hang."""
    sockets, addresses = listeners()
    stranger = socket.create_connection(addresses[3])
    stranger.sendall(greeting)
    begin = time.monotonic()
    sockets[1].close(), sockets[2].close()
    with pytest.raises(MippError):
        TcpLink.connect(3, sockets[3], addresses, KEYS[3], 0.3)
    with pytest.raises(MippError):
        TcpLink.connect(2, sockets[3], addresses, KEYS[2], 0.3)
    assert time.monotonic() - begin < 3
    stranger.close()
    sockets[3].close()


def serve(index, listener, addresses, shares, theta_shares, queue):
    """One server: top-k, then threshold, each on a link of its own, as a process."""
    try:
        pub, timeout = public(shares.shape[1]), 20.0
        results = []
        for task in (
            lambda p: top_k(p, shares, 5, pub),
            lambda p: threshold(p, shares, pub, theta_shares=theta_shares),
        ):
            one = TcpLink.connect(index, listener, addresses, KEYS[index], timeout)
            try:
                results.append(task(Party(index, KEYS[index], one, timeout=timeout)))
            finally:
                one.close()
        queue.put(results)
    except BaseException as error:
        queue.put(error)
        raise


def test_three_processes_over_loopback():
    """The same protocol code as in threads, on messages larger than socket buffers."""
    rng = np.random.default_rng(11)
    scores, theta = rng.integers(-100, 101, (2, 60_000)), np.array([0, 99])
    shares, secret = share(scores, np.uint32, rng), share(theta, np.uint32, rng)
    sockets, addresses = listeners()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=serve, args=(i, sockets[i], addresses, shares[i], secret[i], queue)) for i in (1, 2, 3)
    ]
    for p in processes:
        p.start()
    results = [queue.get(timeout=60) for _ in processes]
    for p in processes:
        p.join(20)
        assert p.exitcode == 0
    ranked, matched = zip(*results, strict=True)
    pub = public(60_000)
    got, want = combine_top_k(ranked, pub), ideal.ranking(list(shares.values()), 5, pub)
    assert np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1])
    assert np.array_equal(combine_matches(matched), scores >= theta[:, None])
    for s in sockets.values():
        s.close()
