"""Fixtures for all rooms: small deployments on data made by formula."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp import cpu
from mipp.crypto import signing
from mipp.crypto.certificates import make_tls
from mipp.deployment import transport
from mipp.deployment.servers import ServerSecrets
from mipp.rpc import address_exchange
from mipp.rpc.addresses import Address, check_url
from mipp.rpc.cards import ServerCard, signed_card
from mipp.schemes.shares import SharesScheme
from mipp.store.ledger import Ledger
from tests.network import Connected, Network

DIM = 12
# what most tests use; an owner grants "server" alone unless it names others
ALL_RANKINGS = ("server", "user", "threshold")


#: tests of roles that the test command runs over a network, too
_QUICK = ("tests/client/test_search.py::", "tests/server/test_grants.py::")
#: files with very many variants of few tests: one in so many of each test runs by default, all in CI
_SAMPLED = {
    "tests/kernels/test_squares.py": 8, "tests/kernels/test_galois.py": 4, "tests/kernels/test_bigint.py": 3,
    "tests/test_hostile_numbers.py": 4, "tests/test_array_kinds.py": 4, "tests/test_encoding.py": 3,
    "tests/store/test_restore.py": 4, "tests/compat/test_faiss_again.py": 4, "tests/mpc/test_faults.py": 4,
    "tests/benchmarks/test_compare.py": 3, "tests/adversary/test_ranges.py": 3, "tests/mpc/test_query_proof.py": 3,
    "tests/compat/test_phe_sizes.py": 4, "tests/client/test_blocks.py": 3,
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Over a network one variant of a test runs: which values it is given is the same there. The others are for nights.

    Those of most rooms are slow tests, which CI runs.
    """
    seen, counts = set(), Counter[str]()
    for item in items:
        given = getattr(item, "callspec", None)
        every = _SAMPLED.get(item.nodeid.partition("::")[0])
        if every and given is not None:
            test = item.nodeid.partition("[")[0]
            if counts[test] % every:
                item.add_marker(pytest.mark.slow)
                item.add_marker(pytest.mark.variant)
            counts[test] += 1
        if given is not None and "network" in (given.params.get("deployment"), given.params.get("world")):
            function, _, _ = item.nodeid.partition("[")
            if function in seen:
                item.add_marker(pytest.mark.nightly)
            elif not function.startswith(_QUICK):
                item.add_marker(pytest.mark.slow)
            seen.add(function)


@pytest.fixture
def datasets() -> Path:
    """Folder of real data beside the project; tests that need it are skipped without."""
    folder = Path(os.environ.get("MIPP_DATASETS", Path(__file__).parents[2] / "shared" / "datasets"))
    if not folder.is_dir():
        pytest.skip("no folder of real data here")
    return folder


