"""A lost share, rebuilt by other servers: byte-identical for every form and width, and masked on the way."""

import itertools
import json

import numpy as np
import pytest

from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.params import Params
from mipp.sharing import (
    Run,
    batch_schedules,
    complete_share,
    completion_part,
    constants,
    key_centre_words,
    share_rows,
)
from tests.test_sharing import ALL, INFINITY, fresh_keys, load_vectors, looks_uniform

SESSION = b"s" * 32


def pair_keys(server, params):
    """The keys that a server has with all others."""
    return {i: bytes([min(i, server), max(i, server)]) * 16 for i in range(1, params.n + 1) if i != server}


def held_words(x, keys):
    """What each server holds of a batch, by its number, and the batch's nonce."""
    p, shared = keys.params, share_rows(x, keys)
    words = dict(shared.shares)
    for s in p.key_centres:
        schedules = batch_schedules(keys.server_key(s), [shared.nonce], [x.shape[1]], [len(x)], p.ring_bits)
        words[s] = key_centre_words(schedules, Run(np.array([0]), np.array([0]), np.array([len(x)])), p, x.shape[1])
    return words, shared.nonce


def parts_of(words, holders, target, params, nonce, session=SESSION, **options):
    """Each holder's part."""
    return [
        completion_part(words[i], i, holders, target, params, pair_keys(i, params), session, nonce, **options)
        for i in holders
    ]


@pytest.mark.parametrize("params", ALL, ids=str)
def test_every_lost_share_comes_back_from_any_servers(params):
    x = np.random.default_rng(1).integers(-100, 100, (7, 11))
    words, nonce = held_words(x, fresh_keys(params))
    for target in params.clouds:
        others = [i for i in range(1, params.n + 1) if i != target]
        for holders in itertools.combinations(others, params.t + 1):
            whole = complete_share(parts_of(words, holders, target, params, nonce))
            assert whole.dtype == params.dtype and whole.tobytes() == words[target].tobytes()
            backwards = complete_share(parts_of(words, holders[::-1], target, params, nonce)[::-1])
            assert np.array_equal(whole, backwards)


THREE_CLOUDS = [v for v in load_vectors() if v["params"].sharing == "infinity" and v["params"].n == 4]


@pytest.mark.parametrize("number", range(len(THREE_CLOUDS)))
def test_known_answer(number):
    """The third cloud's share of every known answer, from the two that a query names."""
    v, p = THREE_CLOUDS[number], THREE_CLOUDS[number]["params"]
    words = {i: np.array(v["shares"][str(p.point_number(i))], p.dtype) for i in p.clouds}
    pair = [i for i in p.clouds if p.point_number(i) in v["pair"]]
    (target,) = set(p.clouds) - set(pair)
    nonce = bytes.fromhex(v["batch_nonce"])
    assert complete_share(parts_of(words, pair, target, p, nonce)).tolist() == v["shares"][str(p.point_number(target))]


def test_there_are_known_answers_for_three_clouds():
    assert len(THREE_CLOUDS) == sum(len(v["clouds"]) == 3 for v in json.loads(INFINITY.read_text())) > 0


@pytest.mark.parametrize("k", [16, 32, 64])
def test_a_cloud_joins(k):
    """Cloud 4 gets its share of rows that were uploaded for two clouds, and whoever knows of three makes the same."""
    two, three = Params(3, 1, k), Params(4, 1, k)
    x = np.random.default_rng(1).integers(-100, 100, (5, 9))
    keys = fresh_keys(two)
    words, nonce = held_words(x, keys)
    new = complete_share(parts_of(words, (1, 2), 4, three, nonce))
    assert np.array_equal(new, complete_share(parts_of(words, (2, 3), 4, three, nonce)))
    again = complete_share(parts_of(words | {4: new}, (3, 4), 1, three, nonce))
    assert np.array_equal(again, words[1])


