"""Owners and users work while servers are killed and restarted in every order, one from an older backup.

Every answer is that of a state that an owner was told of, or of the change that it is making; clients meet typed
errors alone; no session's name, no key of a session and no nonce of a batch comes twice.
"""

import contextlib
import itertools
import random
import threading
import time

import pytest

import mipp
from mipp.client import encrypting
from mipp.errors import MippError, StoreError
from mipp.rpc import peer_messages as pm
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import QUERY, Hosted, Plain

pytestmark = pytest.mark.slow


def record(folder):
    """In a server's process: note names of mesh sessions and keys of protocol sessions, one a line."""
    from mipp.mpc.mesh import Mesh
    from mipp.mpc.session import Party

    def noted(file, what):
        with open(folder / file, "a") as f:
            f.write(what.hex() + "\n")

    opened, greeted = Mesh.open, Party.hello

    def open_(mesh, name, *rest):
        noted(f"names-{mesh.index}", name)
        return opened(mesh, name, *rest)

    def hello(party, *args):
        greeted(party, *args)
        noted(f"sessions-{party.index}", party.session)

    Mesh.open, Party.hello = open_, hello


class Owner:
    """Adds and deletes rows, and knows which states it was told of."""

    def __init__(self, net, client, name):
        self.net, self.owner = net, client.create_owner(name)
        self.encoding = client.config.encoding
        self.known, self.number = {}, 0
        self.states, self.coming = [{}], None
        self.errors, self.done = [], 0

    def rows(self, count):
        self.number += 1
        x = vectors(count, hash((self.owner.name, self.number)) % (1 << 32))
        quantised = self.encoding.decode_rows(self.encoding.encode_rows(x))
        self.known |= {row.tobytes(): given for row, given in zip(quantised, x, strict=True)}
        return x

    def change(self):
        now = self.states[-1]
        if len(now) < 12 or random.random() < 0.5:
            x = self.rows(2)
            self.coming = now | {("new", n): row for n, row in enumerate(x)}
            ids = self.owner.add_vectors(x)
            self.states.append(now | dict(zip(ids, x, strict=True)))
        else:
            victims = random.sample(sorted(now), 2)
            self.coming = {i: row for i, row in now.items() if i not in victims}
            self.owner.delete(victims)
            self.states.append(self.coming)
        self.done += 1

    def look(self):
        """After an error: what is there, once the servers have decided on what they accepted."""
        for server in (1, 2, 3):
            open_ = self.net.ask(server, pm.WaitingChangesRequest())
            if (self.owner.id, "accepted") in zip(open_.owners, open_.states, strict=True):
                raise StoreError("not decided yet")
        rows = {}
        for batch in self.owner.batches():
            numbers, features = self.owner.rows_of(batch.id)
            rows |= {(batch.id, int(n)): self.known[f.tobytes()] for n, f in zip(numbers, features, strict=True)}
        scores = [Plain(self.encoding).scores(QUERY, r) for r in (rows, self.states[-1], self.coming)]
        assert scores[0] in scores[1:], "neither the state before a change nor the one after it"
        self.states.append(rows)

    def work(self, stop):
        unsure = False
        while not stop.is_set():
            try:
                if unsure:
                    self.look()
                unsure = False
                self.change()
                self.coming = None
            except MippError as error:
                self.errors.append(error)
                unsure = unsure or self.coming is not None
                time.sleep(0.1)


class User:
    def __init__(self, client, name):
        self.user, self.encoding = client.create_user(name), client.config.encoding
        self.errors, self.answers, self.left_out = [], 0, 0

    def work(self, owners, stop):
        while not stop.is_set():
            about = random.choice(owners)
            ranking = random.choice(("user", "server"))
            before = about.coming
            try:
                k = 4 if ranking == "server" else self.user.index(owners=[about.owner.id]).total
                result = self.user.search(QUERY, k, owners=[about.owner.id], ranking=ranking)
            except MippError as error:
                self.errors.append(error)
                time.sleep(0.05)
                continue
            gone = {one.batch for one in result.left_out}
            seen = [h.score for h in result.hits]
            possible = [s for s in (*about.states, before, about.coming) if s is not None]
            # rows that are on their way have no id yet: theirs may be left out
            fit = any(self._same(seen, state, gone, k) for state in possible)
            assert fit, (ranking, k, seen, gone)
            self.answers += 1
            self.left_out += bool(gone)

    def _same(self, seen, state, gone, k):
        want = Plain(self.encoding).scores(QUERY, {i: row for i, row in state.items() if i[0] not in gone})
        if want[:k] == seen:
            return True
        known = {i: row for i, row in state.items() if i[0] != "new" and i[0] not in gone}
        return bool(gone) and Plain(self.encoding).scores(QUERY, known)[:k] == seen


