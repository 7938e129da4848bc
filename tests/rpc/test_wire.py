"""Messages: round trips, and refusal of everything that does not fit."""

import dataclasses

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import MessageError, MippError
from mipp.rpc import messages as m
from mipp.rpc.failures import error_from_wire, error_to_wire
from mipp.rpc.wire import decode, encode, frames_hash, frames_size, kind_of, pack_frames, unpack_frames


def sample():
    column = np.arange(6, dtype=np.uint32).reshape(2, 3)
    return m.Query([np.arange(5, dtype=np.uint8)], b"s" * 32, column, np.empty(0, np.uint32))


def test_round_trip_without_a_copy():
    msg = sample()
    frames = encode(msg)
    again = decode(frames)
    assert type(again) is m.Query and again.salt == msg.salt
    assert np.array_equal(again.query_share, msg.query_share) and np.array_equal(again.header[0], msg.header[0])
    assert np.shares_memory(again.query_share, msg.query_share)
    assert not again.query_share.flags.writeable
    assert frames_size(frames) == sum(len(bytes(f)) + 8 for f in frames)


def test_empty_arrays_and_lists_travel():
    op = m.UploadOp(b"o" * 16, 1, 1, b"e" * 32, [], np.empty((0, 0), np.uint32), np.empty(0, np.uint8),
                    np.zeros(2, "<i8"), np.empty((0, 16), np.uint8), np.empty(0, "<i8"))  # fmt: skip
    again = decode(unpack_frames(pack_frames(encode(op))), m.UploadOp)
    assert again.share.shape == (0, 0) and again.origin_batch.shape == (0, 16)


def test_hash_covers_every_byte_and_the_cuts():
    frames = [b"abc", b"de"]
    assert frames_hash(frames) != frames_hash([b"ab", b"cde"]) != frames_hash([b"abcde"])


def head(fields, kind="Query"):
    return b"MIPP\x01" + msgpack.packb([kind, fields])


BAD = [
    [], [b""], [b"MIPP"], [b"MIPP\x02" + encode(sample())[0][5:]], [b"MIPP\x01\xc1"], [head([], "Nothing")], [head([])],
    [head([[], b"x", 3])], [head([[], b"x"])], [head([[], "x", None])], [b"MIPP\x01" + msgpack.packb(3)],
    [b"MIPP\x01" + msgpack.packb([["Query"], []])], [encode(sample())[0]], encode(sample())[:2],
    [*encode(sample()), b"more"], [encode(sample())[0], encode(sample())[2], encode(sample())[1]],
]  # fmt: skip


@pytest.mark.parametrize("kind", [[], {}, ["Query"], None, 1, b"Query", "Nothing"])
def test_a_kind_of_another_type(kind):
    """A list is no key of a dictionary: it was an unexpected error, in the server's log, at any stranger's wish."""
    for read in (kind_of, decode):
        with pytest.raises(MessageError):
            read([head([], kind)])


@pytest.mark.parametrize("frames", BAD)
def test_malformed(frames):
    with pytest.raises(MessageError):
        decode(frames)


def test_wrong_kind_dtype_and_rank():
    with pytest.raises(MessageError, match="expected"):
        decode(encode(sample()), m.Answer)
    for bad in (np.zeros(3, np.uint32), np.zeros((2, 2), np.int64)):
        with pytest.raises(MessageError):
            decode(encode(dataclasses.replace(sample(), query_share=bad)))
    with pytest.raises(MessageError):
        encode(dataclasses.replace(sample(), query_share=np.zeros((2, 2), np.float32)))
    with pytest.raises(MessageError):
        encode(dataclasses.replace(sample(), salt={1, 2}))


def test_frames_in_another_order_are_refused():
    """Hashes of frames stand for the arrays in an envelope, one by one."""
    head, *frames = encode(m.Signed(b"d" * 16, b"s" * 16, 1, 0, b"r" * 16, b"x" * 64, [np.zeros(8, np.uint8)] * 2))
    first, second = (msgpack.packb(["|u1", [8], number]) for number in (1, 2))
    before, between, after = bytes(head).partition(first)[0], *bytes(head).partition(first)[2].split(second)
    assert len(decode([before + first + between + second + after, *frames]).frames) == 2
    swapped = before + second + between + first + after
    with pytest.raises(MessageError):
        decode([swapped, *frames])


@given(st.lists(st.binary(max_size=64), max_size=4), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_garbage_never_gets_through(extra, position, value):
    frames = [bytes(f) for f in encode(sample())]
    damaged = bytearray(frames[0])
    damaged[position % len(damaged)] = value
    for attempt in (extra, [bytes(damaged), *frames[1:]], [bytes(damaged), *extra]):
        try:
            again = decode(attempt)
        except MessageError:
            continue
        assert dataclasses.is_dataclass(again)


def test_messages_do_not_show_their_content():
    assert repr(sample()) == "<message Query>"


def test_errors_travel_as_types():
    for kind in MippError.__subclasses__():
        name, text = error_to_wire(kind("why"))
        back = error_from_wire(name, text)
        assert type(back) is kind and "why" in str(back)
    assert error_to_wire(ValueError("secret 123")) == ("MippError", "internal error of the server")
    assert type(error_from_wire("os.system", "x")) is MippError
    assert type(error_from_wire("error_to_wire", "x")) is MippError
