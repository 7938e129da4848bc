"""Explores every interleaving of several changes at three servers; servers decide by the functions of store/changes.py.

The network is the worst there can be: a message that was signed once can reach anybody at any later time, any number of
times, or never. So no message is modelled on its way; a state holds which votes were ever signed. Every durable step is
one transaction, so a crash changes nothing but what is under way between servers: a restore begins again, and a lease
may end at any moment. Only server 0 is ever restored; the three are alike.

Reports of "committed" reach the owner at once: it acknowledges as early as it ever may, which is the hardest case.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from mipp.rpc.chain import Vote
from mipp.store import changes as rules

pytestmark = pytest.mark.slow  # all interleavings

SERVERS = (0, 1, 2)
#: incarnations of server 0 are below this: first, restored, and again when it crashes while it is restored
TOP = 3


@dataclass(frozen=True)
class Op:
    """A change: its owner, and the changes (by number) that its COMMIT names as history before it."""

    owner: int
    parent: tuple[int, ...]

    @property
    def position(self) -> int:
        return len(self.parent) + 1


@dataclass(frozen=True)
class World:
    """What happens. ``partial``: votes reach servers one by one, else all of a certificate at once.

    ``prepared``: every server has every change prepared at the start.
    """

    ops: tuple[Op, ...]
    restores: int = 0
    crashes: int = 0
    partial: bool = False
    prepared: bool = True
    mutant: str = ""


class Server(NamedTuple):
    """Durable state. ``votes``: accepting votes that it stores of each change, as bits; ``told``: incarnation of server
    0 that it knows; ``hashed``: changes whose COMMIT it knows; ``history``: of each owner, in order."""

    states: tuple[str, ...]
    votes: tuple[int, ...]
    told: int
    hashed: int
    history: tuple[tuple[int, ...], ...]


class State(NamedTuple):
    """``signed``, ``refused``: votes ever signed, as bits, for each change; ``waits``: peers that the
    restored server has not heard yet; ``reported``: what server 0 told the owner."""

    servers: tuple[Server, Server, Server]
    signed: tuple[int, ...]
    refused: tuple[int, ...]
    restores: int
    crashes: int
    backup: Server | None
    waits: int
    reported: int
    acked: int


def view(history: tuple[int, ...]) -> bytes:
    return b"view" + bytes(history)


def name(op: int) -> bytes:
    return b"commit" + bytes([op])


def vote_bit(server: int, incarnation: int) -> int:
    """Votes of one change as bits: server 0 at each incarnation, then servers 1 and 2 at their only one."""
    return 1 << (incarnation if server == 0 else TOP + server - 1)


@functools.lru_cache(None)
def votes_of(op: int, bits: int) -> tuple[Vote, ...]:
    all_ = [(0, i) for i in range(TOP)] + [(1, 0), (2, 0)]
    return tuple(Vote(s, i, name(op)) for s, i in all_ if bits & vote_bit(s, i))


@functools.lru_cache(None)
def decided(op: int, bits: int, refused: int, told: int, mutant: str) -> str | None:
    votes = votes_of(op, bits)
    votes += tuple(Vote(v.server, v.incarnation, b"") for v in votes_of(op, refused))
    if mutant == "incarnations ignored":
        votes, told = tuple(Vote(v.server, 0, v.commit) for v in votes), 0
    if mutant == "old refusals count":
        votes = tuple(v if v.accepts else Vote(v.server, told, b"") for v in votes)
    return rules.outcome(name(op), SERVERS, votes, {0: told, 1: 0, 2: 0})


@functools.lru_cache(None)
def still_valid(op: int, bits: int, incarnation: int, mutant: str) -> int:
    if mutant == "incarnations ignored":
        return bits
    left = rules.valid_after_restore(votes_of(op, bits), 0, incarnation)
    return sum(vote_bit(v.server, v.incarnation) for v in left)


class Model:
    """Transitions of a world."""

    def __init__(self, world: World) -> None:
        self.world, self.ops, self.mutant = world, world.ops, world.mutant
        self.owners = range(max(o.owner for o in self.ops) + 1)

    def start(self) -> State:
        state = rules.PREPARED if self.world.prepared else rules.NONE
        n = len(self.ops)
        server = Server((state,) * n, (0,) * n, 0, 0, ((),) * len(self.owners))
        return State((server,) * 3, (0,) * n, (0,) * n, self.world.restores, self.world.crashes, None, 0, 0, 0)

    # --- parts of steps -----------------------------------------------------------------------------------------

    def put(self, s: State, i: int, server: Server, **more: object) -> State:
        """The state with another server; the owner hears at once what is committed."""
        servers = (*s.servers[:i], server, *s.servers[i + 1 :])
        s = s._replace(servers=servers, **more)  # type: ignore[arg-type]
        reported, acked = s.reported, s.acked
        for op in range(len(self.ops)):
            if not s.waits and servers[0].states[op] == rules.COMMITTED:
                reported |= 1 << op
            done = reported >> op & 1 and all(servers[j].states[op] == rules.COMMITTED for j in (1, 2))
            if self.mutant == "acknowledges accepts":
                done = done or {v.server for v in votes_of(op, s.signed[op])} == set(SERVERS)
            acked |= bool(done) << op
        return s._replace(reported=reported, acked=acked)

    @staticmethod
    def with_state(server: Server, op: int, state: str, votes: int = 0) -> Server:
        return server._replace(
            states=(*server.states[:op], state, *server.states[op + 1 :]),
            votes=(*server.votes[:op], votes, *server.votes[op + 1 :]),
        )

    @staticmethod
    def sign(s: State, op: int, bit: int) -> State:
        return s._replace(signed=(*s.signed[:op], s.signed[op] | bit, *s.signed[op + 1 :]))

    def refuse(self, s: State, i: int, op: int) -> State:
        """The change is aborted at a server, which says so to everybody who asks."""
        bit = vote_bit(i, self.incarnation(s, i))
        refused = (*s.refused[:op], s.refused[op] | bit, *s.refused[op + 1 :])
        return self.put(s, i, self.with_state(s.servers[i], op, rules.ABORTED), refused=refused)

    def incarnation(self, s: State, i: int) -> int:
        return s.servers[0].told if i == 0 else 0

    def committed(self, server: Server, op: int) -> Server:
        owner = self.ops[op].owner
        history = server.history[owner]
        server = self.with_state(server, op, rules.COMMITTED)
        return server._replace(history=(*server.history[:owner], (*history, op), *server.history[owner + 1 :]))

    # --- steps --------------------------------------------------------------------------------------------------

    def steps(self, s: State):
        for i in SERVERS:
            if i == 0 and s.waits and self.mutant != "votes before it met its peers":
                continue
            for op in range(len(self.ops)):
                yield from self.at_server(s, i, op)
        if s.restores and s.backup is None:
            yield "backup of 0", s._replace(backup=s.servers[0])
        if s.restores and s.backup is not None:
            yield "0 is restored", self.restored(s, s.backup)._replace(backup=None, restores=s.restores - 1)
        if s.waits and s.crashes:
            yield "0 crashes while it is restored", self.restored(s, s.servers[0])._replace(crashes=s.crashes - 1)
        for j in (1, 2):
            if s.waits >> j & 1:
                yield f"0 takes over from {j}", self.taken_over(s, j)

    def at_server(self, s: State, i: int, op: int):
        me, what, bit = s.servers[i], self.ops[op], 1 << op
        state = me.states[op]
        if state == rules.NONE:
            yield f"prepare {op} at {i}", self.put(s, i, self.with_state(me, op, rules.PREPARED))
        # COMMIT, from the owner or a peer
        head = len(me.history[what.owner]), view(me.history[what.owner])
        rival = any(
            me.states[o] == rules.ACCEPTED and o != op and self.ops[o].owner == what.owner for o in range(len(self.ops))
        )
        if self.mutant == "second child":
            rival = False
        if self.mutant == "old parent" and what.position <= head[0]:
            head = what.position - 1, view(what.parent)
        accepted = name(op) if me.hashed & bit else b""
        act = rules.at_commit(state, accepted, name(op), what.position, view(what.parent), head, rival)
        mine = vote_bit(i, self.incarnation(s, i))
        if act == "accept":
            new = self.with_state(me, op, rules.ACCEPTED, mine)._replace(hashed=me.hashed | bit)
            yield f"{i} accepts {op}", self.put(self.sign(s, op, mine), i, new)
        elif act == "recorded" and state != rules.ABORTED and not s.signed[op] & mine:
            yield f"{i} says again that it accepted {op}", self.put(self.sign(s, op, mine), i, me)
        elif act == "recorded" and state == rules.ABORTED and not s.refused[op] & mine:
            yield f"{i} says again that it refused {op}", self.refuse(s, i, op)
        elif act == "never":
            yield f"{i} refuses {op}", self.refuse(s, i, op)
        # end of a lease, the owner's abort, a peer's question
        if rules.may_refuse(state) or (self.mutant == "never after accepted" and state == rules.ACCEPTED):
            yield f"lease of {op} ends at {i}", self.refuse(s, i, op)
        # votes, from anybody
        if state not in rules.OPEN:
            return
        for b in range(TOP + 2):
            if s.refused[op] >> b & 1:
                told = max([me.told] + [v.incarnation for v in votes_of(op, 1 << b) if v.server == 0 and i != 0])
                if decided(op, 0, 1 << b, told, self.mutant) == rules.ABORTED:
                    t = self.put(s, i, me._replace(told=told))
                    yield f"{i} hears that {op} is refused", self.refuse(t, i, op)
        if state == rules.ACCEPTED:
            for bits in self.deliveries(s.signed[op] & ~me.votes[op]):
                told = max([me.told] + [v.incarnation for v in votes_of(op, bits) if v.server == 0 and i != 0])
                known = me.votes[op] | bits
                if decided(op, known, 0, told, self.mutant) == rules.COMMITTED:
                    new = self.committed(me._replace(told=told), op)
                    yield f"{i} commits {op} by votes {votes_of(op, known)}", self.put(s, i, new)
                elif self.world.partial or told != me.told:
                    kept = known if self.world.partial else me.votes[op]
                    yield (
                        f"{i} notes votes on {op}",
                        self.put(s, i, self.with_state(me, op, state, kept)._replace(told=told)),
                    )

    def deliveries(self, bits: int):
        """Sets of votes that come together."""
        single = [1 << b for b in range(TOP + 2) if bits >> b & 1]
        if self.world.partial:
            yield from single
            return
        # at most one of server 0, whichever, with all of the others: fewer decide nothing
        others = sum(b for b in single if b >= 1 << TOP)
        for one in [b for b in single if b < 1 << TOP] or [0]:
            if one | others:
                yield one | others

    def restored(self, s: State, old: Server) -> State:
        return s._replace(servers=(old._replace(told=s.servers[0].told + 1), *s.servers[1:]), waits=0b110)

    def taken_over(self, s: State, j: int) -> State:
        """Peer ``j`` notes server 0's incarnation, and hands over its histories; after the last peer 0 is ready."""
        me, peer, n = s.servers[0], s.servers[j], range(len(self.ops))
        votes = tuple(
            still_valid(op, peer.votes[op], me.told, self.mutant) if peer.states[op] == rules.ACCEPTED
            else peer.votes[op] for op in n
        )  # fmt: skip
        peer = peer._replace(told=me.told, votes=votes)
        s = s._replace(servers=(*s.servers[:j], peer, *s.servers[j + 1 :]), waits=s.waits & ~(1 << j))
        for owner in self.owners:
            theirs = peer.history[owner]
            if len(theirs) > len(me.history[owner]):
                for op in theirs:
                    me = self.with_state(me, op, rules.COMMITTED)
                    if self.mutant != "cannot confirm":
                        me = me._replace(hashed=me.hashed | 1 << op)
                me = me._replace(history=(*me.history[:owner], theirs, *me.history[owner + 1 :]))
        # what a peer refused is refused here, also if it is unknown here
        gone = [
            op for op in n if peer.states[op] == rules.ABORTED and me.states[op] not in (rules.COMMITTED, rules.ABORTED)
        ]
        if self.mutant == "refusals not handed over":
            gone = []
        if not s.waits:
            gone += [op for op in n if me.states[op] in rules.OPEN and op not in gone]
        s = self.put(s, 0, me)
        for op in gone:
            s = self.refuse(s, 0, op)
        return s

    # --- properties ---------------------------------------------------------------------------------------------

    def violation(self, s: State) -> str | None:
        working = [x for i, x in enumerate(s.servers) if not (i == 0 and s.waits)]
        for owner in self.owners:
            histories = sorted((x.history[owner] for x in working), key=len)
            for short, long in itertools.pairwise(histories):
                if long[: len(short)] != short:
                    return "split: servers have different histories"
            for history in histories:
                if any(self.ops[op].parent != history[:at] for at, op in enumerate(history)):
                    return "a change stands behind a state that it was not made for"
        for op in range(len(self.ops)):
            states = {x.states[op] for x in working}
            if {rules.COMMITTED, rules.ABORTED} <= states:
                return "split: committed here, aborted there"
            # a restored server may accept it again, and commits it then; nobody may give it up
            if s.acked >> op & 1 and rules.ABORTED in states:
                return "acknowledged, then lost"
        return None

    def settled(self, s: State) -> bool:
        if s.waits:
            return False
        return all(
            len({x.states[op] for x in s.servers}) == 1 and s.servers[0].states[op] in (rules.COMMITTED, rules.ABORTED)
            for op in range(len(self.ops))
        )


