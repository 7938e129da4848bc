"""A scheme is one file: a toy one, defined here alone, does all that clients, servers and deployments need."""

import numpy as np
import pytest

import mipp
from mipp import schemes
from mipp.errors import LimitError, MessageError, ShapeError
from mipp.params import Params
from mipp.schemes import Hidden, Scheme, ServerScheme, UserScheme
from tests.conftest import vectors

DIM, ROWS = 12, 40


class Toy(Scheme):
    """Masked rows, and queries in the clear: no secrecy of queries at all."""

    name, summary = "toy", "for a test"

    def params(self, ring_bits, clouds=None):
        return Params(2, 1, ring_bits, self.name)

    def user_secrets(self, config, key_bits):
        return {"toy": b"a key"}

    def for_user(self, config, servers, secrets, threads):
        return ToyUser(config, secrets["toy"])

    def for_server(self, config, index, pair_keys, threads, keys, own_key):
        return ToyServer(config, keys)


class ToyUser(UserScheme):
    by_rows, servers = False, (1, 2)

    def __init__(self, config, key):
        self.config, self.public_key = config, key[::-1]

    def hide(self, encoded):
        return Hidden(dict.fromkeys(self.servers, encoded.astype(self.config.params.dtype)), "opens")

    def portion(self, rows, ranking, k):
        return 3

    def verify(self, score_shares, queries, rows, width):
        if any(s.shape != (queries, rows) for s in score_shares):
            raise MessageError("the wrong shape")

    def open(self, score_shares, rows, opening):
        assert opening == "opens"
        return list(score_shares)

    def cost(self, images, batches, k, ranking, queries, width, *, checks=0, folded=False):
        return {"ranking": ranking, "images": images, "user": {"rounds": 1, "sent": 0, "received": 0}}


class ToyServer(ServerScheme):
    by_rows = False

    def __init__(self, config, keys):
        self.config, self.keys = config, keys

    def check_user_key(self, key):
        if key != b"yek a":
            raise ShapeError("another key")

    def check_query(self, header, query_share, theta):
        if query_share.shape != (header.queries, DIM):
            raise ShapeError("another shape")
        return "checked"

    def check_size(self, header, rows):
        if header.queries > 3:
            raise LimitError("at most three")

    def answer(self, header, header_hash, plan, stored, query_share, rows, checked):
        assert self.keys(header.user) == b"yek a" and checked == "checked"
        words = stored.words(DIM)
        return query_share @ (words if plan.live is None else words[plan.live]).T


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(schemes._SCHEMES, "toy", Toy())


def test_a_scheme_is_one_file(toy, tmp_path):
    encoding, x = mipp.Encoding("cosine", DIM), vectors(ROWS)
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme="toy") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(x[:25])
        owner.add_vectors(x[25:])
        owner.grant(user)
        owner.delete([(owner.batches()[0].id, 4)])
        left = np.delete(x, 4, axis=0)
        rows = encoding.encode_rows(left).astype(np.int64)
        queries = encoding.encode_queries(vectors(7, 3)).astype(np.int64)
        index, scores = user.scores(vectors(7, 3))
        assert np.array_equal(scores, queries @ rows.T) and index.total == ROWS - 1
        found = user.nearest(vectors(7, 3), 5)
        assert np.array_equal(found.rows, np.argsort(-scores, axis=1, kind="stable")[:, :5])
        assert user.range_search(vectors(7, 3)[0], -1.0).searched == ROWS - 1
        assert user.cost(3)["ranking"] == "user"
    with mipp.Deployment.open(tmp_path / "d") as again:
        assert len(again.user("ulla").search(vectors(1)[0], 3).hits) == 3
