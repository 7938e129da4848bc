"""User.search in an embedded deployment against the work that it cannot avoid, and many small batches against one.

``pytest benchmarks/end_to_end/bench_search.py``; ``MIPP_BENCH_ROWS`` sets the number of rows (1,000,000), of which the
small batches have ten each, ``MIPP_BENCH_ROUNDS`` the rounds. A batch of queries by rows against all score shares at
once holds 12 bytes a query and row in the latter. Limits: a search of one batch takes at most 1.3 times the sum of its
three products and zero shares; many batches take at most 3 times as long as one.
"""

import os

import numpy as np
import pytest

import mipp
from benchmarks.common import seconds
from benchmarks.end_to_end.bulk import add_small_batches
from benchmarks.end_to_end.timing import DIM, ROUNDS, ROWS, compare, milliseconds
from mipp import cpu
from mipp.backends import CpuBackend
from mipp.server.cloud import _segments
from mipp.server.plan import Plan
from mipp.sharing import add_zero_share, batch_schedules, key_centre_product, query_shares

SMALL = 10
K = 10


class Collection:
    """One owner's rows in a deployment of their own, and a user who may search them."""

    def __init__(self, folder, vectors, small):
        encoding = mipp.Encoding.fit("ip", vectors[:10_000], ring_bits=32)
        self.deployment = mipp.Deployment.create(folder, encoding)
        owner = self.deployment.create_owner("owner")
        self.user = self.deployment.create_user("user")
        owner.grant(self.user.id, rankings=["server", "user"])
        if small:
            add_small_batches(self.deployment, owner, vectors, SMALL)
        else:
            owner.add_vectors(vectors)
        self.query = vectors[len(vectors) // 2]
        self.search(None)  # checks and maps the files, makes the key schedules
        self.products = Products(self.deployment, owner, encoding.encode_queries(self.query))

    def search(self, threads, ranking="user"):
        for party in (*self.deployment.servers.values(), self.user):
            party.threads = threads
        (best, *_) = self.user.search(self.query, K, ranking=ranking).hits
        assert best.score > 0


class Products:
    """The products of the three servers and their zero shares alone, on the files that a search reads."""

    def __init__(self, deployment, owner, query):
        self.params = deployment.config.params
        stores = {i: s.store for i, s in deployment.servers.items()}
        self.plans = {i: Plan([store.view(owner.id)], store.view(owner.id).ids) for i, store in stores.items()}
        self.columns = query_shares(query, self.params)
        (key_centre,) = self.params.key_centres
        view, key = stores[key_centre].view(owner.id), owner.keys.server_key(key_centre)
        nonces, dims, rows = zip(*[(b.id, b.dim, b.rows) for b in view.batches], strict=True)
        self.schedules = batch_schedules(key, nonces, dims, rows, self.params.ring_bits)
        total = self.plans[1].total
        self.out = {i: np.zeros((1, total), self.params.dtype) for i in stores}
        self.pairs = {i: os.urandom(32) for i in stores}
        self.seconds = {"cloud": [], "key centre": [], "zero shares": []}

    def cloud(self, i, threads):
        rows = CpuBackend(self.params, threads).load(_segments(self.plans[i]), self.plans[i].total)
        rows.product(self.columns[i], 0, self.plans[i].total, self.out[i])

    def key_centre(self, i, threads):
        (part,) = self.plans[i].parts
        key_centre_product(self.schedules, part.run, self.columns[i], self.out[i], threads=threads)

    def zero_shares(self, threads):
        header, servers = os.urandom(32), self.params.check_servers(tuple(self.plans))
        for i, plan in self.plans.items():
            add_zero_share(self.out[i], i, servers, self.pairs, header, plan.nonces, plan.rows, threads=threads)

    def run(self, threads):
        """Seconds of all of it."""
        spent = {
            "cloud": sum(seconds(lambda i=i: self.cloud(i, threads)) for i in self.params.clouds),
            "key centre": sum(seconds(lambda i=i: self.key_centre(i, threads)) for i in self.params.key_centres),
            "zero shares": seconds(lambda: self.zero_shares(threads)),
        }
        for name, value in spent.items():
            self.seconds[name].append(value)
        return sum(spent.values())


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def one_batch(vectors, tmp_path_factory):
    made = Collection(tmp_path_factory.mktemp("one") / "deployment", vectors, small=False)
    yield made
    made.deployment.close()


@pytest.fixture(scope="module")
def small_batches(vectors, tmp_path_factory):
    made = Collection(tmp_path_factory.mktemp("small") / "deployment", vectors, small=True)
    yield made
    made.deployment.close()


def describe(benchmark, name, threads, **facts):
    benchmark.group = f"{name} rows={ROWS} dim={DIM} k=32"
    benchmark.extra_info.update(
        tier=cpu.active()["ring"], threads=threads or cpu.threads(), rows=ROWS, dim=DIM, ring_bits=32, **facts
    )


def against_products(benchmark, made, threads):
    for values in made.products.seconds.values():
        values.clear()
    facts = compare(benchmark, lambda: made.search(threads), lambda: made.products.run(threads))
    parts = {f"{name}_ms": milliseconds(values[1:]) for name, values in made.products.seconds.items()}
    return facts | parts


@pytest.mark.parametrize("threads", [1, None], ids=["1-thread", "all-threads"])
def bench_search_one_batch(benchmark, one_batch, threads):
    facts = against_products(benchmark, one_batch, threads)
    describe(benchmark, "search / its products", threads, batches=1, **facts, limit=1.3)


@pytest.mark.parametrize("threads", [1, None], ids=["1-thread", "all-threads"])
def bench_search_small_batches(benchmark, small_batches, threads):
    facts = against_products(benchmark, small_batches, threads)
    describe(benchmark, "search / its products", threads, batches=ROWS // SMALL, **facts)


@pytest.mark.parametrize("threads", [1, None], ids=["1-thread", "all-threads"])
def bench_small_batches_to_one(benchmark, one_batch, small_batches, threads):
    facts = compare(
        benchmark, lambda: small_batches.search(threads), lambda: seconds(lambda: one_batch.search(threads))
    )
    describe(benchmark, "small batches / one batch", threads, batches=ROWS // SMALL, **facts, limit=3)


@pytest.mark.parametrize("queries", [64, 256])
def bench_batch_by_rows(benchmark, one_batch, vectors, monkeypatch, queries):
    """A batch whose score shares come some rows at a time; beside it with all at once."""
    user, asked = one_batch.user, vectors[:queries]

    def whole():
        with monkeypatch.context() as patch:
            patch.setattr("mipp.schemes.shares.LEAST_ROWS", 1 << 62)
            return seconds(lambda: user.nearest(asked, K, ranking="user"))

    for party in (*one_batch.deployment.servers.values(), user):
        party.threads = None
    facts = compare(benchmark, lambda: user.nearest(asked, K, ranking="user"), whole, rounds=min(ROUNDS, 5))
    describe(benchmark, "batch by rows / at once", None, queries=queries, **facts)


def bench_search_ranked_by_the_servers(benchmark, one_batch):
    """The servers find the k nearest; beside it the same search ranked by the user."""
    facts = compare(
        benchmark, lambda: one_batch.search(None, "server"), lambda: seconds(lambda: one_batch.search(None))
    )
    describe(benchmark, "search ranked by the servers / by the user", None, batches=1, **facts)