@dataclass
class Found:
    violation: str | None
    trace: list[str] = field(default_factory=list)
    states: dict[State, int] = field(default_factory=dict)
    settled: list[State] = field(default_factory=list)


def explore(world: World, cap: int = 5_000_000) -> Found:
    """Breadth first, so traces are shortest; then whether every state can still settle."""
    model = Model(world)
    first = model.start()
    number, order, came, into = {first: 0}, [first], [(-1, "")], [[]]
    queue = deque([first])
    settled = []

    def trace(at: int) -> list[str]:
        steps = []
        while at > 0:
            at, step = came[at]
            steps.append(step)
        return steps[::-1]

    while queue:
        s = queue.popleft()
        at = number[s]
        wrong = model.violation(s)
        if wrong:
            return Found(wrong, trace(at), number)
        if model.settled(s):
            settled.append(at)
        for step, t in model.steps(s):
            known = number.get(t)
            if known is None:
                known = number[t] = len(order)
                order.append(t)
                came.append((at, step))
                into.append([])
                queue.append(t)
                assert len(order) <= cap, "the world is larger than was thought"
            into[known].append(at)
    good, todo = set(settled), list(settled)
    while todo:
        for before in into[todo.pop()]:
            if before not in good:
                good.add(before)
                todo.append(before)
    stuck = next((at for at in range(len(order)) if at not in good), None)
    if stuck is not None:
        return Found("stuck: no settled state can be reached", trace(stuck), number)
    return Found(None, [], number, [order[at] for at in settled])


