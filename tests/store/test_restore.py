"""A server's folder is replaced by a backup of an earlier moment: nothing acknowledged is lost or comes back."""

import contextlib
import itertools
import shutil
import sqlite3

import numpy as np
import pytest

import mipp
from mipp.deployment import embedded
from mipp.errors import AccessDeniedError, MippError, StoreError
from mipp.rpc.chain import Vote
from mipp.rpc.channel import kind_of_request
from mipp.server import settling
from mipp.store.catalog import NAME, Catalog
from tests.conftest import ALL_RANKINGS, DIM, vectors

QUERY = vectors(1, 99)[0]
SERVERS = (1, 2, 3)


class Past:
    """A deployment with a history, closed, and what every server's folder was after each step."""

    def __init__(self, folder):
        self.folder = folder
        self.steps: list[str] = []
        #: live rows now: (owner, batch, row) -> vector, and the image of those that have one
        self.live: dict[tuple[str, bytes, int], np.ndarray] = {}
        self.images: dict[tuple[str, bytes, int], bytes] = {}

    def backup(self, step, server):
        return self.folder.parent / "backups" / step / str(server)

    def note(self, step):
        """Copy all servers' folders, as an operator does while nothing runs."""
        self.steps.append(step)
        shutil.copytree(self.folder / "servers", self.folder.parent / "backups" / step)

    def add(self, deployment, owner, rows, seed, *, images=False):
        x = vectors(rows, seed)
        files = [(f"{owner}{seed}{i}", bytes([seed, i]) * 30) for i in range(rows)] if images else None
        ids = deployment.owner(owner).add_vectors(x, files)
        for i, (batch, row) in enumerate(ids):
            self.live[owner, batch, row] = x[i]
            if images:
                self.images[owner, batch, row] = files[i][1]
        return ids

    def delete(self, deployment, owner, ids):
        deployment.owner(owner).delete(ids)
        for batch, row in ids:
            del self.live[owner, batch, row]

    def merge(self, deployment, name):
        owner = deployment.owner(name)
        order = [b.id for b in owner.batches()]
        old = sorted((k for k in self.live if k[0] == name), key=lambda k: (order.index(k[1]), k[2]))
        owner.compact()
        (batch,) = owner.batches()
        for row, key in enumerate(old):
            self.live[name, batch.id, row] = self.live.pop(key)
            if key in self.images:
                self.images[name, batch.id, row] = self.images.pop(key)


def make(folder):
    """Every kind of change, with a backup after each."""
    past = Past(folder)
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1) as d:
        for name in ("ulla", "vera", "willi"):
            d.create_user(name)
    past.note("no owner")

    @contextlib.contextmanager
    def step(name):
        with mipp.Deployment.open(folder, threads=1) as d:
            yield d
        past.note(name)

    with step("owners") as d:
        for name in ("anna", "berta"):
            d.create_owner(name).grant(d.user_id("ulla"), rankings=ALL_RANKINGS)
        d.owner("berta").grant(d.user_id("willi"), rankings=ALL_RANKINGS)
    with step("upload") as d:
        first = past.add(d, "anna", 4, 1, images=True)
    with step("second upload") as d:
        past.add(d, "anna", 3, 2)
        past.add(d, "berta", 3, 3, images=True)
    with step("delete") as d:
        past.delete(d, "anna", [first[1]])
    with step("merge") as d:
        past.merge(d, "anna")
    with step("quota granted") as d:
        d.owner("berta").grant(d.user_id("vera"), rankings=ALL_RANKINGS, quota=3)
    with step("quota used") as d:
        for _ in range(2):
            d.user("vera").search(QUERY, 1, ranking="user", verify=False)
    with step("revoked") as d:
        d.owner("berta").revoke(d.user_id("willi"))
    with step("carla came") as d:
        carla = d.create_owner("carla")
        carla.add_vectors(vectors(2, 4))
        carla.grant(d.user_id("ulla"), rankings=ALL_RANKINGS)
    with step("carla went") as d:
        d.owner("carla").forget()
    with step("another carla") as d:
        (folder / "owners" / "carla.key").unlink()  # the name is free again, and somebody else takes it
        d.create_owner("carla").grant(d.user_id("ulla"), rankings=ALL_RANKINGS)
        past.add(d, "carla", 2, 5)
    with step("last upload") as d:
        past.add(d, "anna", 2, 6, images=True)
    return past


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    return make(tmp_path_factory.mktemp("restore") / "deployment")


