"""Explores every interleaving of changes that are written to different servers of four: clouds 1, 2, 4, key centre 3.

Servers decide by the functions of store/changes.py; a cloud that a change is not written to takes it over as
server/following.py does. A vote that was signed once can reach anybody at any later time, or never, so a state holds
which votes were ever signed. Restores are explored in tests/store/test_change_model.py.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from mipp.rpc.chain import Vote
from mipp.store import changes as rules

pytestmark = pytest.mark.slow  # all interleavings

SERVERS, CLOUDS, KEY_CENTRE = (1, 2, 3, 4), (1, 2, 4), 3


@dataclass(frozen=True)
class Op:
    """A change: the changes (by number) before it, and the servers that it is written to."""

    parent: tuple[int, ...]
    servers: tuple[int, ...]


class Server(NamedTuple):
    """Durable state: of each change, and the committed ones in order."""

    states: tuple[str, ...]
    history: tuple[int, ...] = ()


class State(NamedTuple):
    """``signed``: for each change the servers that ever accepted it, and those that refused it."""

    servers: tuple[Server, ...]
    signed: tuple[frozenset[int], ...]
    refused: tuple[frozenset[int], ...]


class World:
    """Transitions; ``mutant`` breaks a rule."""

    def __init__(self, *ops: Op, mutant: str = "") -> None:
        self.ops, self.mutant = ops, mutant

    def start(self) -> State:
        none = (frozenset(),) * len(self.ops)
        return State((Server((rules.NONE,) * len(self.ops)),) * 4, none, none)

    def put(self, s: State, i: int, op: int, state: str, *, accepts=False, refuses=False) -> State:
        me = s.servers[SERVERS.index(i)]
        history = (*me.history, op) if state == rules.COMMITTED else me.history
        me = Server((*me.states[:op], state, *me.states[op + 1 :]), history)
        at = SERVERS.index(i)
        signed, refused = list(s.signed), list(s.refused)
        signed[op] |= {i} if accepts else set()
        refused[op] |= {i} if refuses else set()
        return State((*s.servers[:at], me, *s.servers[at + 1 :]), tuple(signed), tuple(refused))

    def steps(self, s: State):
        for i in SERVERS:
            for op, what in enumerate(self.ops):
                if i in what.servers:
                    yield from self.at(s, i, op, what)
        if self.mutant != "nobody follows":
            for i in CLOUDS:
                yield from self.followed(s, i)

    def at(self, s: State, i: int, op: int, what: Op):
        me = s.servers[SERVERS.index(i)]
        state = me.states[op]
        if state == rules.NONE:
            yield self.put(s, i, op, rules.PREPARED)
        accepted = _name(op) if state in (rules.ACCEPTED, rules.COMMITTED) else b""
        rival = any(x == rules.ACCEPTED for n, x in enumerate(me.states) if n != op)
        if self.mutant == "rivals are accepted":
            rival = False
        head = len(me.history), bytes(me.history)
        act = rules.at_commit(state, accepted, _name(op), len(what.parent) + 1, bytes(what.parent), head, rival)
        if act == "accept":
            yield self.put(s, i, op, rules.ACCEPTED, accepts=True)
        if act == "never" or rules.may_refuse(state):
            yield self.put(s, i, op, rules.ABORTED, refuses=True)
        end = _outcome(op, what.servers, s.signed[op], s.refused[op])
        if state == rules.ACCEPTED and end is not None:
            yield self.put(s, i, op, end)
        if state in (rules.RESERVED, rules.PREPARED) and end == rules.ABORTED:
            yield self.put(s, i, op, rules.ABORTED, refuses=True)

    def followed(self, s: State, i: int):
        me, centre = s.servers[SERVERS.index(i)], s.servers[SERVERS.index(KEY_CENTRE)]
        others = [s.servers[SERVERS.index(j)] for j in CLOUDS if j != i]
        undecided = rules.ACCEPTED in me.states and self.mutant != "follows beside a promise"
        longer = centre.history[: len(me.history)] == me.history and len(centre.history) > len(me.history)
        if longer and not undecided and any(o.history == centre.history for o in others):
            states = tuple(rules.COMMITTED if n in centre.history else x for n, x in enumerate(me.states))
            at = SERVERS.index(i)
            yield s._replace(servers=(*s.servers[:at], Server(states, centre.history), *s.servers[at + 1 :]))

    # --- what must hold -------------------------------------------------------------------------------------------

    def problem(self, s: State) -> str:
        histories = sorted((server.history for server in s.servers), key=len)
        for short, long in itertools.pairwise(histories):
            if long[: len(short)] != short:
                return "two servers have different histories"
        for server in s.servers:
            if any((server.states[op] == rules.COMMITTED) != (op in server.history) for op in range(len(self.ops))):
                return "a server shows a change that it refused"
            if len(set(server.history)) != len(server.history):
                return "a change was made twice"
        return ""

    def settled(self, s: State) -> bool:
        one = len({server.history for server in s.servers}) == 1
        return one and all(rules.ACCEPTED not in server.states for server in s.servers)

    def explore(self) -> tuple[int, str]:
        """Number of states, and what is wrong in one of them, or with one from which the servers never agree."""
        start = self.start()
        seen, work = {start: 0}, deque([start])
        before: list[list[int]] = [[]]
        states = [start]
        while work:
            s = work.popleft()
            for after in self.steps(s):
                if after not in seen:
                    seen[after] = len(states)
                    states.append(after)
                    before.append([])
                    if problem := self.problem(after):
                        return len(states), problem
                    work.append(after)
                before[seen[after]].append(seen[s])
        good = [n for n, s in enumerate(states) if self.settled(s)]
        reached = set(good)
        while good:
            for n in before[good.pop()]:
                if n not in reached:
                    reached.add(n)
                    good.append(n)
        return len(states), "" if len(reached) == len(states) else "servers never agree"


def _name(op: int) -> bytes:
    return b"commit" + bytes([op])


@functools.lru_cache(None)
def _outcome(op: int, servers: tuple[int, ...], signed: frozenset[int], refused: frozenset[int]) -> str | None:
    votes = [Vote(i, 0, _name(op)) for i in signed] + [Vote(i, 0, b"") for i in refused]
    return rules.outcome(_name(op), servers, votes, {})


ALL, NO_1, NO_2, NO_4 = (1, 2, 3, 4), (2, 3, 4), (1, 3, 4), (1, 2, 3)


@pytest.mark.parametrize("ops", [
    (Op((), NO_4), Op((), NO_2)),
    (Op((), ALL), Op((), NO_4)),
    (Op((), NO_4), Op((0,), NO_2)),
    pytest.param((Op((), NO_4), Op((0,), NO_2), Op((0,), ALL)), marks=pytest.mark.nightly),
    pytest.param((Op((), ALL), Op((), NO_1), Op((1,), NO_4)), marks=pytest.mark.nightly),
])  # fmt: skip
def test_no_split_and_nothing_is_stuck(ops):
    count, problem = World(*ops).explore()
    assert not problem and count > 100


@pytest.mark.parametrize(("ops", "mutant", "problem"), [
    # the key centre is what two changes of one place have in common
    ((Op((), (1, 2)), Op((), (3, 4))), "", "different histories"),
    ((Op((), (2, 4)), Op((), NO_2)), "rivals are accepted", "never agree|different histories"),
    ((Op((), NO_4), Op((), NO_2)), "rivals are accepted", "never agree|different histories|refused"),
    ((Op((), NO_4),), "nobody follows", "never agree"),
])  # fmt: skip
def test_broken_rules_are_noticed(ops, mutant, problem):
    assert re.search(problem, World(*ops, mutant=mutant).explore()[1])