# two changes compete for the first place; the third was made for the state after the first one
A, B, C = Op(0, ()), Op(0, ()), Op(0, (0,))
OTHER = Op(1, ())
WORLDS = {
    "three of one owner": World((A, B, C)),
    "two in a row, nothing prepared": World((A, Op(0, (0,))), prepared=False),
    "one, restored, votes one by one": World((A,), restores=1, crashes=1, partial=True, prepared=False),
    "two that compete, restored": World((A, B), restores=1),
    "two in a row, restored": World((A, Op(0, (0,))), restores=1),
}
LARGE = {
    "three, nothing prepared": World((A, B, C), prepared=False),
    "three of one owner, restored": World((A, B, C), restores=1),
    "two owners, restored": World((A, OTHER), restores=1),
    "two that compete, restored, crash": World((A, B), restores=1, crashes=1, prepared=False),
    "two in a row, votes one by one": World((A, Op(0, (0,))), restores=1, crashes=1, partial=True),
}


def check(world: World) -> Found:
    found = explore(world)
    assert found.violation is None, "\n".join([str(found.violation), *found.trace])
    return found


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_all_interleavings(world):
    found = check(world)
    outcomes = {s.servers[0].states for s in found.settled}
    assert (rules.ABORTED,) * len(world.ops) in outcomes
    for op in range(len(world.ops)):
        assert any(o[op] == rules.COMMITTED for o in outcomes), "the world is too small to say anything"
    print(f"{len(found.states)} states")


