"""Random interleavings of owners, sweeps and recoveries on the real code, switched at every step of catalogs and files.

Each actor has a thread, and one thread runs at a time. A thread may be left at every call of a catalog, of the file
system, and of the channel, but never inside a transaction or under a lock: others would wait for it for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mipp
from mipp.errors import ConflictError, NotFoundError, ParameterError, StoreError
from mipp.rpc.channel import LocalChannel
from mipp.server.settling import settle
from mipp.store import files
from mipp.store.catalog import Catalog
from mipp.store.ledger import Ledger
from mipp.store.store import ServerStore
from tests.conftest import ALL_RANKINGS, DIM, vectors

QUERY = vectors(1, 99)[0]
PATIENCE = 60.0


class Killed(BaseException):
    """The actor died. Whatever it still calls does nothing."""


@dataclass
class Actor:
    name: str
    work: Callable[[], None]
    kill_at: int = 0
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    switches: int = 0
    done: bool = False
    dead: bool = False
    error: BaseException | None = None


class Scheduler:
    """Runs actors one at a time; a plan says who runs for how many switches."""

    here: Scheduler | None = None

    def __init__(self, actors: list[Actor], plan: list[tuple[int, int]]) -> None:
        self.actors, self.plan = actors, iter(plan)
        self.back = threading.Semaphore(0)
        self.local = threading.local()
        self.left = 0

    def run(self) -> None:
        threads = [threading.Thread(target=self._body, args=(a,), daemon=True) for a in self.actors]
        Scheduler.here = self
        try:
            for thread in threads:
                thread.start()
            current = 0
            while waiting := [i for i, a in enumerate(self.actors) if not a.done]:
                turns, who = next(self.plan, (1 << 30, current + 1))
                current = waiting[who % len(waiting)]
                self.left = turns
                self.actors[current].go.release()
                assert self.back.acquire(timeout=PATIENCE), f"{self.actors[current].name} waits for ever"
            for thread in threads:
                thread.join(PATIENCE)
        finally:
            Scheduler.here = None
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    def _body(self, actor: Actor) -> None:
        self.local.actor, self.local.depth = actor, 0
        actor.go.acquire()
        try:
            actor.work()
        except Killed:
            assert actor.dead
        except BaseException as error:
            actor.error = error
        actor.done = True
        self.back.release()

    def switch(self) -> None:
        actor: Actor | None = getattr(self.local, "actor", None)
        if actor is None or self.local.depth:
            return
        if actor.dead:
            raise Killed
        actor.switches += 1
        if actor.switches == actor.kill_at:
            actor.dead = True
            raise Killed
        self.left -= 1
        if self.left <= 0:
            self.back.release()
            actor.go.acquire()

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """No switch inside."""
        if getattr(self.local, "actor", None) is None:
            yield
            return
        self.local.depth += 1
        try:
            yield
        finally:
            self.local.depth -= 1


def switch() -> None:
    if Scheduler.here is not None:
        Scheduler.here.switch()


def still() -> contextlib.AbstractContextManager[None]:
    return Scheduler.here.still() if Scheduler.here is not None else contextlib.nullcontext()


@pytest.fixture(autouse=True, scope="module")
def switched():
    """Switches before and after each step that another thread or process could see."""
    patch = pytest.MonkeyPatch()
    transaction = Catalog.transaction

    @contextlib.contextmanager
    def switched_transaction(self, *, sync=True):
        switch()
        with still(), transaction(self, sync=sync) as db:
            yield db
        switch()

    def around(real):
        def call(*args, **kwargs):
            switch()
            with still():
                result = real(*args, **kwargs)
            switch()
            return result

        return call

    def before(real):
        def call(*args, **kwargs):
            switch()
            result = real(*args, **kwargs)
            switch()
            return result

        return call

    patch.setattr(Catalog, "transaction", switched_transaction)
    # these hold a lock while they ask a catalog
    for owner, name in ((Catalog, "all"), (Catalog, "checkpoint"), (ServerStore, "view"), (Ledger, "unlink")):
        patch.setattr(owner, name, around(getattr(owner, name)))
    patch.setattr(files, "_write", around(files._write))
    for name in ("gather", "_request"):
        patch.setattr(LocalChannel, name, before(getattr(LocalChannel, name)))
    patch.setattr(time, "sleep", lambda seconds: switch())
    patch.setattr(os, "fsync", lambda fd: None)  # no power fails here, and disks are slow
    yield
    patch.undo()


# --- owners -------------------------------------------------------------------------------------------------------


class Side:
    """An owner and what it was told to be there: rows by id, with their images."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.rows: dict[tuple[bytes, int], tuple[np.ndarray, bytes | None]] = {}
        #: rows before and after the change that is under way, if the actor died in it
        self.maybe: dict[tuple[bytes, int], tuple[np.ndarray, bytes | None]] = {}
        self.doing = ""

    def upload(self, owner: mipp.ImageOwner, count: int) -> None:
        self.seed += 1
        x = vectors(count, self.seed)
        images = [(f"{i}", bytes([self.seed % 251, i]) * 20) if i % 2 == 0 else None for i in range(count)]
        new = {(b"", i): (x[i], image and image[1]) for i, image in enumerate(images)}
        self.maybe = self.rows | new
        ids = owner.add_vectors(x, images)
        self.rows |= {key: new[b"", i] for i, key in enumerate(ids)}

    def delete(self, owner: mipp.ImageOwner, which: int) -> None:
        if self.rows:
            key = sorted(self.rows)[which % len(self.rows)]
            self.maybe = {k: v for k, v in self.rows.items() if k != key}
            owner.delete([key])
            del self.rows[key]

    def merge(self, owner: mipp.ImageOwner, below: int) -> None:
        if not self.rows:
            return
        order = {b.id: i for i, b in enumerate(owner.batches())}
        old = [self.rows[k] for k in sorted(self.rows, key=lambda k: (order[k[0]], k[1]))]
        self.maybe = self.rows
        owner.compact(merge_below=below)
        left = {b.id for b in owner.batches()}
        if set(order) != left:  # the merged ones stand behind the others
            merged = [self.rows[k] for k in sorted(self.rows, key=lambda k: (order[k[0]], k[1])) if k[0] not in left]
            self.rows = {k: v for k, v in self.rows.items() if k[0] in left}
            (new,) = left - set(order)
            self.rows |= {(new, i): row for i, row in enumerate(merged)}
            assert len(self.rows) == len(old)

    def step(self, deployment: mipp.Deployment, step: tuple[str, int]) -> None:
        what, number = step
        owner = deployment.owner(self.name)
        self.doing = what
        if what == "upload":
            self.upload(owner, 1 + number % 4)
        elif what == "delete":
            self.delete(owner, number)
        else:
            self.merge(owner, 1 if what == "tighten" else 1 << 16)
        self.doing, self.maybe = "", {}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A deployment with two owners and what they know, to be copied."""
    folder = tmp_path_factory.mktemp("interleavings") / "base"
    sides = []
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1) as deployment:
        user = deployment.create_user("ulla")
        for number, name in enumerate(("anna", "berta")):
            side = Side(name, 100 * number)
            deployment.create_owner(name).grant(user.id, rankings=ALL_RANKINGS)
            for count in (3, 2):
                side.upload(deployment.owner(name), count)
            sides.append(side)
    return folder, sides


@pytest.fixture
def fresh(base, tmp_path_factory):
    """A copy of the deployment, and of what its owners know, each time it is called."""
    folder, sides = base
    made = []

    def copy():
        for old in made:
            shutil.rmtree(old, ignore_errors=True)
        new = tmp_path_factory.mktemp("d") / "d"
        shutil.copytree(folder, new)
        made.append(new)
        copies = []
        for side in sides:
            copies.append(Side(side.name, side.seed))
            copies[-1].rows = dict(side.rows)
        return new, copies

    yield copy
    for old in made:
        shutil.rmtree(old, ignore_errors=True)


def clean(deployment: mipp.Deployment) -> None:
    for server in deployment.servers.values():
        server.store.sweep()


def check_files(deployment: mipp.Deployment) -> None:
    """Every file that a catalog names is there, and no other."""
    clean(deployment)
    for server in deployment.servers.values():
        store = server.store
        with store.catalog.transaction() as db:
            named = sorted(store._files(db))
        there = sorted(
            str(p.relative_to(store.folder)) for r in ("shares", "images") for p in (store.folder / r).glob("*/*")
        )
        assert there == named
        assert store.changes.open() == []


def check_chains(deployment: mipp.Deployment) -> None:
    """All servers have the same changes in the same places, one in each place, and the last one's view."""
    seen = []
    for server in deployment.servers.values():
        catalog = server.store.catalog
        chains = []
        for owner, position, view in catalog.all("SELECT id, position, view FROM owners ORDER BY id"):
            changes = catalog.all(
                "SELECT position, op, view FROM changes WHERE owner=? AND state='committed' ORDER BY position", owner
            )
            assert [c[0] for c in changes] == list(range(1, position + 1))
            assert not changes or changes[-1][2] == view
            chains.append((owner, changes))
        seen.append(chains)
    assert seen[0] == seen[1] == seen[2]