STEPS = (
    "no owner", "owners", "upload", "second upload", "delete", "merge", "quota granted", "quota used", "revoked",
    "carla came", "carla went", "another carla", "last upload",
)  # fmt: skip


def put_back(past, folder, moments):
    """A copy of the deployment in which some servers' folders are those of earlier moments."""
    shutil.copytree(past.folder, folder)
    for server, step in moments.items():
        shutil.rmtree(folder / "servers" / str(server))
        shutil.copytree(past.backup(step, server), folder / "servers" / str(server))
    return folder


def batches_in(home):
    """Ids of the batches whose files are in a server's folder."""
    with contextlib.closing(sqlite3.connect(home / NAME)) as db:
        return {row[0] for row in db.execute("SELECT id FROM batches WHERE file<>''")}


def check(past, deployment, lacking):
    """All that was acknowledged is there, but for the batches that a backup lacks, which are named."""
    assert deployment.status()["servers_agree"]
    user = deployment.user("ulla")
    left_out = {bytes(x.batch) for x in user.index().left_out}
    assert left_out == lacking
    live = {k: v for k, v in past.live.items() if k[1] not in lacking}
    if not live:
        return
    result = user.search(QUERY, len(live), ranking="user")
    assert {bytes(x.batch) for x in result.left_out} == lacking
    encoding = deployment.config.encoding
    query = encoding.encode_queries(QUERY[None])[0].astype(np.int64)
    want = {k[1:]: int(encoding.encode_rows(v[None])[0].astype(np.int64) @ query) for k, v in live.items()}
    assert {(h.batch, h.row): h.score for h in result.hits} == want
    for hit in result.hits:
        for key in [k for k in past.images if k[1:] == (hit.batch, hit.row)]:
            assert user.fetch([hit], strict=True)[0].content == past.images[key]
    for problem in deployment.verify()["problems"]:
        assert "no file is here" in problem or "rows are missing" in problem, problem
    with pytest.raises(AccessDeniedError):
        deployment.user("willi").search(QUERY, 1, ranking="user", verify=False)


def go_on(past, deployment, lacking):
    """Owners work as before."""
    before = dict(past.live)
    try:
        for seed, name in ((31, "anna"), (32, "berta"), (33, "carla")):
            ids = past.add(deployment, name, 3, seed)
            past.delete(deployment, name, ids[:1])
        check(past, deployment, lacking)
        for name in ("anna", "berta"):
            deployment.owner(name).compact(merge_below=1)
        check(past, deployment, lacking)
    finally:
        past.live = before


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("server", SERVERS)
def test_one_server_is_restored(past, tmp_path, server, step):
    folder = put_back(past, tmp_path / "d", {server: step})
    now = batches_in(past.folder / "servers" / str(server))
    lacking = now - batches_in(past.backup(step, server))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        check(past, deployment, lacking)
        berta = {k[1] for k in past.live if k[0] == "berta"}
        if not berta & lacking:  # vera searches berta's rows alone
            vera = deployment.user("vera")
            vera.search(QUERY, 1, ranking="user", verify=False)
            with pytest.raises(AccessDeniedError, match="used up"):
                vera.search(QUERY, 1, ranking="user", verify=False)
        for one in deployment.servers.values():  # at the restored one, too
            assert sum(u[2] for u in one.store.used()) == (2 if berta & lacking else 3)
            forgotten = one.store.catalog.all("SELECT sealed FROM owners WHERE forget IS NOT NULL")
            assert forgotten == [(b"",)]
        go_on(past, deployment, lacking)
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]


