"""A deployment in which one server deviates from the protocol, behind the real interface, and what comes of it.

A lie (`liars.py` has all) is *detected* if every try ends in an error, which names the step; it goes *undetected* if
some try ends without an error and with a wrong result, or has the query asked again; or it has *no effect*.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

from mipp.errors import MippError
from mipp.mpc.session import Party
from mipp.rpc import messages as m
from mipp.server import ranking as server_ranking
from tests.conftest import ALL_RANKINGS, vectors
from tests.mpc.parties import Tap

#: who ranks: the user, with verified answers; the servers; nobody, in a range search that servers compare
SETTINGS = ("user", "server", "threshold")
#: rows of the two scenes: of many, random keys contradict every order; of two, one comparison decides
MANY, FEW = (36, 24), (2,)


#: as many tries as the protocol has rounds
EACH_ROUND = 0
#: a step that stands for whichever round it was
ANY_ROUND = "any round"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """``kind``: detected, undetected or no effect; the error's class, and the steps that its text may name."""

    kind: str
    error: str = ""
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As in the table of the threat model."""
        named = f": `{self.error}`" if self.error else ""
        return self.kind + named + (f" at {' or '.join(f'`{step}`' for step in self.steps)}" if self.steps else "")

    def named_in(self, texts: Sequence[str]) -> bool:
        """Whether one of these texts names one of the steps, if there are any."""
        patterns = [r"^round \d+ \(\w+\): " if s == ANY_ROUND else rf"\({s}\)|^{s}: " for s in self.steps]
        return not patterns or any(re.search(pattern, text) for pattern in patterns for text in texts)


UNDETECTED, NO_EFFECT = Outcome("undetected"), Outcome("no effect")


def detected(error: str, *steps: str) -> Outcome:
    return Outcome("detected", error, steps)


@dataclasses.dataclass(frozen=True)
class Lie:
    """One way to deviate.

    ``name``: as in the table of the threat model. ``tell``: plants it in a scene. ``outcomes``: by setting; it cannot
    be told in the others. ``rows``: of the scene. ``tries``: attempts, numbered for lies that try one place after the
    other, or EACH_ROUND; one that goes undetected needs only the first that succeeds.
    """

    name: str
    tell: Callable[[Scene], None]
    outcomes: Mapping[str, Outcome]
    rows: tuple[int, ...] = MANY
    tries: int = 3


class Watched(Party):
    """An honest party; notes the errors that it meets."""

    scene: Scene

    def _tell(self, error):
        self.scene.noted.append(error)
        super()._tell(error)


class LyingParty(Party):
    """A party that changes what it sends; everything else is as in an honest one."""

    scene: Scene

    def hello(self, header, parameters, snapshot):
        self.scene.threads.add(threading.get_ident())
        try:
            super().hello(header, parameters, snapshot)
        finally:
            self.scene.threads.discard(threading.get_ident())

    def exchange(self, kind, outgoing, incoming):
        self._along = [(name, self._changed(name, out), wanted, then) for name, out, wanted, then in self._along]
        return super().exchange(kind, self._changed(kind, outgoing), incoming)

    def _changed(self, kind, outgoing):
        outgoing = {peer: list(arrays) for peer, arrays in outgoing.items()}
        change = self.scene.changes.get(kind)
        if change is not None and any(outgoing.values()):
            self.scene.told += 1
            del self.scene.changes[kind]  # once an attempt
            change(self, outgoing)
        return outgoing

    def _send(self, kind, peer, parts):
        if self.scene.silent_from is not None and self.step >= self.scene.silent_from:
            return
        super()._send(kind, peer, parts)


class Scene:
    """A deployment with rows of one owner, a user, and one server that lies.

    Parameters
    ----------
    deployment : in one process, or over a network with its servers in this process
    rows : of each batch
    """

    def __init__(self, deployment, rows: tuple[int, ...]) -> None:
        self.deployment, self.rows = deployment, sum(rows)
        owner, self.user = deployment.create_owner("anna"), deployment.create_user("ulla")
        self.data = vectors(self.rows, 3)
        for some in np.split(self.data, np.cumsum(rows)[:-1]):
            owner.add_vectors(some)
        owner.grant(self.user, rankings=ALL_RANKINGS)
        self.queries = vectors(2, 4)
        self.k = min(3, self.rows - 1)
        scores = np.sort(self.user.scores(self.queries[:1])[1][0])
        encoding = deployment.config.encoding
        middle = encoding.values(scores[None].astype(np.int64), self.queries[:1])[0]
        self.threshold = float(middle[self.rows // 2 - 1] + middle[self.rows // 2]) / 2
        #: servers that are asked, and so under suspicion when answers contradict each other
        self.asked = tuple(self.user.scheme.servers)
        costs = {"server": self.user.cost(self.k), "threshold": self.user.cost(ranking="threshold")}
        self.rounds = {setting: cost["servers"]["rounds"] for setting, cost in costs.items()}
        self.truth = {setting: self._ask(setting) for setting in SETTINGS}
        self.patch = pytest.MonkeyPatch()
        self.honest()

    # --- lies ------------------------------------------------------------------------------------------------------

    def honest(self) -> None:
        """Nobody lies."""
        self.patch.undo()
        self.liar, self.changes, self.silent_from = 0, {}, None
        self.told, self.attempts, self.number, self.block = 0, 0, 0, range(0)
        self.noted: list[BaseException] = []
        self.threads: set[int] = set()
        self.tapped: Callable | None = None

    @contextlib.contextmanager
    def lying(self, liar: int, lie: Lie) -> Iterator[None]:
        """``liar`` tells this lie."""
        self.honest()
        self.liar = liar
        self.patch.setattr(server_ranking, "Party", self._party)
        try:
            lie.tell(self)
            yield
        finally:
            self.honest()

    def _party(self, index, pair_keys, link, **options):
        if index == self.liar and self.tapped is not None:
            link = Tapped(link, self.tapped)
        party = (LyingParty if index == self.liar else Watched)(index, pair_keys, link, **options)
        party.scene = self
        return party

    @property
    def server(self):
        return self.deployment.servers[self.liar]

    def score_shares(self, change: Callable) -> None:
        """``change(words, header, before)`` gives other score shares, of the rows ``self.block``.

        ``before``: the true ones so far.
        """
        scheme, before = self.server.scheme, []
        real = type(scheme).fill.__get__(scheme)

        def fill(header, header_hash, plan, stored, query_share, rows, out):
            real(header, header_hash, plan, stored, query_share, rows, out)
            before.append(out.copy())
            self.told, self.block = self.told + 1, rows
            out[...] = change(out, header, before)

        self.patch.setattr(scheme, "fill", fill)

    def message(self, kind: str, change: Callable) -> None:
        """``change(party, outgoing)`` alters the first message of a kind, in each attempt."""
        self._each_attempt(lambda: self.changes.update({kind: change}))

    def _each_attempt(self, begin: Callable) -> None:
        begin()
        real = self._party

        def party(index, *values, **options):
            if index == self.liar:
                self.attempts += 1
                begin()
            return real(index, *values, **options)

        self.patch.setattr(server_ranking, "Party", party)

    def part(self, change: Callable) -> None:
        """``change(words)`` gives another part of the result for the user, (B, k) words or (1, W) planes."""

        def reply(ranked):
            self.told += 1
            return dataclasses.replace(ranked, words=change(ranked.words.copy()))

        self.replies(m.Ranked, reply)

    def replies(self, kind: type, change: Callable) -> None:
        """``change(reply)`` replaces replies of a kind to the user."""
        for request in (m.Query, m.CollectRanking, m.FoldColumns):
            real = self.server._handlers[request]

            def handle(asked, real=real):
                reply = real(asked)
                return change(reply) if isinstance(reply, kind) else reply

            self.patch.setitem(self.server._handlers, request, handle)

    # --- outcomes --------------------------------------------------------------------------------------------------

    def _ask(self, setting: str):
        if setting == "threshold":
            return [hit.row for hit in self.user.range_search(self.queries[0], self.threshold)]
        found = self.user.nearest(self.queries, self.k, ranking=setting)
        return found.rows.tolist(), found.scores.tolist()

    def attempt(self, setting: str) -> Outcome:
        """What one search of a user comes to: no effect, undetected, or detected with all that errors say."""
        self.noted.clear()
        self.attempts = 0
        try:
            found = self._ask(setting)
        except MippError as error:
            own = [str(e) for e in self.noted if "stopped:" not in str(e)]
            return Outcome("detected", type(error).__name__, (str(error), *own))
        return NO_EFFECT if found == self.truth[setting] and self.attempts < 2 else UNDETECTED

    def observed(self, liar: int, lie: Lie, setting: str) -> Outcome | None:
        """The outcome of all tries; None if this server had no occasion for the lie."""
        outcomes, expected = [], lie.outcomes[setting]
        with self.lying(liar, lie):
            for number in range(lie.tries or self.rounds[setting]):
                self.number = number
                outcomes.append(self.attempt(setting))
                if outcomes[-1] == UNDETECTED:
                    return UNDETECTED
                if number == 2 and not self.told:
                    return None
        errors = [o for o in outcomes if o.kind == "detected"]
        if not errors:
            return NO_EFFECT
        if len(errors) < len(outcomes):  # some tries change nothing, and it is seen in the others
            return Outcome("sometimes detected", errors[0].error, errors[0].steps)
        if all(e.error == expected.error and expected.named_in(e.steps) for e in errors):
            return expected
        return errors[0]


class Tapped(Tap):
    """A link whose outgoing frames ``change(header, frame)`` replaces."""

    def __init__(self, link, change):
        super().__init__(link, lambda header, frame, send: send(change(header, frame)))

    def expect(self, most):
        self._link.expect(most)


class Colluder(Party):
    """Waits for what its peers open of a test, and then opens what makes the sums zero, or the bits."""

    def exchange(self, kind, outgoing, incoming):
        opened = [(name, out) for name, out in [*((n, out) for n, out, _, _ in self._along), (kind, outgoing)]
                  if name in ("check", "open")]  # fmt: skip
        for name, out in opened:
            frames = {peer: self.link.receive(peer, 1 << 30, self.timeout) for peer in self.peers}
            self.link, mine = _Ahead(self.link, frames), out[self.next][0]
            a, b = (np.frombuffer(b"".join(frame.parts), mine.dtype) for frame in frames.values())
            # planes of bits have 64-bit words, sums those of the ring, which has 32 in these tests
            mine[...] = a ^ b if name == "open" and mine.dtype == np.uint64 else mine.dtype.type(0) - a - b
        return super().exchange(kind, outgoing, incoming)


class _Ahead:
    """A link of which some frames were read before."""

    def __init__(self, link, frames):
        self._link, self._frames = link, frames

    def __getattr__(self, name):
        return getattr(self._link, name)

    def receive(self, source, limit, timeout):
        frame = self._frames.pop(source, None)
        return self._link.receive(source, limit, timeout) if frame is None else frame
