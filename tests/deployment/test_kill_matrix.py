"""Each server is killed at points spread over what owners and users do: all servers agree again, without a person."""

import numpy as np
import pytest

import mipp
from mipp.errors import AccessDeniedError, MippError
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import AGREE, QUERY, Hosted, Plain, found

pytestmark = pytest.mark.slow


class Stage:
    """Servers, an owner with rows, a user, and the plaintext."""

    def __init__(self, folder):
        self.net = Hosted(folder, mipp.Encoding("cosine", DIM)).start()
        self.net.agreed()
        self.client = self.net.connect()
        self.owner, self.user = self.client.create_owner("anna"), self.client.create_user("ulla")
        self.owner.grant(self.user.id, rankings=ALL_RANKINGS)
        self.plain, self.number = Plain(self.net.config.encoding), 0
        self.known = {}
        for _ in range(2):
            self.upload()
        self.slowest = 0.0

    def close(self):
        self.client.close()
        self.net.stop()

    # --- what is done; each gives the rows that are visible then --------------------------------------------------

    def fresh(self, count=3):
        self.number += 1
        x = vectors(count, 1000 + self.number)
        quantised = self.plain.encoding.decode_rows(self.plain.encoding.encode_rows(x))
        self.known |= {row.tobytes(): given for row, given in zip(quantised, x, strict=True)}
        return x

    def upload(self):
        x = self.fresh()
        self.coming = self.plain.rows | {("new", i): row for i, row in enumerate(x)}
        ids = self.owner.add_vectors(x)
        self.plain.rows |= dict(zip(ids, x, strict=True))

    def delete(self):
        victim = next(iter(self.plain.rows))
        self.coming = {i: row for i, row in self.plain.rows.items() if i != victim}
        self.owner.delete([victim])
        self.plain.rows = self.coming

    def merge(self):
        self.owner.compact()

    def compact(self):
        self.owner.compact(merge_below=1)

    def grant(self):
        self.number += 1
        self.owner.grant(self.user.id, rankings=ALL_RANKINGS, quota=10**6 + self.number)

    def revoke(self):
        self.owner.revoke(self.user.id)

    def forget(self):
        self.other.forget()

    def query(self):
        assert found(self.user) == self.plain.scores(QUERY)

    def ranked(self):
        assert found(self.user, "server", k=3) == self.plain.scores(QUERY)[:3]

    # --- around it ------------------------------------------------------------------------------------------------

    def before(self, what):
        """What must be there for an operation."""
        self.coming = self.plain.rows
        if what == "delete" and len(self.plain.rows) < 6:
            self.upload()
        if what in ("merge", "compact"):  # something to do: a small batch more, and a deleted row
            self.upload()
            self.delete()
        if what == "revoke":
            self.grant()
        if what == "forget":
            self.number += 1
            self.other = self.client.create_owner(f"owner{self.number}")
            self.other.add_vectors(self.fresh())

    def sync(self):
        """Take what is visible from the servers: ids, and features by the owner's keys."""
        self.plain.rows = {}
        for batch in self.owner.batches():
            numbers, features = self.owner.rows_of(batch.id)
            for number, row in zip(numbers, features, strict=True):
                self.plain.rows[batch.id, int(number)] = self.known[row.tobytes()]


OPERATIONS = ("upload", "delete", "merge", "compact", "grant", "revoke", "forget", "query", "ranked")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = Stage(tmp_path_factory.mktemp("kill") / "net")
    yield made
    made.close()


def attempt(stage, what):
    """Do it; the error that its caller met, or None if it was acknowledged."""
    try:
        getattr(stage, what)()
    except MippError as error:
        return error
    return None


def check(stage, what, error, rows_before):
    """Nothing acknowledged is lost, and a change is there wholly or not at all."""
    net = stage.net
    if what == "revoke":
        try:
            found(stage.user)
            revoked = False
        except AccessDeniedError:
            revoked = True
        assert revoked or error is not None
        stage.grant()
    if what == "forget":
        gone = {name for name, forgotten, *_ in net.state(1)["owners"].values() if forgotten}
        assert (stage.other.name in gone) or error is not None
        if error is not None:
            stage.other.forget()
    seen, before, after = (
        found(stage.user),
        stage.plain.scores(QUERY, rows_before),
        stage.plain.scores(QUERY, stage.coming),
    )
    assert seen == after if error is None else seen in (before, after), (what, repr(error))
    if error is not None and "nothing of it is visible" in str(error):
        assert seen == before, "it was said to be rolled back"
    stage.sync()
    assert seen == stage.plain.scores(QUERY)


def one_point(stage, what, server, kill_at):
    net = stage.net
    stage.before(what)
    rows_before = dict(stage.plain.rows)
    stage.coming = rows_before
    net.tell(server, "arm", kill_at)
    error = attempt(stage, what)
    net.kill(server)  # at the latest now
    net.start(server)
    took = net.agreed(AGREE)
    stage.slowest = max(stage.slowest, took)
    check(stage, what, error, rows_before)
    return error


def run_matrix(stage, what, points):
    errors = 0
    for server in (1, 2, 3):
        stage.before(what)
        stage.net.tell(server, "arm", 0)
        getattr(stage, what)()
        steps = stage.net.tell(server, "count")
        stage.sync()
        if what == "revoke":
            stage.grant()
        for kill_at in np.unique(np.linspace(1, max(steps, 1), points).astype(int)):
            errors += one_point(stage, what, server, int(kill_at)) is not None
    return errors


@pytest.mark.parametrize("what", OPERATIONS)
def test_killed_while(stage, what):
    assert run_matrix(stage, what, 3), "no kill was met"


def run_full(stage, what, points, servers=(1, 2, 3)):
    """The disk of a server is full from a step on: a typed error or none, and all agree when there is room again."""
    net, errors = stage.net, 0
    for server in servers:
        for full_at in range(1, 3 * points, 3):
            stage.before(what)
            rows_before = dict(stage.plain.rows)
            stage.coming = rows_before
            net.tell(server, "arm", full_at, True)
            error = attempt(stage, what)
            net.tell(server, "arm", 0)
            net.agreed(AGREE)
            check(stage, what, error, rows_before)
            errors += error is not None
    return errors


@pytest.mark.parametrize("what", ["upload", "merge", "grant"])
def test_the_disk_is_full(stage, what):
    assert run_full(stage, what, 2, (1, 3))


@pytest.mark.nightly
@pytest.mark.parametrize("what", OPERATIONS)
def test_the_disk_is_full_at_any_step(stage, what):
    run_full(stage, what, 10)


@pytest.mark.nightly
@pytest.mark.parametrize("what", OPERATIONS)
def test_killed_at_any_step(stage, what):
    assert run_matrix(stage, what, 25)
