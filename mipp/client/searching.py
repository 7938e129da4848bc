"""A user's searches on one state of the index, at one set of servers after the other; retried while it changes."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from .. import schemes
from ..errors import (
    AccessDeniedError,
    IntegrityError,
    MippError,
    MissingKeyError,
    NotFoundError,
    ParameterError,
    StaleSnapshotError,
    UnreachableError,
    VerificationError,
)
from ..mpc.facts import most_rows
from ..mpc.probed import PROBE
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from .choosing import Owners
from .fetching import FetchClient
from .index import Index
from .query import Querier

__all__ = ["SearchClient"]

#: seconds that a query is retried while the index keeps changing under it
_PATIENCE = 10.0
T = TypeVar("T")
#: searches a state of the index by the querier of its servers; the index, and what was found
_Attempt = Callable[[Querier, Index], tuple[Index, T]]


class _LessCompleteError(Exception):
    """The index changed, and its newer state lacks rows at the servers that were chosen for the older one."""


class SearchClient(FetchClient):
    """The part of :class:`~mipp.client.user.User` that chooses servers and a state of the index for a search.

    Its parameters are those of :class:`~mipp.client.user.User`.
    """

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, box_key: bytes, *,
        secrets: Mapping[str, bytes], servers: Sequence[int] | None, threads: int | None, blocked: Iterable[bytes],
    ) -> None:  # fmt: skip
        super().__init__(name, config, channel, sign_seed, box_key, blocked, servers)
        scheme = schemes.get(config.params.scheme)
        self._queriers = {s: Querier(self, scheme.for_user(config, s, secrets, threads)) for s in self.sets.sets}
        self._querier = self._queriers[self.sets.sets[0]]
        #: its side of the scheme, for the first set of servers
        self.scheme = self._querier.scheme
        self.servers = self.scheme.servers
        self.threads = threads
        if config.certifies:  # else what an owner stored may make honest servers contradict each other
            self.sets.report = self._report

    def _report(self, failing: Sequence[tuple[int, ...]]) -> None:
        """Tell the servers' operators who is suspected; they saw that the query was asked again."""
        with contextlib.suppress(MippError):
            self.ask_present(m.WrongAnswers([bytes(servers) for servers in failing]))

    def _searched(
        self, owners: Owners, k: int, attempt: _Attempt[T], strict: bool, about: tuple[str, int], *,
        fewer: bool = False, verified: bool = False,
    ) -> tuple[Index, T]:  # fmt: skip
        """Run ``attempt`` at one set of servers after the other (:class:`~mipp.client.server_sets.ServerSets`).

        ``about`` : the ranking and the number of queries. ``fewer`` : search an index with fewer than k rows, too.
        ``verified`` : whether ``attempt`` fails if a server answered wrongly.
        """
        key, again = self._chosen(owners), False
        while True:
            order = self._most_complete(key, asked=again) if self.sets.several else None
            try:
                done = self.sets.run(
                    functools.partial(self._at, key, k, attempt, strict, about, fewer, again),
                    verified=verified, order=order,
                )  # fmt: skip
                break
            except _LessCompleteError:
                again = True
            except VerificationError as error:
                if not self.config.certifies:
                    error.suspects = ()
                raise
        index, found = done.result
        # rows that nobody tested may lie on no line: then honest servers of different sets contradict each other
        return index.answered(done.servers, done.suspects if index.certified and self.config.certifies else ()), found

    def _most_complete(self, key: tuple[bytes, ...], *, asked: bool) -> list[tuple[int, ...]]:
        """The sets of servers in turn; where the next one lacks rows that another has, that one first.

        ``asked``: have the servers asked, also where a state without gaps is remembered.
        """
        order = self.sets.order()
        known = self._known.get((order[0], key))
        if known is not None and not known.left_out and not known.behind and not asked:
            return order
        found: dict[tuple[int, ...], tuple[int, int]] = dict.fromkeys(order, (-1, -1))
        for servers in order:
            try:
                state = self._index(key, servers)
            except UnreachableError as error:
                self.away.note(error)
                continue
            except MippError:  # raised again if no other set does better
                continue
            found[servers] = state.newest_rows, state.total
            if not state.left_out and not state.behind:
                break
        return sorted(order, key=found.__getitem__, reverse=True)

    def _at(
        self, key: tuple[bytes, ...], k: int, attempt: _Attempt[T], strict: bool, about: tuple[str, int], fewer: bool,
        settle: bool, servers: tuple[int, ...],
    ) -> tuple[Index, T]:  # fmt: skip
        """Run ``attempt`` on a state of the index; retries on a newer one when the index or a grant changed.

        A remembered state costs nothing to use: when the first server knows a newer one, it refuses the query before
        anything is counted. A state that was asked for just now is answered whatever is uploaded meanwhile. Unless
        ``settle``, _LessCompleteError for a newer state that lacks rows here and perhaps not at other servers.
        """
        remembered = self._remembered(key, servers, 1 if fewer else max(k, 1), about[0])
        state = remembered or self._index(key, servers)
        clusters = self.config.clusters if about[0] == PROBE else None
        until, stuck = math.inf, 0
        while True:
            # the grant of an owner that was not named does not stop searches of the others
            index = state.ranked_by(about[0])
            if not key and not strict:
                index = index.covering(about[0], min(k, index.total) if fewer else k, about[1], clusters)
            if about[0] in ("server", PROBE) and not key and not strict:
                index = index.within(most_rows(self.config, probed=about[0] == PROBE))
            if clusters is not None and remembered is not None and not fewer and k > index.probed(clusters).least_live:
                # only here a remembered state would refuse for good what a newer one may give
                state, remembered = self._index(key, servers), None
                continue
            if strict and index.left_out:
                raise IntegrityError(f"cannot search {index.left_out[0]}")
            if not index.total or (k > index.total and not index.left_out and not fewer):
                gone = f"; left out: {'; '.join(str(o) for o in index.left_out[:3])}" if index.left_out else ""
                if not index.total:
                    raise ParameterError(f"the index has 0 images for this user{gone}")
                raise ParameterError(
                    f"k={k} is larger than the index, which has {index.total} images for this user{gone}"
                )
            try:
                return attempt(self._queriers[servers], index)
            except MissingKeyError:
                raise  # no newer state has it, and the other servers have counted
            except (StaleSnapshotError, AccessDeniedError, NotFoundError, IntegrityError) as error:
                newer = self._index(key, servers)  # raises if nothing is granted any more
                if self.sets.several and not settle and (newer.left_out or newer.behind):
                    raise _LessCompleteError from None
                now, same = time.monotonic(), newer.hashes == state.hashes
                if now > until or (same and not isinstance(error, StaleSnapshotError)):
                    # a server does not name the owner whose grant it is
                    why = newer.refusal(about[0], k, about[1], clusters) if isinstance(error, AccessDeniedError) else ""
                    if why:
                        raise AccessDeniedError(f"{error} ({why})") from None
                    raise
                until = min(until, now + _PATIENCE)  # from the first change on: a large batch may take longer
                stuck = stuck + 1 if same else 0
                if stuck:
                    time.sleep(min(0.01 * 2**stuck, 0.5))  # a change is on its way through the servers
                    if stuck > 2 and self.recover is not None:
                        self.recover()  # or got stuck on it
                state = newer