@pytest.mark.parametrize("step", ["no owner", "upload", "merge", "quota used", "carla came", "carla went"])
@pytest.mark.parametrize("pair", list(itertools.combinations(SERVERS, 2)), ids=str)
def test_two_servers_are_restored(past, tmp_path, pair, step):
    """Also to different moments."""
    moments = {pair[0]: step, pair[1]: STEPS[STEPS.index(step) + 1]}
    folder = put_back(past, tmp_path / "d", moments)
    lacking = set()
    for server, moment in moments.items():
        lacking |= batches_in(past.folder / "servers" / str(server)) - batches_in(past.backup(moment, server))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        check(past, deployment, lacking)
        go_on(past, deployment, lacking)


@pytest.mark.parametrize("server", (2, 3))
def test_a_merge_brings_back_what_a_backup_lacked(past, tmp_path, server):
    folder = put_back(past, tmp_path / "d", {server: "upload"})
    before = dict(past.live), dict(past.images)
    try:
        with mipp.Deployment.open(folder, threads=1) as deployment:
            for name in ("anna", "berta", "carla"):
                past.add(deployment, name, 1, 35)
                past.merge(deployment, name)
            # packs of merged batches are not brought back: verify says so, and the other cloud still has them
            assert all("images of" in p or server == 3 for p in deployment.verify()["problems"])
            check(past, deployment, set())
    finally:
        past.live, past.images = before


@pytest.mark.parametrize("order", list(itertools.permutations(("merge", "carla went", "another carla"))), ids="-".join)
def test_all_servers_are_restored_to_different_moments(past, tmp_path, order):
    """The longest history of each owner is everybody's; a forget that one remembers holds."""
    moments = dict(zip(SERVERS, order, strict=True))
    folder = put_back(past, tmp_path / "d", moments)
    longest = past.backup("another carla", 1)
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        for one in deployment.servers.values():
            known = one.store.catalog.all("SELECT id, position, view, forget IS NULL FROM owners ORDER BY id")
            assert known == rows_in(longest, "SELECT id, position, view, forget IS NULL FROM owners ORDER BY id")
        with pytest.raises(AccessDeniedError):
            deployment.user("ulla").search(QUERY, 1, ranking="user", verify=False)
        for name in ("anna", "berta", "carla"):
            deployment.owner(name).grant(deployment.user_id("ulla"), rankings=ALL_RANKINGS)
            deployment.owner(name).add_vectors(vectors(1, 36))
        lacking = {bytes(x.batch) for x in deployment.user("ulla").index().left_out}
        files = [batches_in(past.backup(moments[i], i)) for i in (1, 2)]
        assert lacking == batches_in(longest) - set.intersection(*files)
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]


def rows_in(home, sql):
    with contextlib.closing(sqlite3.connect(home / NAME)) as db:
        return db.execute(sql).fetchall()


@pytest.mark.parametrize("step", STEPS[3:-1])
def test_all_servers_are_restored(past, tmp_path, step):
    """Nobody knows what was revoked or counted since: grants are suspended until their owners sign them again."""
    folder = put_back(past, tmp_path / "d", dict.fromkeys(SERVERS, step))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        for name in ("ulla", "vera", "willi"):
            with pytest.raises(AccessDeniedError):
                deployment.user(name).search(QUERY, 1, ranking="user", verify=False)
        anna, berta = deployment.owner("anna"), deployment.owner("berta")
        anna.grant(deployment.user_id("ulla"), rankings=ALL_RANKINGS)
        berta.grant(deployment.user_id("vera"), rankings=ALL_RANKINGS, quota=1)
        assert deployment.user("ulla").search(QUERY, 1, ranking="user", verify=False).hits
        vera = deployment.user("vera")
        vera.search(QUERY, 1, ranking="user", verify=False)
        with pytest.raises(AccessDeniedError):
            vera.search(QUERY, 1, ranking="user", verify=False)
        with pytest.raises(AccessDeniedError):
            deployment.user("willi").search(QUERY, 1, ranking="user", verify=False)
        rows = sum(b.live for b in anna.batches())
        anna.add_vectors(vectors(2, 41))
        assert deployment.user("ulla").index().total == rows + 2
    # and opened again it is no restore any more
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.user("ulla").index().total == rows + 2