def check(folder: Path, sides: list[Side]) -> None:
    """All that was acknowledged is there, exactly; what an actor died in is there wholly or not at all."""
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        assert deployment.verify()["problems"] == []
        check_files(deployment)
        check_chains(deployment)
        user = deployment.user("ulla")
        index = user.index()
        assert not index.left_out
        hits = user.search(QUERY, index.total, ranking="user").hits if index.total else []
        for side in sides:
            owner = deployment.owner(side.name)
            mine = [h for h in hits if h.owner == owner.id]
            found = {(h.batch, h.row): h.score for h in mine}
            score = {k: number(deployment, x) for k, (x, _) in side.rows.items()}
            if side.doing and found != score:
                # the change that its actor died in; its ids are not known
                after = [number(deployment, x) for x, _ in side.maybe.values()]
                assert sorted(found.values()) == sorted(after), side.doing
                known = {s: image for s, (_, image) in zip(after, side.maybe.values(), strict=True)}
            else:
                assert found == score
                known = {score[k]: image for k, (_, image) in side.rows.items()}
            for hit, got in zip(mine, user.fetch(mine), strict=True):
                image = known[hit.score]
                assert (got.content == image) if image is not None else (got.error is not None)
            # and the owner goes on
            assert len(owner.add_vectors(vectors(1, 77))) == 1
        assert user.index().total == index.total + len(sides)


