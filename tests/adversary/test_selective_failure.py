"""What a server learns by lying about one row and watching what happens: a bit of content, or nothing.

Where servers rank it is not prevented: these tests show what is learned, as the threat model says. Where the user ranks
with verified answers, what servers see afterwards is the same whatever the row and the error.
"""

import numpy as np
import pytest

import mipp
from mipp.client import query as client_query
from mipp.errors import OutOfRangeError, ProtocolError, VerificationError
from mipp.mpc import session
from mipp.schemes import shares as shares_scheme
from mipp.server import ranking as server_ranking
from tests.adversary.scene import MANY, Colluder, Scene
from tests.conftest import DIM
from tests.mpc.parties import run
from tests.mpc.ranged import ENCODINGS, Ranged


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selective")
    with mipp.Deployment.create(folder / "d", mipp.Encoding("cosine", DIM), threads=1) as deployment:
        yield Scene(deployment, MANY)


@pytest.fixture(autouse=True)
def honest_afterwards(scene):
    yield
    scene.honest()


def by_rank(scene):
    """Rows of query 0, nearest first."""
    scores = scene.user.scores(scene.queries[:1])[1][0]
    return np.argsort(-scores, kind="stable").tolist()


def added(scene, liar, row, number):
    """``liar`` adds a number to its share of one row's score, for the first query."""
    scene.honest()
    scene.liar = liar

    def change(words, header, before):
        if row in scene.block:
            words[:1, row - scene.block.start] += words.dtype.type(number % (1 << 32))
        return words

    scene.score_shares(change)


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_server_learns_whether_a_row_is_the_nearest(scene, liar):
    """Undetected: half of the range of differences turns all comparisons of one row over.

    The order stays one only if the row was first or last of all. So the attempt's end, which each server sees, tells it
    that bit; and if the row was first, the user gets a result without it.
    """
    low, high = scene.deployment.config.encoding.score_range
    half = 1 << (high - low).bit_length()
    ranks, seen = by_rank(scene), {}
    for row in (ranks[0], ranks[1], ranks[30], ranks[-1]):
        added(scene, liar, row, half)
        ended = []
        real = server_ranking.rank

        def watched(index, *values, real=real, ended=ended, liar=liar):
            try:
                part = real(index, *values)
            except Exception as error:
                if index == liar:
                    ended.append(type(error))
                raise
            if index == liar:
                ended.append(None)
            return part

        scene.patch.setattr("mipp.server.queries.rank", watched)
        try:
            seen[row] = scene.user.nearest(scene.queries[:1], 3, ranking="server").rows[0].tolist()
        except ProtocolError as error:
            seen[row] = "parts" if "the user's parts" in str(error) else "open" if "open" in str(error) else ""
        assert ended == [ProtocolError if seen[row] == "open" else None]
    # the farthest row comes first, with a score that no row has
    assert seen == {ranks[0]: ranks[1:4], ranks[1]: "open", ranks[30]: "open", ranks[-1]: "parts"}


@pytest.mark.parametrize("liar", [1, 3])
@pytest.mark.parametrize("folds", [False, True])
def test_verified_answers_fail_alike_whatever_the_row(scene, liar, folds, monkeypatch):
    """A small error or one that leaves the range, of the nearest row, of another, of the first or of the last block.

    The same error, and the same requests to each server in the same order: no block is left out, and the weights are
    told, when a score out of range was seen long before.
    """
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: folds)
    blocks = [range(first, first + 20) for first in range(0, scene.rows, 20)]
    monkeypatch.setattr(shares_scheme, "row_blocks", lambda rows, queries, word_bytes: iter(blocks))
    ranks = by_rank(scene)
    high = scene.deployment.config.encoding.score_range[1]
    seen = set()
    for row in (ranks[0], ranks[1], ranks[30], ranks[-1], 0, scene.rows - 1):
        for number in (1, 1 << 10, high, -high, 1 << 31):
            added(scene, liar, row, number)
            asked = []
            for index, server in scene.deployment.servers.items():
                real = server._handle

                def handle(request, real=real, index=index, asked=asked):
                    content = request.content
                    asked.append((index, type(content).__name__, getattr(content, "first", None)))
                    return real(request)

                scene.patch.setattr(server, "_handle", handle)
            with pytest.raises(VerificationError) as caught:
                scene.user.nearest(scene.queries, 3, ranking="user")
            seen.add((str(caught.value), tuple(asked)))
    assert len(seen) == 1
    ((_, asked),) = seen
    assert len(asked) == 3 * (len(blocks) + folds)


# --- a server that lies together with an owner, or with a user -------------------------------------------------------

RANGED = Ranged(ENCODINGS["cosine"])
RNG = np.random.default_rng(5)


@pytest.fixture
def colluding(monkeypatch):
    """One server opens what makes tests come out well."""
    honest = session.Party

    def choose(liar):
        monkeypatch.setattr(
            session, "Party", lambda index, *a, **o: (Colluder if index == liar else honest)(index, *a, **o)
        )

    return choose


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_lying_server_passes_rows_that_are_out_of_range(liar, colluding):
    """Undetected: the tests of ranges hold against owners and users, if the servers follow the protocol."""
    rows = RANGED.encoding.encode_rows(RANGED.features(20, RNG)).astype(np.int64)
    rows[3] *= 50
    words = RANGED.share(rows)
    assert 3 in RANGED.certify(words)
    colluding(liar)
    assert RANGED.certify(words) == []


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_a_lying_server_passes_a_query_that_is_out_of_range(liar, colluding):
    queries = RANGED.encoding.encode_queries(RANGED.features(1, RNG)).astype(np.int64) * 3
    proof, columns = RANGED.prove_anything(queries), RANGED.columns(queries)
    with pytest.raises(OutOfRangeError, match="or a server lied"):
        run(RANGED.check_task(proof, columns))
    colluding(liar)
    run(RANGED.check_task(proof, columns))