@pytest.mark.parametrize("params", [Params(3, 1, 32), Params(4, 1, 32), Params(5, 2, 32)], ids=str)
def test_rows_in_parts_are_the_whole(params):
    x = np.random.default_rng(1).integers(-100, 100, (9, 11))
    words, nonce = held_words(x, fresh_keys(params))
    holders = (1, *range(params.n - params.t + 1, params.n + 1)) if params.n == 5 else (1, 3)
    whole = parts_of(words, holders, 2, params, nonce)
    for first, stop in ((0, 4), (4, 5), (5, 9), (9, 9)):
        some = parts_of({i: w[first:stop] for i, w in words.items()}, holders, 2, params, nonce, first=first, threads=2)
        assert all(np.array_equal(a, b[first:stop]) for a, b in zip(some, whole, strict=True))


@pytest.mark.parametrize("params", [Params(3, 1, 16), Params(3, 1, 32, sharing="finite"), Params(4, 1, 64)], ids=str)
def test_parts_are_uniform_and_new_in_every_session(params):
    zeros = np.zeros((3000, 16), np.int64)
    words, nonce = held_words(zeros, fresh_keys(params))
    words[1][:] = 0  # as if a holder's file were empty: nothing shows
    for holders in ((1, 3), (3, 1)):
        for part in parts_of(words, holders, 2, params, nonce):
            assert looks_uniform(part)
    (one, _), (other, _) = (parts_of(words, (1, 3), 2, params, nonce, s * 32) for s in (b"a", b"b"))
    assert looks_uniform(one - other)
    (one, _), (other, _) = (parts_of(words, (1, 3), 2, params, n * 16) for n in (b"a", b"b"))
    assert looks_uniform(one - other)
    # without the mask the part of an empty file is empty
    assert not (words[1].reshape(-1, params.m) @ constants.completion_matrix(params, 1, (1, 3), 2).T).any()


def test_a_part_does_not_change_the_words():
    p = Params()
    words, nonce = held_words(np.ones((3, 4), int), fresh_keys(p))
    before = words[1].copy()
    parts = parts_of(words, (1, 3), 2, p, nonce)
    kept = [part.copy() for part in parts]
    complete_share(parts)
    assert np.array_equal(words[1], before)
    assert all(np.array_equal(a, b) for a, b in zip(parts, kept, strict=True))


def test_bad_input():
    p = Params()
    words, nonce = held_words(np.ones((3, 4), int), fresh_keys(p))
    good = {
        "words": words[1], "server": 1, "holders": (1, 3), "target": 2, "params": p, "pair_keys": {3: bytes(32)},
        "session": SESSION, "nonce": nonce,
    }  # fmt: skip
    completion_part(**good)
    for bad, error in (
        *(({"holders": wrong}, ParameterError) for wrong in ((1, 2), (1,), (1, 1), (1, 3, 3), (1, 4), (3, 4))),
        ({"server": 2}, ParameterError), ({"server": 4}, ParameterError),
        *(({"target": wrong}, ParameterError) for wrong in (0, 1, 3, 4)),
        ({"params": Params(5, 2)}, ParameterError), ({"params": Params(2, 1, 32, "paillier")}, ParameterError),
        ({"params": Params(ring_bits=16)}, DTypeError), ({"words": words[1].tolist()}, DTypeError),
        ({"words": words[1].astype(np.int32)}, DTypeError), ({"words": words[1][0]}, ShapeError),
        ({"words": words[1][:, :3]}, ShapeError), ({"pair_keys": {2: bytes(32)}}, ParameterError),
        ({"pair_keys": {3: bytes(31)}}, ParameterError), ({"session": b"s"}, ParameterError),
        ({"nonce": b"n"}, ParameterError), ({"first": -1}, ParameterError), ({"first": 1 << 40}, ParameterError),
    ):  # fmt: skip
        with pytest.raises(error):
            completion_part(**{**good, **bad})
    with pytest.raises(ParameterError, match="is not a cloud"):
        completion_part(**{**good, "words": words[1], "holders": (1, 2), "pair_keys": {2: bytes(32)}, "target": 3})
    for bad, error in (
        ([], DTypeError), ([[1, 2]], DTypeError), ([words[1].astype(np.int32)], DTypeError),
        ([words[1], words[2].astype(np.uint64)], DTypeError), ([words[1], words[2][:1]], ShapeError),
    ):  # fmt: skip
        with pytest.raises(error):
            complete_share(bad)
