"""Score shares that travel are cut to the bits of a score: exact hits, counted bytes, liars, untested rows."""

import dataclasses

import numpy as np
import pytest

import mipp
from mipp.errors import MessageError
from mipp.rpc import messages as m
from mipp.rpc.channel import LocalChannel
from mipp.rpc.wire import encode
from mipp.sharing import packed_words
from tests.adversary.forge import uncertified
from tests.conftest import ALL_RANKINGS, DIM, over_network, vectors

ENCODINGS = {
    "cosine": mipp.Encoding("cosine", DIM),
    "hamming, 16 bits": mipp.Encoding("hamming", DIM, ring_bits=16),
    "l2, 64 bits": mipp.Encoding("l2", DIM, ring_bits=64, query_bits=10),
}
#: not a whole number of blocks
ROWS = 1100


class Tapped:
    """A channel on which queries and answers are seen, and answers changed."""

    remote = True

    def __init__(self, real, change=lambda server, answer: answer):
        self.real, self.servers, self.change = real, real.servers, change
        self.asked, self.answers = [], []

    def gather(self, requests, *, together=False, spare=False):
        replies = self.real.gather(requests, together=together)
        if all(isinstance(r, m.Answer) for r in replies.values()):
            replies = {s: self.change(s, r) for s, r in replies.items()}
            self.answers.append(replies)
        return replies


@pytest.fixture
def travelling(monkeypatch):
    """Answers of embedded deployments are packed, too."""
    monkeypatch.setattr(LocalChannel, "remote", True)


@pytest.mark.parametrize("name", ENCODINGS)
def test_hits_and_scores_are_exact(tmp_path, travelling, name):
    encoding, x = ENCODINGS[name], vectors(ROWS)
    if encoding.metric == "hamming":
        x = x > 0
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ids = anna.add_vectors(x[:1000]) + anna.add_vectors(x[1000:])
        anna.grant(ulla, rankings=["user"])
        anna.delete([ids[i] for i in (3, 700, 1099)])
        x = np.delete(x, [3, 700, 1099], axis=0)
        scores = encoding.encode_queries(x[:5]).astype(np.int64) @ encoding.encode_rows(x).astype(np.int64).T
        ulla.channel = Tapped(deployment.channel)
        assert np.array_equal(ulla.scores(x[:5])[1], scores)
        assert np.array_equal(
            ulla.nearest(x[:5], 7, ranking="user").rows, np.argsort(-scores, axis=1, kind="stable")[:, :7]
        )
        width, bits = deployment.config.score_width, encoding.ring_bits
        assert 0 < width < bits and -(1 << width - 1) <= scores.min() and scores.max() < 1 << width - 1
        words = packed_words(len(x), width, bits)
        for answer in (a for replies in ulla.channel.answers for a in replies.values()):
            assert answer.width == width and answer.score_shares.shape == (5, words)


def test_bytes_are_those_that_the_preview_tells(world):
    """Packed over a network, whole words in one process; to the byte."""
    user, queries = world.user, vectors(7, 2)
    user.channel = Tapped(user.channel)
    user.channel.remote = over_network(world.deployment)
    for k, some in ((3, queries), (5, queries[:1])):
        before = len(user.channel.answers)
        user.nearest(some, k, ranking="user")
        received = [
            sum(r[s].score_shares.nbytes + r[s].checks.nbytes for r in user.channel.answers[before:]) for s in (1, 2, 3)
        ]
        told = user.cost(k, ranking="user", queries=len(some))["user"]["received"]
        assert received == [told] * 3
        checks = user.scheme.checks
        assert (told < (len(some) + checks) * 60 * 4) == over_network(world.deployment)
        plain = user.cost(k, ranking="user", queries=len(some), verify=False)["user"]["received"]
        assert told - plain == checks * 60 * 4


def test_low_bits_are_uniform_and_the_rest_stays(world, travelling):
    """What two servers send has balanced bits, and fixes no score without the third."""
    user = world.user
    user.channel = Tapped(user.channel)
    for _ in range(40):
        user.nearest(np.repeat(vectors(1, 5), 64, axis=0), 1, ranking="user")
    for server in (1, 2, 3):
        words = np.concatenate([r[server].score_shares.reshape(-1) for r in user.channel.answers])
        whole = words.reshape(-1, packed_words(60, user.config.score_width, 32))[:, :-1]  # the last word ends in zeros
        bits = np.unpackbits(np.ascontiguousarray(whole).view(np.uint8), axis=None).reshape(-1, 32)
        assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(len(bits))