def run(net, rounds, pause):
    nonces = []
    real = encrypting.share_rows

    def share(*args, **options):
        made = real(*args, **options)
        nonces.append(made.nonce)
        return made

    stop, failed = threading.Event(), []
    recording = {"prepare": record, "given": {"folder": net.folder}}
    net.start(**recording)
    net.agreed()
    with contextlib.ExitStack() as opened:
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(encrypting, "share_rows", share)
        owners = [Owner(net, opened.enter_context(net.connect()), name) for name in ("anna", "berta")]
        users = [User(opened.enter_context(net.connect()), name) for name in ("ulla", "udo")]
        for owner, user in itertools.product(owners, users):
            owner.owner.grant(user.user.id, rankings=ALL_RANKINGS)
        for owner in owners:
            owner.change()
            owner.coming = None
        net.stop(1)
        net.save(1)
        net.start(1, **recording)
        net.agreed()

        def guarded(work, *args):
            try:
                work(*args)
            except BaseException as error:
                failed.append(error)
                stop.set()

        jobs = [(owner.work, stop) for owner in owners] + [(user.work, owners, stop) for user in users]
        threads = [threading.Thread(target=guarded, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        slowest = 0.0
        try:
            for number, order in enumerate(rounds):
                for server in order:
                    if stop.wait(pause):
                        break
                    net.kill(server)
                    if number == 1 and server == 1:
                        net.restore(1)
                    net.start(server, **recording)
                    begun = time.monotonic()
                    while not all(voting(net, s) for s in (1, 2, 3)):
                        assert time.monotonic() - begun < 15, net.problems()
                        time.sleep(0.05)
                    slowest = max(slowest, time.monotonic() - begun)
        finally:
            stop.set()
            for thread in threads:
                thread.join(90)
        assert not failed, failed
        net.agreed()
        for owner in owners:
            with contextlib.suppress(MippError):
                owner.look() if owner.coming is not None else None
            owner.coming = None
        answers = [user.answers for user in users]
        assert min(answers) > 10
        for name in ("names", "sessions"):
            for server in (1, 2, 3):
                lines = (net.folder / f"{name}-{server}").read_text().split()
                assert len(lines) > 10 and len(set(lines)) == len(lines), f"{name} at server {server} came twice"
        assert len(set(nonces)) == len(nonces) > 10
        kinds = sorted({type(e).__name__ for who in (*owners, *users) for e in who.errors})
        errors = [len(who.errors) for who in (*owners, *users)]
        print(f"changes {[o.done for o in owners]}, answers {answers}, errors {errors} {kinds}")
        print(f"left out {[u.left_out for u in users]}, slowest return {slowest:.2f} s, {len(nonces)} batches")


def voting(net, server):
    try:
        return net.ask(server, pm.ServerReportRequest()).votes
    except (MippError, OSError):
        return False


def test_restarts_in_several_orders(tmp_path):
    net = Hosted(tmp_path / "net", mipp.Encoding("cosine", DIM))
    try:
        run(net, list(itertools.permutations((1, 2, 3)))[::2], 0.4)
    finally:
        net.stop()


@pytest.mark.nightly
def test_restarts_for_minutes(tmp_path):
    net = Hosted(tmp_path / "net", mipp.Encoding("cosine", DIM))
    try:
        run(net, list(itertools.permutations((1, 2, 3))) * 6, 1.0)
    finally:
        net.stop()
