"""Searches of chosen clusters, through all roles: the same rows and scores as in the clear, whatever was deleted."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.backends import CpuBackend, Segment, Slots
from mipp.client import query as query_module
from mipp.client.reencoding import reencode
from mipp.encoding.clusters import Clusters
from mipp.errors import AccessDeniedError, AuthenticationError, DTypeError, LimitError, OutOfRangeError, ParameterError
from mipp.evaluation.evaluate import plain_scores
from mipp.features.encoding import descriptor_encoding
from mipp.mpc import probed as probed_module
from mipp.mpc.probed import ProbedRows
from mipp.rpc import description
from mipp.rpc import messages as m
from mipp.rpc.limits import MAX_RANKED_BYTES
from mipp.schemes import shares as shares_module
from mipp.server import plan as plan_module
from mipp.server import queries as queries_module
from tests.conftest import DIM, made, reopened

#: rows of each batch: with clusters, without, with
SIZES = (200, 30, 140)
#: a user may search all rows, and chosen clusters
BOTH = ("server", "probe")


def features(count, seed):
    """Rows near one of some points: clusters find most neighbours."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(12, DIM))
    return (centres[rng.integers(0, 12, count)] + 0.4 * rng.normal(size=(count, DIM))).astype(np.float32)


class Index:
    """Two owners with batches, and what is stored where, in the clear."""

    def __init__(self, deployment):
        self.deployment, self.encoding = deployment, deployment.config.encoding
        self.clusters = deployment.config.clusters
        self.anna, self.berta = deployment.create_owner("anna"), deployment.create_owner("berta")
        self.user = deployment.create_user("ulla")
        self.rows = {}
        self.sizes = {}
        for n, (owner, size) in enumerate(zip((self.anna, self.anna, self.berta), SIZES, strict=True)):
            x = features(size, n)
            ids = owner.add_vectors(x)
            assert len(set(ids)) == size and {batch for batch, _ in ids} == {ids[0][0]}
            self.rows |= dict(zip(ids, x, strict=True))
            self.sizes[ids[0][0]] = size
        for owner in (self.anna, self.berta):
            owner.grant(self.user, rankings=("server", "user", "probe"))

    def covered(self, query):
        """Ids of the rows that a query covers, by the definition of the layout."""
        clusters = self.clusters
        chosen = clusters.chosen(clusters.points(self.encoding, query[None]))[0]
        for batch, row in self.rows:
            slots = clusters.slots(self.sizes[batch])
            inside = row < slots * clusters.count
            group = row // (slots * clusters.size) if inside else 0
            if not inside or chosen[group] == row % clusters.size:
                yield batch, row

    def check(self, queries, k, user=None):
        found = (user or self.user).search_batch(queries, k, probe=True)
        for query, result in zip(queries, found, strict=True):
            ids = list(self.covered(query))
            scores = plain_scores(self.encoding, np.array([self.rows[i] for i in ids]), query[None])[0]
            known = dict(zip(ids, scores.tolist(), strict=True))
            hits = [(hit.batch, hit.row) for hit in result.hits]
            assert len(set(hits)) == k
            assert [known[hit] for hit in hits] == [hit.score for hit in result.hits]
            assert [hit.score for hit in result.hits] == sorted(scores.tolist(), reverse=True)[:k]


def options(encoding, least=3):
    return {"clusters": Clusters.fit(encoding, features(400, 50), 16, 4, least=least)}


@pytest.fixture
def index(tmp_path, encoding):
    with made("embedded", tmp_path, encoding, **options(encoding)) as deployment:
        yield Index(deployment)


QUERIES = features(4, 77)


def test_search_of_chosen_clusters(index):
    index.check(QUERIES, 10)
    # all rows: the default, on the same rows
    exact = index.user.search_batch(QUERIES, 10)
    for query, result in zip(QUERIES, exact, strict=True):
        scores = plain_scores(index.encoding, np.array(list(index.rows.values())), query[None])[0]
        assert [hit.score for hit in result.hits] == sorted(scores.tolist(), reverse=True)[:10]
    probed = index.user.search_batch(QUERIES, 10, probe=True)
    both = [len({h.id for h in a.hits} & {h.id for h in b.hits}) for a, b in zip(exact, probed, strict=True)]
    assert sum(both) > 0.6 * 40