STEPS = st.tuples(
    st.sampled_from(["upload", "upload", "delete", "delete", "merge", "merge", "tighten"]), st.integers(0, 7)
)
SCRIPTS = st.tuples(st.lists(STEPS, min_size=1, max_size=4), st.lists(STEPS, min_size=1, max_size=4))
PLANS = st.lists(st.tuples(st.integers(1, 15), st.integers(0, 4)), min_size=20, max_size=150)


def interleave(fresh, scripts, plan, *, apart: bool, kill: tuple[int, int] | None = None) -> Scheduler:
    """Run both owners' scripts, a sweep and a recovery in turns. ``apart``: in two processes' worth of deployments."""
    folder, sides = fresh()
    one = mipp.Deployment.open(folder, threads=1)
    two = mipp.Deployment.open(folder, threads=1) if apart else one

    def owner(side: Side, deployment: mipp.Deployment, script: list[tuple[str, int]]) -> Callable[[], None]:
        def work() -> None:
            for step in script:
                side.step(deployment, step)

        return work

    def sweeps() -> None:
        for _ in range(8):
            clean(two)

    def recovers() -> None:
        for _ in range(3):
            settle(two.operators)

    reading = two.user("ulla")
    reads: list[tuple[set[int], set[int]]] = []

    def searches() -> None:
        for _ in range(3):
            there = {number(two, x) for side in sides for x, _ in side.rows.values()}
            try:
                hits = reading.search(QUERY, max(1, reading.index().total), ranking="user").hits
            except ParameterError as error:  # fewer rows than a moment ago
                assert "larger than the index" in str(error)
                continue
            reads.append((there, {h.score for h in hits}))

    actors = [
        Actor("anna", owner(sides[0], one, scripts[0])),
        Actor("berta", owner(sides[1], two, scripts[1])),
        Actor("sweep", sweeps),
        Actor("recover", recovers),
        Actor("search", searches),
    ]
    if kill is not None:
        actors[kill[0] % len(actors)].kill_at = kill[1]
    scheduler = Scheduler(actors, plan)
    try:
        scheduler.run()
        stayed = {number(one, x) for side in sides for x, _ in (side.maybe if side.doing else side.rows).values()}
        for there, found in reads:
            # rows that came since the user asked how many there are may push the last ones out
            worst = min(found)
            assert {score for score in there & stayed if score > worst} <= found, "a row that was there was not found"
    finally:
        two.close()
        one.close()
    check(folder, sides)
    return scheduler


