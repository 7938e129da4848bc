"""Frames, their parser, and the links in one process; those between processes are in test_mesh.py."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import MessageError, ProtocolError
from mipp.mpc.link import HEADER_BYTES, KINDS, Frame, Header, local_links, parse_header

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