def test_counts_and_revocations_stay_when_one_follows_all(past, tmp_path):
    """A server that comes back from before the others' epoch takes over grants and counts of it."""
    folder = put_back(past, tmp_path / "d", dict.fromkeys(SERVERS, "revoked"))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        berta = deployment.owner("berta")
        berta.grant(deployment.user_id("vera"), rankings=ALL_RANKINGS, quota=2)
        berta.grant(deployment.user_id("willi"), rankings=ALL_RANKINGS)
        deployment.user("vera").search(QUERY, 1, ranking="user", verify=False)
        berta.revoke(deployment.user_id("willi"))
    shutil.rmtree(folder / "servers/2")
    shutil.copytree(past.backup("revoked", 2), folder / "servers/2")
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert {sum(u[2] for u in s.store.used()) for s in deployment.servers.values()} == {1}
        vera = deployment.user("vera")
        vera.search(QUERY, 1, ranking="user", verify=False)
        with pytest.raises(AccessDeniedError, match="used up"):
            vera.search(QUERY, 1, ranking="user", verify=False)
        with pytest.raises(AccessDeniedError):
            deployment.user("willi").search(QUERY, 1, ranking="user", verify=False)


# --- a change was under way ---------------------------------------------------------------------------------------


class Stop(BaseException):
    """The process dies here."""


def interrupted(folder, change, server, kind):
    """Run a change of anna and stop before ``server`` gets its message ``kind``."""
    with mipp.Deployment.open(folder, threads=1) as deployment:
        owner = deployment.owner("anna")
        real = deployment.channel._request

        def request(to, frames):
            if to == server and kind_of_request(frames) == kind:
                raise Stop
            return real(to, frames)

        deployment.channel._request = request
        with pytest.raises(Stop):
            change(owner)


@pytest.mark.parametrize("restored", SERVERS)
@pytest.mark.parametrize(("server", "kind"), [(s, k) for k in ("CommitOp", "Certify") for s in SERVERS])
@pytest.mark.parametrize("step", ["merge", "last upload"])
def test_a_server_is_restored_while_a_change_is_under_way(past, tmp_path, restored, server, kind, step):
    """Some servers accepted the change, or show it already, and one of the three forgot that."""
    folder = put_back(past, tmp_path / "d", {})
    interrupted(folder, lambda owner: owner.add_vectors(vectors(3, 51)), server, kind)
    shutil.rmtree(folder / "servers" / str(restored))
    shutil.copytree(past.backup(step, restored), folder / "servers" / str(restored))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        user = deployment.user("ulla")
        lacking = {bytes(x.batch) for x in user.index().left_out}
        assert {k[1] for k in past.live} & lacking <= (
            batches_in(past.folder / "servers" / str(restored)) - batches_in(past.backup(step, restored))
        )
        anna = deployment.owner("anna")
        before = user.index().total
        anna.add_vectors(vectors(2, 52))
        assert user.index().total == before + 2
        for one in deployment.servers.values():
            assert one.store.changes.open() == []


