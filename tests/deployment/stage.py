"""What owners, users and operators do to servers that fail meanwhile, and what must hold afterwards."""

import itertools
import shutil

import mipp
from mipp.deployment.backups import back_up_server, restore_server
from mipp.deployment.rotation import rotate_server
from mipp.errors import AccessDeniedError, MippError, StoreError
from mipp.rpc import peer_messages as pm
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import QUERY, Hosted, Plain, found


class Stage:
    """Servers, an owner with rows and images, a user, one whose queries are not counted, and the plaintext."""

    def __init__(self, folder, net=Hosted):
        self.net = net(folder, mipp.Encoding("cosine", DIM)).start()
        self.net.agreed()
        self.client = self.net.connect()
        self.owner, self.user = self.client.create_owner("anna"), self.client.create_user("ulla")
        self.uncounted = self.client.create_user("nele")
        for user in (self.user, self.uncounted):
            self.owner.grant(user.id, rankings=ALL_RANKINGS)
        self.plain, self.number = Plain(self.net.config.encoding), 0
        self.server = 1  #: the one that fails
        self.known = {}
        for _ in range(2):
            self.upload()
        self.slowest = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.net.stop()

    # --- what is done; each gives the rows that are visible then --------------------------------------------------

    def fresh(self, count=3):
        self.number += 1
        x = vectors(count, 1000 + self.number)
        quantised = self.plain.encoding.decode_rows(self.plain.encoding.encode_rows(x))
        self.known |= {row.tobytes(): given for row, given in zip(quantised, x, strict=True)}
        return x

    def upload(self, size=1000):
        x = self.fresh()
        self.coming = self.plain.rows | {("new", i): row for i, row in enumerate(x)}
        ids = self.owner.add_vectors(x, [("image", bytes(size))] * len(x))
        self.plain.rows |= dict(zip(ids, x, strict=True))

    def large(self):
        """An upload that is announced before its data."""
        self.upload(1 << 19)

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

    def repair(self):
        report = self.net.ask(self.cloud, pm.RepairRequest())
        if report.problems:
            raise StoreError("; ".join(report.problems))

    def backup(self):
        back_up_server(self.net.home(self.server), self.target)

    def rotate(self):
        """Another server's certificate: the one that fails has to learn it."""
        rotate_server(self.net.home(self.server % 3 + 1), new_certificate=True, finish=True)

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
        if what == "repair":
            for path in itertools.chain(
                *(self.net.home(self.cloud).glob(f"{room}/*/*") for room in ("shares", "images"))
            ):
                path.unlink()
        if what == "backup":
            self.number += 1
            self.target = self.net.folder / f"backup{self.number}"

    @property
    def cloud(self):
        """Whose files are lost: a key centre has none."""
        return min(self.server, 2)

    def sync(self):
        """Take what is visible from the servers: ids, and features by the owner's keys."""
        self.plain.rows = {}
        for batch in self.owner.batches():
            numbers, features = self.owner.rows_of(batch.id)
            for number, row in zip(numbers, features, strict=True):
                self.plain.rows[batch.id, int(number)] = self.known[row.tobytes()]


OPERATIONS = ("upload", "large", "delete", "merge", "compact", "grant", "revoke", "forget", "query", "ranked")
#: what operators do
OPERATED = ("repair", "backup", "rotate")


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
    if what == "repair":
        stage.repair()  # all there, or what lacks comes now
    if what == "backup":
        check_backup(stage.target, error)
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


def check_backup(target, error):
    """There and whole, or not there at all; nothing is left of one that failed."""
    assert target.exists() == (error is None), repr(error)
    assert not list(target.parent.glob(f".{target.name}*"))
    if error is None:
        again = target.with_name("again")
        assert restore_server(target, again) == []
        shutil.rmtree(again)
        shutil.rmtree(target)