def number(deployment: mipp.Deployment, x: np.ndarray) -> int:
    """The score of a row, which names it here."""
    encoding = deployment.config.encoding
    query = encoding.encode_queries(QUERY[None])[0].astype(np.int64)
    return int(encoding.encode_rows(x[None])[0].astype(np.int64) @ query)


def quick(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples < 100,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip


@pytest.mark.slow
@quick(16)
@given(SCRIPTS, PLANS, st.booleans())
def test_interleavings(fresh, scripts, plan, apart):
    interleave(fresh, scripts, plan, apart=apart)


@pytest.mark.slow
@quick(16)
@given(SCRIPTS, PLANS, st.booleans(), st.tuples(st.integers(0, 4), st.integers(1, 400)))
def test_interleavings_with_a_death(fresh, scripts, plan, apart, kill):
    interleave(fresh, scripts, plan, apart=apart, kill=kill)


# --- one owner against itself --------------------------------------------------------------------------------------

RIVALS = st.lists(st.sampled_from(["upload", "upload", "delete", "merge", "tighten"]), min_size=1, max_size=4)


def compete(fresh, scripts, plan, *, kill: tuple[int, int] | None = None) -> None:
    """An owner's key file was copied, so nothing keeps its processes from changing the same place at once.

    Rows are known by their scores here: a merge of the one gives new ids to rows of the other.
    """
    folder, (anna, berta) = fresh()
    sides = [mipp.Deployment.open(folder, threads=1) for _ in scripts]
    live = {number(sides[0], x) for x, _ in anna.rows.values()}
    #: scores of rows whose upload or delete failed, or whose actor died in it: there or not
    unsure: set[int] = set()
    done = []
    # opened before the race: to open an owner takes its turn, and here nobody may wait for a lock
    owners = [side.owner("anna") for side in sides]
    for owner in owners:
        owner._changes.turn = contextlib.nullcontext()

    def rival(at: int) -> Callable[[], None]:
        def work() -> None:
            owner = owners[at]
            mine: list[tuple[tuple[bytes, int], int]] = []
            for count, what in enumerate(scripts[at]):
                try:
                    if what == "upload":
                        x = vectors(2, 1000 * (at + 1) + count)
                        scores = {number(sides[at], row) for row in x}
                        unsure.update(scores)
                        ids = owner.add_vectors(x, [("a", b"a" * 9), None])
                        unsure.difference_update(scores)
                        live.update(scores)
                        mine += zip(ids, [number(sides[at], row) for row in x], strict=True)
                    elif what == "delete":
                        if mine:
                            image, score = mine.pop()
                            unsure.add(score)
                            owner.delete([image])
                            live.discard(score)
                            unsure.discard(score)
                    else:
                        owner.compact(merge_below=1 if what == "tighten" else 1 << 16)
                    done.append(what)
                except (ConflictError, NotFoundError):
                    pass  # the other was always faster; or gave the row a new id
                except StoreError as error:
                    assert "meanwhile" in str(error) or "not settled" in str(error), error

        return work

    actors = [Actor(f"anna {i}", rival(i)) for i in range(len(scripts))]
    actors.append(Actor("recover", lambda: [settle(sides[0].operators) for _ in range(3)]))
    if kill is not None:
        actors[kill[0] % len(scripts)].kill_at = kill[1]
    try:
        Scheduler(actors, plan).run()
    finally:
        for side in sides:
            side.close()
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.status()["servers_agree"] and deployment.verify()["problems"] == []
        check_files(deployment)
        check_chains(deployment)
        user = deployment.user("ulla")
        hits = user.search(QUERY, user.index().total, ranking="user").hits
        found = sorted(h.score for h in hits if h.owner_name == "anna")
        assert len(set(found)) == len(found), "a row is there twice"
        assert live - unsure <= set(found) <= live | unsure
        assert {h.score for h in hits if h.owner_name == "berta"} == {
            number(deployment, x) for x, _ in berta.rows.values()
        }
        deployment.owner("anna").add_vectors(vectors(1, 79))


@pytest.mark.slow
@quick(20)
@given(st.tuples(RIVALS, RIVALS), PLANS, st.none() | st.tuples(st.integers(0, 1), st.integers(1, 400)))
def test_an_owner_competes_with_itself(fresh, scripts, plan, kill):
    compete(fresh, scripts, plan, kill=kill)


RIVALRY = given(st.tuples(RIVALS, RIVALS, RIVALS), PLANS, st.none() | st.tuples(st.integers(0, 2), st.integers(1, 400)))
ANY = given(SCRIPTS, PLANS, st.booleans(), st.none() | st.tuples(st.integers(0, 4), st.integers(1, 600)))


@pytest.mark.slow
@quick(40)
@RIVALRY
def test_an_owner_competes_with_itself_often(fresh, scripts, plan, kill):
    compete(fresh, scripts, plan, kill=kill)


@pytest.mark.slow
@quick(60)
@ANY
def test_many_interleavings(fresh, scripts, plan, apart, kill):
    interleave(fresh, scripts, plan, apart=apart, kill=kill)


@pytest.mark.nightly
@quick(3000)
@RIVALRY
def test_an_owner_competes_with_itself_all_night(fresh, scripts, plan, kill):
    compete(fresh, scripts, plan, kill=kill)


@pytest.mark.nightly
@quick(10_000)
@ANY
def test_interleavings_all_night(fresh, scripts, plan, apart, kill):
    interleave(fresh, scripts, plan, apart=apart, kill=kill)


@pytest.mark.slow
@pytest.mark.parametrize("step", [("upload", 1), ("delete", 0), ("merge", 0)], ids=lambda s: s[0])
def test_a_death_does_not_hold_up_the_owners_other_process(fresh, step):
    """A process dies anywhere in a change; another one, open all the time, makes the owner's next change."""
    folder, sides = fresh()
    with mipp.Deployment.open(folder, threads=1) as one:
        counted = Scheduler([Actor("anna", lambda: sides[0].step(one, step))], [])
        counted.run()
    total = counted.actors[0].switches
    assert total > 40
    for kill_at in sorted({*range(1, total, max(1, total // 40))}):
        folder, sides = fresh()
        with mipp.Deployment.open(folder, threads=1) as two:
            one = mipp.Deployment.open(folder, threads=1)
            Scheduler([Actor("anna", lambda d=one, s=sides[0]: s.step(d, step), kill_at=kill_at)], []).run()
            one.close()
            before = two.user("ulla").index().total
            two.owner("anna").add_vectors(vectors(1, 78))
            assert two.user("ulla").index().total in (before + 1, before, before + 1 + 2)