@pytest.mark.nightly
@pytest.mark.parametrize("world", LARGE.values(), ids=LARGE)
def test_all_interleavings_of_larger_worlds(world):
    print(f"{len(check(world).states)} states")


@pytest.mark.slow
def test_owners_are_independent():
    """Two owners' chains together reach exactly all pairs of what each reaches alone: neither holds up the other."""
    alone = [check(World(ops)).states for ops in ((A, B), (Op(0, ()),))]
    both = check(World((A, B, OTHER))).states

    def part(s: State, ops: slice, owner: int) -> tuple[object, ...]:
        return tuple((x.states[ops], x.votes[ops], x.history[owner]) for x in s.servers), s.signed[ops], s.refused[ops]

    def seen(states, ops, owner, name_from=0):
        def renamed(p):  # the other owner's change is number 0 when it is alone
            return tuple((st, v, tuple(o - name_from for o in h)) for st, v, h in p[0]), *p[1:]

        return {renamed(part(s, ops, owner)) for s in states}

    first, second = seen(alone[0], slice(0, 2), 0), seen(alone[1], slice(0, 1), 0)
    assert seen(both, slice(0, 2), 0) == first
    assert seen(both, slice(2, 3), 1, 2) == second
    assert len(both) == len(alone[0]) * len(alone[1])


MUTANTS = {
    "incarnations ignored": (World((A,), restores=1), "split|lost"),
    "acknowledges accepts": (World((A,), restores=1), "lost"),
    "second child": (World((A, B)), "split|not made for"),
    "never after accepted": (World((A,)), "split"),
    "old parent": (World((A, B)), "not made for"),
    "cannot confirm": (World((A,), restores=1), "stuck|split"),
    "votes before it met its peers": (World((A,), restores=1), "split|lost"),
    "refusals not handed over": (World((A,), restores=1, prepared=False), "split"),
    "old refusals count": (World((A,), restores=1, prepared=False), "split"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_found(mutant):
    world, expected = MUTANTS[mutant]
    found = explore(dataclasses.replace(world, mutant=mutant))
    assert found.violation is not None and any(word in found.violation for word in expected.split("|")), found.violation
    assert found.trace
    print(found.violation, *found.trace, sep="\n  ")