@pytest.mark.parametrize("restored", SERVERS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_backup_is_ahead_of_the_others(past, tmp_path, restored, server):
    """A server shows a change, is backed up, and comes back from that while others only accepted the change."""
    folder = put_back(past, tmp_path / "d", {})
    interrupted(folder, lambda owner: owner.add_vectors(vectors(3, 51)), server, "Certify")
    saved = tmp_path / "saved"
    shutil.copytree(folder / "servers" / str(restored), saved)
    # something that only this server meets makes the backup old, then all stop
    with contextlib.closing(Catalog(folder / "servers" / str(restored), meta_of(saved))) as catalog:
        for _ in range(2):
            with catalog.transaction() as db:
                catalog.raise_counter(db)
        counter = catalog.counter("counter")
    note(folder, restored, counter)
    shutil.rmtree(folder / "servers" / str(restored))
    shutil.copytree(saved, folder / "servers" / str(restored))
    with mipp.Deployment.open(folder, threads=1) as deployment:
        check_whole(past, deployment)


def check_whole(past, deployment):
    assert deployment.status()["servers_agree"] and deployment.verify()["problems"] == []
    total = deployment.user("ulla").index().total
    assert total in (len(past.live), len(past.live) + 3)
    deployment.owner("anna").add_vectors(vectors(2, 52))
    assert deployment.user("ulla").index().total == total + 2


def meta_of(home):
    with contextlib.closing(sqlite3.connect(home / NAME)) as db:
        return {k: v for k, v in db.execute("SELECT name, value FROM meta") if k != "format"}


def note(folder, server, counter):
    witness = embedded.Witness(folder / "witness", 3)
    witness.note(server, counter)
    witness.close()


def test_a_later_backup_after_an_earlier_one(past, tmp_path):
    """A backup shows a change that all gave up meanwhile, because the server was restored to before it in between."""
    folder = put_back(past, tmp_path / "d", {})
    shutil.copytree(folder / "servers/1", tmp_path / "before")
    # server 1 shows the change, the others accepted it
    interrupted(folder, lambda owner: owner.add_vectors(vectors(3, 51)), 2, "Certify")
    shutil.copytree(folder / "servers/1", tmp_path / "shown")
    shutil.rmtree(folder / "servers/1")
    shutil.copytree(tmp_path / "before", folder / "servers/1")
    with mipp.Deployment.open(folder, threads=1) as deployment:
        check_whole(past, deployment)
        ids = deployment.owner("anna").add_vectors(vectors(3, 53))
        shown = deployment.user("ulla").index().total
        assert shown == len(past.live) + 5
    shutil.rmtree(folder / "servers/1")
    shutil.copytree(tmp_path / "shown", folder / "servers/1")
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        index = deployment.user("ulla").index()
        assert ids[0][0] in {bytes(x.batch) for x in index.left_out} and len(index.left_out) == 2
        assert index.total == len(past.live)
        deployment.owner("anna").add_vectors(vectors(2, 54))


# --- the restore itself is interrupted ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moments", "step"),
    [({1: "upload"}, 1), ({3: "owners"}, 3), ({1: "delete", 3: "upload"}, 4), (dict.fromkeys(SERVERS, "revoked"), 3)],
    ids=str,
)
# the last of the stops meet the thread that makes certificates, when all else is done
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_restore_that_is_interrupted_starts_again(past, tmp_path, monkeypatch, moments, step):
    """The process dies after a transaction of a restore, an earlier or a later one, until one gets through."""
    lacking = set()
    for server, moment in moments.items():
        lacking |= batches_in(past.folder / "servers" / str(server)) - batches_in(past.backup(moment, server))
    real = Catalog.transaction
    for stop_at in itertools.count(1, step):
        folder = put_back(past, tmp_path / str(stop_at), moments)
        left = [stop_at]

        @contextlib.contextmanager
        def transaction(self, *, sync=True, left=left):
            with real(self, sync=sync) as db:
                yield db
            left[0] -= 1
            if not left[0]:
                raise Stop

        monkeypatch.setattr(Catalog, "transaction", transaction)
        try:
            mipp.Deployment.open(folder, threads=1).close()
        except Stop:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(Catalog, "transaction", real)
        with mipp.Deployment.open(folder, threads=1) as deployment:
            if len(moments) == 3:
                assert deployment.status()["servers_agree"]
                deployment.owner("anna").add_vectors(vectors(1, 37))
                for name in ("ulla", "willi"):
                    with pytest.raises(AccessDeniedError):
                        deployment.user(name).search(QUERY, 1, ranking="user", verify=False)
            else:
                check(past, deployment, lacking)
            for one in deployment.servers.values():
                assert one.ready and not one.store.catalog.counter("restoring")
        shutil.rmtree(folder)
    assert stop_at > 10