def test_a_user_that_does_not_ask_gets_whole_words(world):
    user, index = world.user, world.user.index()
    hidden = user._querier.hide(index, user.config.encoding.encode_queries(vectors(2)), 3, "user")
    width = user.config.score_width
    whole = user._querier.send(hidden, range(60))
    for asked in (1, width - 1, width + 1, 32, -1, 1 << 62):  # nor who asks for another width
        replies = user._querier.send(hidden, range(60), width=asked)
        assert all(r.width == 0 and np.array_equal(r.score_shares, whole[s].score_shares) for s, r in replies.items())
    cut = user._querier.send(hidden, range(60), width=width)
    assert {r.width for r in cut.values()} == {width}
    # a server says nothing new: the same header has the same words
    for server, answer in cut.items():
        expected = mipp.sharing.pack_score_shares(np.ascontiguousarray(whole[server].score_shares), width)
        assert np.array_equal(answer.score_shares, expected)


def test_queries_and_answers_of_programs_that_do_not_know_widths(world):
    whole, asked = (
        m.Answer(np.zeros((1, 2), np.uint32)),
        m.Query([], b"", np.zeros((1, 2), np.uint32), np.empty(0, "<u4")),
    )
    assert whole.width == asked.width == 0 and len(encode(whole)) == 3


def replaced(**change):
    return lambda answer: dataclasses.replace(answer, **change)


LIES = {
    "another width": lambda a: dataclasses.replace(a, width=a.width + 1),
    "a width of all bits": replaced(width=32),
    "no width": replaced(width=0),
    "a negative width": replaced(width=-3),
    "a huge width": replaced(width=1 << 60),
    "one word more": lambda a: dataclasses.replace(a, score_shares=np.pad(a.score_shares, ((0, 0), (0, 1)))),
    "one word less": lambda a: dataclasses.replace(a, score_shares=a.score_shares[:, :-1]),
    "another query": lambda a: dataclasses.replace(a, score_shares=np.pad(a.score_shares, ((0, 1), (0, 0)))),
    "other words": lambda a: dataclasses.replace(a, score_shares=a.score_shares.astype(np.uint64)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("liars", [{2}, {1, 2, 3}])
def test_a_server_that_lies_about_the_width(world, travelling, lie, liars):
    user = world.user
    user.channel = Tapped(user.channel, lambda server, a: LIES[lie](a) if server in liars else a)
    for call in (lambda: user.search(vectors(1)[0], 3, ranking="user"), lambda: user.scores(vectors(1))):
        with pytest.raises(MessageError, match=r"width|wrong shape"):
            call()


def test_whole_words_of_all_servers_are_taken(world, travelling):
    """As a server gives that knows of a row out of range."""
    user, index = world.user, world.user.index()
    hidden = user._querier.hide(index, user.config.encoding.encode_queries(vectors(2)), 3, "user")
    whole = user._querier.send(hidden)
    words = user._querier._opened(hidden, whole, 2, range(60), user.config.score_width)
    assert words.width is None and [w.shape for w in words.words] == [(2, 60)] * 3


def test_rows_that_nobody_tested_are_answered_in_whole_words(tmp_path, travelling):
    """A row that is longer than the encoding allows is dropped as before; it does not come back as a wrapped score."""
    encoding, x = mipp.Encoding("cosine", DIM), vectors(40)
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        anna, berta, ulla = *map(deployment.create_owner, ("anna", "berta")), deployment.create_user("ulla")
        anna.add_vectors(x)
        with uncertified(deployment):
            berta.add_vectors(x[:5])
        for owner in (anna, berta):
            owner.grant(ulla, rankings=ALL_RANKINGS)
        ulla.channel = tapped = Tapped(deployment.channel)
        assert ulla.index("anna").certified and not ulla.index().certified
        for owners, expected in ((None, 0), ("anna", deployment.config.score_width), ("berta", 0)):
            tapped.answers.clear()
            ulla.search(x[0], 3, ranking="user", owners=owners)
            assert {a.width for replies in tapped.answers for a in replies.values()} == {expected}
            cost = ulla.cost(3, ranking="user", owners=owners)["user"]["received"]
            assert cost == tapped.answers[0][1].score_shares.nbytes + tapped.answers[0][1].checks.nbytes
        # servers decide by what they know, whatever the user asks for
        index = ulla.index()
        hidden = ulla._querier.hide(index, encoding.encode_queries(x[:1]), 3, "user")
        assert {a.width for a in ulla._querier.send(hidden, width=deployment.config.score_width).values()} == {0}


def test_encodings_that_servers_cannot_rank_are_not_cut(tmp_path, travelling):
    encoding = mipp.Encoding("ip", 4, ring_bits=16, bits=6, query_bits=9)
    with (
        pytest.warns(UserWarning, match="could leave the ring"),
        mipp.Deployment.create(tmp_path / "d", encoding) as deployment,
    ):
        assert not deployment.config.certifies and deployment.config.score_width == 0