def vectors(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """(rows, dim) float32 vectors made by formula."""
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


@contextlib.contextmanager
def finite_sharing() -> Iterator[None]:
    """Deployments that are made inside have the form of sharing that earlier versions gave them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SharesScheme, "params", lambda self, bits, clouds=None: mipp.Params(3, 1, bits, self.name, "finite")
        )
        yield


@pytest.fixture
def encoding() -> mipp.Encoding:
    return mipp.Encoding("cosine", DIM)


KINDS = ("embedded", "network")


@contextlib.contextmanager
def made(kind, folder, encoding, **options):
    """A new deployment of one of the two kinds."""
    if kind == "embedded":
        with mipp.Deployment.create(folder / "deployment", encoding, threads=1, **options) as deployment:
            yield deployment
        return
    network = Network(folder / "network", encoding, **options)
    try:
        with network.start().ready().connect() as deployment:
            yield deployment
    finally:
        network.stop()


@pytest.fixture(params=KINDS)
def deployment(request, tmp_path, encoding):
    """Both kinds of deployment: no behaviour of roles is of one kind alone."""
    with made(request.param, tmp_path, encoding) as deployment:
        yield deployment


@pytest.fixture
def network(tmp_path, encoding):
    """Servers that run in this process, when they are started."""
    made = Network(tmp_path, encoding)
    yield made
    made.stop()


@pytest.fixture
def impatient(monkeypatch):
    """Who failed is asked about its address again at once."""
    monkeypatch.setattr(address_exchange, "AGAIN", 0.0)
    monkeypatch.setattr(transport, "MISSING", 0.1)


#: for tests of ``deployment`` or ``world`` about what only an embedded deployment has
embedded_only = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)


def server_card(role: str = "cloud", name: str = "north", url: str = "") -> ServerCard:
    """A card of a server with new keys."""
    secrets, url = ServerSecrets.new(), url or f"https://{name}.example:7443"
    public, tls = secrets.public(), make_tls(name, check_url(url)[1])
    key = signing.private_key(secrets.sign)
    return signed_card(role, Address(name, url, tls.certificate), public.box, public.pair, key)


def three_cards() -> list[ServerCard]:
    return [server_card(), server_card(name="south"), server_card("key-centre", "mid")]


# What tests of roles do to a deployment beside using it, for both kinds.


def over_network(deployment) -> bool:
    return isinstance(deployment, Connected)


def home(deployment, server: int) -> Path:
    """Folder of a server, also while it is shut."""
    if over_network(deployment):
        return deployment.network.home(server)
    return deployment.folder / "servers" / str(server)


def again(deployment):
    """The same folder opened once more, as another process does; over a network, another client of the same servers."""
    if over_network(deployment):
        return deployment.network.connect()
    return mipp.Deployment.open(deployment.folder, threads=1)


def shut(deployment) -> None:
    """Close it, and end its servers."""
    deployment.close()
    if over_network(deployment):
        deployment.network.stop()


def reopened(deployment):
    """Open what was shut; servers over a network start again."""
    if over_network(deployment):
        deployment.network.start().ready()
    return again(deployment)


def invited(deployment, kind: str, name: str) -> bytes:
    """What a registration needs beside the keys."""
    return deployment.network.invitation(kind, name).to_bytes() if over_network(deployment) else b""


def answer(deployment, server: int, handler) -> None:
    """Have a server answer clients by this function, of the frames of a request."""
    if over_network(deployment):
        deployment.servers[server].handle = lambda frames, arrived=None: handler(frames)
    else:
        deployment.channel._handlers[server] = handler


OWNERS = ("anna", "berta")


class World:
    """Two owners with 30 rows each (half with images), a user granted by both, the plaintext beside it.

    ``plain``: what a copy of a deployment holds that was filled so before; None fills this one.
    """

    def __init__(self, deployment: mipp.Deployment, plain: dict[tuple[bytes, int], np.ndarray] | None = None) -> None:
        self.deployment = deployment
        if plain is not None:
            self.owners, self.user, self.plain = [deployment.owner(n) for n in OWNERS], deployment.user("ulla"), plain
            return
        self.owners = [deployment.create_owner(name) for name in OWNERS]
        self.user = deployment.create_user("ulla")
        self.plain = {}
        for number, owner in enumerate(self.owners):
            x = vectors(30, seed=number)
            images = [(f"{owner.name}{i}.png", bytes([number, i]) * 50) for i in range(15)]
            ids = owner.add_vectors(x[:15], images) + owner.add_vectors(x[15:])
            self.plain |= dict(zip(ids, x, strict=True))
            owner.grant(self.user.id, rankings=ALL_RANKINGS if deployment.config.params.n == 3 else ("user",))

    def home(self, server: int) -> Path:
        return home(self.deployment, server)

    def reopen(self) -> None:
        """Everything ends and begins anew: servers, owners, user."""
        shut(self.deployment)
        self.deployment = reopened(self.deployment)
        self.user = self.deployment.user("ulla")
        self.owners = [self.deployment.owner(owner.name) for owner in self.owners]

    def expected(self, query: np.ndarray, k: int, user: mipp.User | None = None) -> list[tuple[tuple[bytes, int], int]]:
        """Hits by numpy on the quantised plaintext: (id, score), ties by smaller row number."""
        encoding = self.deployment.config.encoding
        ids = (user or self.user).index().ids()
        rows = encoding.encode_rows(np.array([self.plain[i] for i in ids])).astype(np.int64)
        scores = rows @ encoding.encode_queries(query[None])[0].astype(np.int64)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(ids[b], int(scores[b])) for b in best]

    def check(
        self, k: int = 10, user: mipp.User | None = None, seed: int = 7, ranking: str = "user"
    ) -> mipp.SearchResult:
        """Search and compare with the plaintext, row for row."""
        query = vectors(1, seed)[0]
        result = (user or self.user).search(query, k, ranking=ranking)
        assert [((h.batch, h.row), h.score) for h in result.hits] == self.expected(query, k, user)
        return result


@pytest.fixture
def shared_ids(monkeypatch):
    """Two owners may have batches of one id, as in deployments from before servers refused that."""
    monkeypatch.setattr(Ledger, "_taken", lambda *_: False)


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """Makes a world of a deployment. An embedded one is replaced by a copy of one of the same encoding that was filled
    once: that takes a twentieth of the time."""
    kept: dict[bytes, tuple[Path, World]] = {}

    def world(deployment: mipp.Deployment) -> World:
        if over_network(deployment):
            return World(deployment)
        encoding = deployment.config.encoding
        if encoding.hash not in kept:
            folder = tmp_path_factory.mktemp("filled")
            with made("embedded", folder, encoding) as first:
                kept[encoding.hash] = folder / "deployment", World(first)
        folder, before = kept[encoding.hash]
        deployment.close()
        shutil.rmtree(deployment.folder)
        shutil.copytree(folder, deployment.folder)
        return World(mipp.Deployment.open(deployment.folder, threads=1), dict(before.plain))

    return world


@pytest.fixture
def world(deployment, filled):
    world = filled(deployment)
    yield world
    world.deployment.close()


@pytest.fixture(params=["portable", "avx512"])
def bigint_tier(request):
    """Every tier of the big-integer kernels as itself; skipped where the machine lacks it."""
    if request.param not in cpu.levels():
        pytest.skip(f"this machine lacks {request.param}")
    with cpu.force(request.param):
        yield request.param