def test_deleted_merged_and_compacted(index):
    for query in QUERIES[:2]:
        for hit in index.user.search(query, 6, probe=True).hits:
            owner = index.anna if hit.owner == index.anna.id else index.berta
            owner.delete([(hit.batch, hit.row)])
            del index.rows[hit.batch, hit.row]
    index.check(QUERIES, 12)
    # clouds drop deleted rows from their files; the key centre makes them as before
    for owner in (index.anna, index.berta):
        owner.ask_present(m.Compact(owner.id), (1, 2))
    index.check(QUERIES, 12)
    mine = [i for i in index.rows if i[0] in {b.id for b in index.anna.batches()}]
    index.anna.compact(merge_below=10**6)
    places = index.anna.places_now(mine)
    for old, new in zip(mine, places, strict=True):
        index.rows[new] = index.rows.pop(old)
    (merged,) = index.anna.batches()
    index.sizes[merged.id] = merged.rows
    assert index.clusters.slots(merged.rows)
    index.check(QUERIES, 12)


def test_rows_without_clusters_come_some_at_a_time(index, monkeypatch):
    """Runs that are put together, cut, and have deleted rows."""
    computed, honest = [], CpuBackend.load

    def loaded(self, *given):
        rows = honest(self, *given)
        real = rows.scores
        rows.scores = lambda query, runs, *rest: computed.append(runs) or real(query, runs, *rest)
        return rows

    monkeypatch.setattr(CpuBackend, "load", loaded)
    monkeypatch.setattr(probed_module, "OTHER_WORDS", 7 * len(QUERIES))
    outside = [i for i in index.rows if i[1] >= 16 * index.clusters.slots(index.sizes[i[0]])]
    for owner in (index.anna, index.berta):
        mine = {batch.id for batch in owner.batches()}
        gone = [i for i in outside if i[0] in mine][1::4]
        owner.delete(gone)
        for one in gone:
            del index.rows[one]
    index.check(QUERIES, 10)
    assert max(sum(stop - start for start, stop in runs) for runs in computed) == 7 and max(map(len, computed)) > 1
    assert len(computed) > len(outside) // 7


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("cosine", {"ring_bits": 16, "bits": 5, "query_bits": 5}),
        ("cosine", {"ring_bits": 64}),
        ("l2", {"query_bits": 9}),
        ("l2", {"weights": (1, 3) * (DIM // 2)}),
        ("hamming", {}),
        ("l1", {"levels": 4}),
    ],
)
def test_metrics(tmp_path, metric, more):
    encoding = mipp.Encoding(metric, DIM, **{"bits": 6, "query_bits": 6} | more if metric == "l2" else more)
    high = {"l1": 4, "hamming": 2}.get(metric)
    rng = np.random.default_rng(3)
    x = rng.integers(0, high, (250, DIM)) if high else np.rint(6 * features(250, 1))
    clusters = Clusters.fit(encoding, x[:150], 8, 2, least=4)
    with mipp.Deployment.create(tmp_path / "d", encoding, clusters=clusters, threads=1) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        made_by = Index.__new__(Index)
        made_by.encoding, made_by.clusters, made_by.user = encoding, clusters, user
        ids = owner.add_vectors(x[:240])
        made_by.rows, made_by.sizes = dict(zip(ids, x, strict=False)), {ids[0][0]: 240}
        owner.grant(user, rankings=BOTH)
        owner.delete([ids[5]])
        del made_by.rows[ids[5]]
        made_by.check(x[240:], 15)


def test_three_clouds(tmp_path, encoding):
    with made("embedded", tmp_path, encoding, clouds=3, **options(encoding)) as deployment:
        index = Index(deployment)
        index.check(QUERIES[:1], 5)


def test_network(tmp_path, encoding):
    with made("network", tmp_path, encoding, **options(encoding)) as deployment:
        index = Index(deployment)
        index.check(QUERIES[:2], 5)
        assert deployment.config.clusters == options(encoding)["clusters"]


def test_a_stream_goes_on(index, tmp_path):
    x = features(500, 8)
    path = tmp_path / "x.npy"
    np.save(path, x)
    report = index.anna.add_stream(path)
    ids = [i for _, i in report.added]
    assert len(set(ids)) == 500 and report.added[7] == (f"{path}:7", ids[7]) and list(report.added.ids) == ids
    assert list(report.added.ids[3:40]) == ids[3:40] and ids[5] in report.added.ids[5:9]
    assert ids[5] not in report.added.ids[6:] and repr(report.added.ids) == "RowIds(500 rows of 1 batches)"
    numbers, got = index.anna.rows_of(ids[0][0])
    places = {int(n): row for n, row in zip(numbers, got, strict=True)}
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert np.abs(np.array([places[row] for _, row in ids]) - unit).max() < 0.01
    # nothing is there twice, however often it is added
    again = index.anna.add_stream(path)
    assert again.skipped == 500 and not again.added
    index.rows |= dict(zip(ids, x, strict=True))
    index.sizes[ids[0][0]] = 500
    index.check(QUERIES, 10)


def test_records_and_images_follow_their_rows(tmp_path, encoding):
    with made("embedded", tmp_path, encoding, preview_size=1024, **options(encoding)) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        x = features(120, 2)
        ids = owner.add_vectors(x, [(f"{n}.png", bytes([n]), {"caption": f"number {n}"}) for n in range(120)])
        assert [row for _, row in ids] != list(range(120))
        owner.grant(user, rankings=BOTH)
        hits = user.search(x[17], 1, probe=True).hits
        assert (hits[0].batch, hits[0].row) == ids[17]
        assert user.preview(hits)[0].caption == "number 17" and user.fetch(hits)[0].content == bytes([17])
        owner.annotate({ids[17]: {"caption": "another"}})
        assert user.preview(user.search(x[17], 1, probe=True).hits)[0].caption == "another"
        # small batches become one with clusters: names, images and lasting ids stay with their rows
        more = features(60, 3)
        small = [
            owner.add_vectors(more[a : a + 20], [(f"m{n}", bytes([n])) for n in range(a, a + 20)]) for a in (0, 20, 40)
        ]
        owner.compact(merge_below=10**6)
        assert len(owner.batches()) == 1
        for n in (3, 33, 59):
            hit = user.search(more[n], 1, probe=True).hits[0]
            assert owner.places_now([small[n // 20][n % 20]]) == [(hit.batch, hit.row)]
            assert user.preview([hit])[0].path == f"m{n}" and user.fetch([hit])[0].content == bytes([n])
            assert user.fetch([hit], private=False)[0].content == bytes([n])
        assert owner.audit().ok


def test_image_files_lie_in_clusters(tmp_path):
    """A chunk of files that is large enough is laid out, as servers take it to be; records and images go along."""
    encoding = descriptor_encoding("csd64", server_ranking=True)
    for n in range(24):
        pixels = np.kron(np.random.default_rng(n).integers(0, 255, (3, 3, 3), np.uint8), np.ones((11, 11, 1), np.uint8))
        Image.fromarray(pixels).save(tmp_path / f"{n:02d}.png")
    files = sorted(tmp_path.glob("*.png"))
    descriptor = mipp.features.get("csd64")
    x = descriptor.embed(mipp.features.extract([f.read_bytes() for f in files], descriptor).values)
    clusters = Clusters.fit(encoding, x, 4, 2, least=3)
    given = {"descriptor": "csd64", "clusters": clusters, "preview_size": 1024, "threads": 1}
    with mipp.Deployment.create(tmp_path / "d", encoding, **given) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        report = owner.add_images(files)
        assert [path for path, _ in report.added] == [str(path) for path in files]
        ids = [image for _, image in report.added]
        assert [row for _, row in ids] != sorted(row for _, row in ids)
        owner.grant(user, rankings=BOTH)
        for query, path, image in zip(x, files, ids, strict=True):
            (hit,) = user.search(query, 1, probe=True).hits
            near = user.search(query, 1).hits[0]
            assert (hit.batch, hit.row) == image and hit.score == near.score
            assert user.fetch([hit])[0].content == path.read_bytes()
        assert [record.path for record in owner.records(ids)] == [path.name for path in files]
        assert owner.add_images(files).skipped == 24
    # also as they are copied from another index
    with (
        mipp.Deployment.create(tmp_path / "old", encoding, descriptor="csd64", threads=1) as old,
        mipp.Deployment.create(tmp_path / "new", encoding, **given) as deployment,
    ):
        source, target, user = old.create_owner("o"), deployment.create_owner("o"), deployment.create_user("u")
        source.add_images(files)
        assert reencode(source, target, workers=1).added == 24 and reencode(source, target, workers=1).added == 0
        target.grant(user, rankings=BOTH)
        for query, path in zip(x, files, strict=True):
            hits = user.search(query, 1, probe=True).hits
            assert user.fetch(hits)[0].content == path.read_bytes()


def test_an_index_made_of_another_one(tmp_path, encoding):
    x = features(150, 4)
    with (
        made("embedded", tmp_path / "old", encoding) as old,
        made("embedded", tmp_path / "new", encoding, **options(encoding)) as new,
    ):
        source, target, user = old.create_owner("o"), new.create_owner("o"), new.create_user("u")
        source.add_vectors(x)
        assert reencode(source, target, workers=1).added == 150
        assert reencode(source, target, workers=1).added == 0
        target.grant(user, rankings=BOTH)
        index = Index.__new__(Index)
        index.encoding, index.clusters, index.user = encoding, new.config.clusters, user
        (batch,) = target.batches()
        numbers, stored = target.rows_of(batch.id)
        index.rows = {(batch.id, int(n)): row for n, row in zip(numbers, stored, strict=True)}
        index.sizes = {batch.id: batch.rows}
        index.check(QUERIES, 9)
        # the rows lie by their clusters
        order = index.clusters.order(encoding, encoding.encode_rows(x))
        assert np.abs(stored - (x / np.linalg.norm(x, axis=1, keepdims=True))[order]).max() < 0.01


def test_six_times_fewer_bytes(tmp_path):
    """The rule that clusters were built by: 1M rows, 512 clusters, 64 groups, the user included."""
    encoding = mipp.Encoding("cosine", 128)
    clusters = Clusters.of(encoding, np.random.default_rng(0).normal(size=(512, 128)), 64)
    with mipp.Deployment.create(tmp_path / "d", encoding, clusters=clusters, threads=1) as deployment:
        scheme = deployment.create_user("u").scheme
        covered = ProbedRows(clusters, [131072] * 7 + [82496], np.empty(0, np.int64))
        costs = scheme.cost(10**6, 8, 10, "server", 1, 0), scheme.probe_cost(10**6, 8, 10, 1, covered)
        sent = [sum(c["servers"]["bytes"].values()) + 2 * c["user"]["proof"] + 3 * c["user"]["sent"] for c in costs]
        assert sent[0] > 6 * sent[1]


def test_cost(index):
    exact, probed = index.user.cost(5), index.user.cost(5, probe=True)
    assert probed["user"]["proof"] > exact["user"]["proof"] and probed["images"] == exact["images"]
    assert probed["servers"]["comparisons"] < exact["servers"]["comparisons"]
    with pytest.raises(ParameterError, match="is sure to cover"):
        index.user.cost(index.user.index().total, probe=True)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refused(index, tmp_path, encoding):
    user = index.user
    with pytest.raises(ParameterError, match="ranked by the servers"):
        user.search(QUERIES[0], 3, ranking="user", probe=True)
    with pytest.raises(ParameterError, match="is sure to cover"):
        user.search(QUERIES[0], 200, probe=True)
    assert len(user.search(QUERIES[0], probe=True).hits) == 10
    index.anna.grant(user, rankings=("user",))
    index.berta.grant(user, rankings=("user",))
    with pytest.raises(AccessDeniedError, match="does not allow ranking 'probe'"):
        user.search(QUERIES[0], 3, owners=["anna"], probe=True)
    with mipp.Deployment.create(tmp_path / "plain", encoding, threads=1) as plain:
        other = plain.create_user("u")
        with pytest.raises(ParameterError, match="no clusters"):
            other.search(QUERIES[0], 3, probe=True)
    with pytest.raises(DTypeError):
        mipp.Deployment.create(tmp_path / "e", encoding, clusters="many")
    with pytest.raises(ParameterError, match="servers rank"):
        mipp.Deployment.create(tmp_path / "f", encoding, rankings=("user",), **options(encoding))
    with pytest.raises(ParameterError, match="servers rank"):
        mipp.Deployment.create(tmp_path / "g", encoding, scheme="paillier", **options(encoding))
    with pytest.raises(ParameterError, match="servers rank"):
        mipp.Deployment.create(tmp_path / "h", encoding, clouds=1, **options(encoding))


def test_many_queries_go_in_parts(index, monkeypatch):
    """Each part with its own choices; and a server refuses more than its share of memory."""
    with monkeypatch.context() as patch:
        patch.setattr(shares_module, "probe_memory", lambda _, queries, *__: queries * (MAX_RANKED_BYTES // 2))
        assert index.user.scheme.portion(100, "server", 3, choice=16) == 2
        index.check(features(5, 70), 3)
        patch.setattr(type(index.user.scheme), "portion", lambda *_, **__: 3)
        with pytest.raises(LimitError, match="send fewer queries together"):
            index.user.search_batch(QUERIES, 3, probe=True)


def test_a_lost_journal(index, tmp_path):
    """Batches are known by their content, as it is stored: nothing is added twice."""
    path = tmp_path / "x.npy"
    np.save(path, features(300, 8))
    assert len(index.anna.add_stream(path).added) == 300
    journals = [p for p in (tmp_path / "deployment").rglob("*journal*") if p.is_file()]
    assert journals
    with reopened(index.deployment) as between:
        for file in journals:
            file.unlink(missing_ok=True)
        report = between.owner("anna").add_stream(path)
        assert report.skipped == 300 and not report.added


def test_nothing_live_in_clusters(index):
    batch = index.anna.batches()[0].id
    for owner in (index.anna, index.berta):
        mine = {b.id for b in owner.batches()}
        owner.delete([i for i in index.rows if i[0] in mine and i != (batch, 0)])
    with pytest.raises(ParameterError, match="sure to cover no row"):
        index.user.search(QUERIES[0], probe=True)
    assert index.user.search(QUERIES[0]).hits[0].row == 0


def test_quota(index):
    index.anna.grant(index.user, rankings=BOTH, quota=3)
    index.user.search_batch(QUERIES[:2], 3, probe=True, owners=["anna"])
    index.user.search(QUERIES[0], 3, probe=True, owners=["anna"])
    with pytest.raises(AccessDeniedError):
        index.user.search(QUERIES[0], 3, probe=True, owners=["anna"])


@pytest.mark.parametrize("lie", ["none", "two", "two halves"])
def test_a_choice_that_is_none_is_refused(index, monkeypatch, lie):
    """The user's program lies: nothing is opened, and it is counted."""
    honest = query_module.choice_bits

    def lying(chosen, groups, size):
        bits = honest(chosen, groups, size).astype(np.uint64)
        if lie == "none":
            bits[:, :size] = 0
        elif lie == "two":
            bits[:, :size] = 1
        else:
            bits[0, :2] = (1 << 31) + 1, 1 << 31
            bits[0, 2:size] = 0
        return bits

    monkeypatch.setattr(query_module, "choice_bits", lying)
    monkeypatch.setattr("mipp.mpc.query_proof._bits", _wide(), raising=True)
    with pytest.raises(OutOfRangeError):
        index.user.search(QUERIES[0], 3, probe=True)
    monkeypatch.undo()
    index.check(QUERIES[:1], 3)


def _wide():
    """Bits of the proof as words, so that a lie of more than a bit can follow them."""
    from mipp.mpc import query_proof

    honest = query_proof._bits
    return lambda *given: honest(*given).astype(np.uint64)


def test_rows_are_counted_once_and_last(index, monkeypatch):
    """Deleted rows are counted by cluster: not for a proof that is none, and once for a state of the index."""
    index.anna.delete([next(iter(index.rows))])
    counted, honest = [], plan_module.ProbedRows
    monkeypatch.setattr(plan_module, "ProbedRows", lambda *given: counted.append(1) or honest(*given))
    with monkeypatch.context() as patch:
        patch.setattr(query_module, "commitment", lambda *_: bytes(32))
        with pytest.raises(AuthenticationError):
            index.user.search(QUERIES[0], 3, probe=True)
    assert not counted
    for query in QUERIES:
        index.user.search(query, 3, probe=True)
    assert len(counted) == 3  # one for each server


def test_another_layout_is_refused(index):
    """Whose description has other centroids would get rows that it does not mean."""
    other = Clusters.fit(index.encoding, features(300, 51), 16, 4, least=3)
    config = dataclasses.replace(index.user.config, clusters=other)
    index.user.config = config
    for querier in index.user._queriers.values():
        querier.config = config
    with pytest.raises(ParameterError, match="another index"):
        index.user.search(QUERIES[0], 3, probe=True)


def test_after_reopening(tmp_path, encoding):
    with made("embedded", tmp_path, encoding, **options(encoding)) as deployment:
        Index(deployment)
        with reopened(deployment) as again:
            assert again.config.clusters == options(encoding)["clusters"]
            assert len(again.user("ulla").search(QUERIES[0], 4, probe=True).hits) == 4


def test_rows_that_were_compacted_away_leave_gaps():
    """At a cloud: products of whole slots, whether deleted rows are still in its files or not."""
    rng = np.random.default_rng(1)
    params = mipp.Params()
    words = rng.integers(0, 1 << 32, (100, 8), np.uint32)
    dead = np.array([3, 17, 18, 59])
    gone = words[10:70].copy()
    gone[dead] = 0
    share = rng.integers(0, 1 << 32, (2, 3 * 8), np.uint32)
    expected = (gone.reshape(20, -1).astype(np.uint64) @ share.T.astype(np.uint64)).astype(np.uint32).T
    kept = np.setdiff1d(np.arange(100), [13, 27, 28, 40 + 60])  # 69, the last one, is still there
    for segment in (Segment(words, 0), Segment(words[kept], 0, kept)):
        after = Segment(words[:7].copy(), 100)
        rows = CpuBackend(params, 1).load([segment, after], 107)
        out = np.empty((2, 20), np.uint32)
        rows.wide(Slots(10, 3, 20, 0, 20, dead), share[None], out)
        assert np.array_equal(out, expected)


def test_a_range_without_room(tmp_path, encoding, monkeypatch):
    honest = description.query_rule

    def full(*given):
        rule = honest(*given)
        return dataclasses.replace(rule, low=0, high=(1 << 31) - 1)

    monkeypatch.setattr(description, "query_rule", full)
    with pytest.raises(ParameterError, match="no room"):
        mipp.Deployment.create(tmp_path / "d", encoding, **options(encoding))


def test_batches_too_small(tmp_path, encoding):
    """Without a batch of clusters the search is that of all rows."""
    with made("embedded", tmp_path, encoding, **options(encoding, least=500)) as deployment:
        index = Index(deployment)
        index.check(QUERIES[:1], 40)
        assert index.user.search(QUERIES[0], 9, probe=True).clustered == 0
        assert index.user.search(QUERIES[0], 9, probe=True).hits == index.user.search(QUERIES[0], 9).hits


def test_ranking_names_agree():
    assert probed_module.PROBE == queries_module.PROBE == "probe"


def test_a_search_without_k_and_its_cost(tmp_path):
    """Both look for as many as are sure to be covered; where a cluster lost all its rows that is none."""
    encoding = mipp.Encoding("cosine", DIM)
    clusters = Clusters.of(encoding, features(4, 7), 1, least=2)
    with mipp.Deployment.create(tmp_path / "d", encoding, clusters=clusters, threads=1) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.grant(user, rankings=BOTH)
        owner.add_vectors(features(24, 8))
        query = features(1, 9)[0]
        assert len(user.search(query, probe=True).hits) == 6 and user.cost(probe=True)["clustered"] == 24
        owner.delete([(owner.batches()[0].id, 4 * slot) for slot in range(6)])
        for ask in (user.cost, lambda probe: user.search(query, probe=probe)):
            with pytest.raises(ParameterError, match="sure to cover no row"):
                ask(probe=True)
    probe = query_module.Probe(ProbedRows(clusters, [24], np.zeros(0, np.int64)), np.array([[3]]))
    assert repr(probe) == "Probe(1 queries, 6 scores)"