def test_a_late_message_cannot_revive_what_a_restored_server_refused(past, tmp_path):
    """Server 1 refused, a peer heard it, and the backup knows nothing of either: the change stays refused."""
    folder = put_back(past, tmp_path / "d", {})
    with mipp.Deployment.open(folder, threads=1) as deployment:
        owner, sent = deployment.owner("anna"), []
        real = deployment.channel._request

        def request(to, frames):
            if kind_of_request(frames) in ("UploadOp", "CommitOp"):
                sent.append((to, frames))
            if kind_of_request(frames) == "CommitOp":
                raise StoreError("the network is gone")
            return real(to, frames)

        deployment.channel._request = request
        owner.recover = None
        owner._changes._abort = lambda op, servers: None
        with pytest.raises(StoreError, match="network"):
            owner.add_vectors(vectors(3, 51))
        (op,) = {c.op for c in deployment.servers[2].store.changes.open()}
        deployment.servers[1].store.changes.never(owner.id, op)
        deployment.servers[2].store.changes.never(owner.id, op)
        late = [frames for to, frames in sent if to == 1]
    shutil.rmtree(folder / "servers/1")
    shutil.copytree(past.backup("last upload", 1), folder / "servers/1")
    with mipp.Deployment.open(folder, threads=1) as deployment:
        with contextlib.suppress(MippError):
            deployment.channel.gather({1: late[0]})
        assert deployment.servers[1].store.changes.state(owner.id, op) == "aborted"


def test_the_restored_server_is_mute_until_it_met_its_peers(past, tmp_path, monkeypatch):
    folder = put_back(past, tmp_path / "d", {2: "upload"})
    seen = []
    real = settling.adopt

    def adopt(server, handovers, **options):
        seen.append(server.index)
        assert not server.ready
        real(server, handovers, **options)
        assert not server.ready

    monkeypatch.setattr(settling, "adopt", adopt)
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert seen == [2] and deployment.servers[2].ready
        assert [deployment.servers[i].store.changes.incarnation for i in SERVERS] == [0, 1, 0]
        for i in (1, 3):
            assert deployment.servers[i].store.changes.peers()[2][0] == 1


def test_a_refusal_of_before_a_restore_counts_no_more(past, tmp_path):
    """The server that signed it may have forgotten it, and accepted the change since: both would count."""
    folder = put_back(past, tmp_path / "d", {})
    with mipp.Deployment.open(folder, threads=1) as deployment:
        owner = deployment.owner("anna")
        real = deployment.channel._request

        def request(to, frames):
            if kind_of_request(frames) == "Certify":
                raise StoreError("the network is gone")
            return real(to, frames)

        deployment.channel._request = request
        owner.recover = None
        with pytest.raises(StoreError, match="network"):
            owner.add_vectors(vectors(3, 51))
        ledger = deployment.servers[2].store.changes
        (op,) = {c.op for c in ledger.open()}
        assert ledger.state(owner.id, op) == "accepted"
        ledger.meet_peer(1, 1)
        assert ledger.certify(owner.id, op, [(Vote(1, 0, b""), 0)]) == "accepted"
        assert ledger.certify(owner.id, op, [(Vote(1, 1, b""), 0)]) == "aborted"
