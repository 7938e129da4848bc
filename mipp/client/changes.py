"""Changes of an owner: prepared on every server, committed when all servers agree, then certified.

A change is made when every server that it is written to reports it as committed; only then :meth:`ChangeMaker.make`
returns. Where another cloud can stand in for one that is away, a change is written to the others; that cloud takes it
over from them when it is back.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..errors import BusyError, ConflictError, LimitError, MippError, StoreError
from ..rpc import messages as m
from ..rpc.chain import NO_SHARE, Content, facts_hash, next_view
from ..rpc.wire import encode, pack_frames
from .client import Client
from .retry import collect_pending, retry_busy

__all__ = ["ChangeMaker"]


class ChangeMaker:
    """Makes an owner's changes, one at a time.

    Parameters
    ----------
    owner : Client
        The owner.
    turn : context manager, optional
        Lock that is held while a change is made; the owner's other processes must share it.
    """

    def __init__(self, owner: Client, turn: AbstractContextManager[Any] | None = None) -> None:
        self._owner = owner
        self.turn: AbstractContextManager[Any] = turn if turn is not None else threading.RLock()
        #: called while servers check the range of rows, with the number of rows checked and of all rows
        self.checking: Callable[[int, int], None] | None = None

    def make(
        self, kind: str, op: bytes, msgs: Mapping[int, Any], content: Content, parent: m.Head | None = None,
        share_hashes: Mapping[int, bytes] | None = None,
    ) -> None:  # fmt: skip
        """Make one change visible on all servers, or on none.

        Parameters
        ----------
        kind : str
            ``upload``, ``merge`` or ``delete``.
        op : bytes
            Id of the change, 16 bytes, never used before.
        msgs : mapping of int to message
            The request to each server, by its number.
        content : Content
            Facts that the servers must agree on.
        parent : Head, optional
            State of the owner's chain that the change was made for; default the newest.
        share_hashes : mapping of int to bytes, optional
            SHA-256 of the words of rows that servers get, by server, where they are known.

        Raises
        ------
        ConflictError
            Another change took its place in the chain; retry with a new id on the new state.
        OutOfRangeError
            The servers found rows out of the encoding's range, and refused the change.
        StoreError
            A server could not keep it, and none has it; or its outcome is open. The text says which.
        """
        with self.turn:
            contents, shares, heads = self._prepare(op, msgs, share_hashes)
            if content.rows and self._owner.config.certifies:
                heads = self._certified(op, heads)
            heads = self._common(heads, op)
            head = parent if parent is not None else next(iter(heads.values()))
            self._commit(kind, op, content, {s: contents[s] for s in sorted(heads)}, shares, head)

    def _prepare(
        self, op: bytes, msgs: Mapping[int, Any], share_hashes: Mapping[int, bytes] | None = None
    ) -> tuple[dict[int, bytes], list[bytes], dict[int, m.Head]]:
        """Send every server its part; a change that one refuses is aborted at all.

        Returns the hash of each server's part, the hashes of all shares, and the heads at the servers that have theirs.
        """
        contents, shares, requests = {}, [], {}
        for server, msg in sorted(msgs.items()):
            # words of rows are the first array of their message
            known = {1: share_hashes[server]} if share_hashes and server in share_hashes else None
            requests[server], hashes, contents[server] = self._owner.signed(msg, server, known)
            shares.append(hashes[1] if isinstance(msg, m.UploadOp) and msg.share.size else NO_SHARE)

        spare = self._owner.spare

        def send(to: list[int]) -> dict[int, m.Head]:  # sent again it changes nothing more
            some, kinds = {s: requests[s] for s in to}, {s: type(msgs[s]) for s in to}
            return retry_busy(lambda: self._owner.send(some, kinds, spare=spare), spare=spare)

        try:
            # a cloud that is restored and waits, or whose disk is full, is as good as away
            heads = self._owner.present(
                send, sorted(msgs), refusals=(BusyError, StoreError, LimitError) if spare else ()
            )
        except BaseException:
            self._abort(op, sorted(msgs))
            raise
        return contents, shares, heads

    def _certified(self, op: bytes, heads: dict[int, m.Head]) -> dict[int, m.Head]:
        """Have the servers test the rows of a prepared change; heads at those that did, which have the change.

        Raises
        ------
        OutOfRangeError
            Rows are out of the encoding's range; the text names them. The change is refused.
        """
        owner = self._owner

        def test(to: list[int]) -> tuple[bool, list[int]]:
            return retry_busy(lambda: self._tested(op, to)), to

        try:
            waited, tested = owner.present(test, heads)
            if waited:
                return owner.ask_present(m.HeadRequest(owner.id), tested)
        except BaseException:
            self._abort(op, sorted(owner.config.servers))
            raise
        return {server: heads[server] for server in tested}

    def _tested(self, op: bytes, among: list[int]) -> bool:
        """Have these servers test the rows; whether they did not answer at once."""
        waited = False
        for servers in self._owner.config.params.server_sets:
            if not set(among).issuperset(servers):
                continue
            certify = m.CertifyRows(op, list(servers), sorted(among))
            replies = self._owner.ask_all(certify, servers, together=True, spare=self._owner.spare)
            again = functools.partial(self._owner.ask_all, m.CollectCertificate(op, list(servers)), together=True)
            collect_pending(replies, again, "check the rows", progress=self._progress)
            waited = waited or any(isinstance(r, m.Pending) for r in replies.values())
        return waited

    def _progress(self, reply: m.Pending) -> None:
        if self.checking is not None and reply.total:
            self.checking(reply.done, reply.total)

    def _common(self, heads: dict[int, m.Head], op: bytes) -> dict[int, m.Head]:
        """The servers at whose head of the chain the change is made; settles open changes first if heads differ.

        Clouds that others can stand in for may be behind: they take over what they lack by themselves.
        """
        if len({(h.position, h.view) for h in heads.values()}) > 1:
            self._settle()
            heads = self._owner.ask_present(m.HeadRequest(self._owner.id), heads)
        longest = max(heads.values(), key=lambda h: h.position)
        same = {s: h for s, h in heads.items() if (h.position, h.view) == (longest.position, longest.view)}
        params = self._owner.config.params
        behind = set(self._owner.config.servers) - set(same)
        ahead = all(h.position < longest.position for s, h in heads.items() if s not in same)
        if not ahead or not behind.issubset(params.clouds) or len(behind) > params.spare_clouds:
            self._abort(op, sorted(self._owner.config.servers))
            raise ConflictError("an earlier change of this owner is not settled on all servers yet; try again")
        return same

    def _commit(
        self, kind: str, op: bytes, content: Content, contents: Mapping[int, bytes], shares: list[bytes], head: m.Head
    ) -> None:
        owner, servers, named = self._owner, sorted(contents), list(contents.values())
        facts = facts_hash(kind, content, servers, named, shares)
        position = head.position + 1
        view = next_view(owner.id, position, head.view, op, facts)
        frames = owner.sign(m.CommitOp(op, kind, position, head.view, view, servers, named, shares))
        first = owner.config.params.key_centres[-1]
        try:
            # always the same server first, so of two changes that compete the same one wins everywhere
            votes = [owner.send({first: frames}, {first: m.CommitOp})[first]]
            if votes[0].commit:
                others = [s for s in servers if s != first]
                votes += owner.send(dict.fromkeys(others, frames), dict.fromkeys(others, m.CommitOp)).values()
            packed = [pack_frames(encode(v)) for v in votes]
            if not all(v.commit for v in votes):
                for server in servers:  # each settles the changes that it can
                    with contextlib.suppress(MippError):
                        owner.ask({server: m.Certify(owner.id, op, packed)})
                states = self._states(op, servers)
                if "committed" in states:  # a server said no here and yes to the others: made again it would be twice
                    raise StoreError(_end(states))
                raise ConflictError(
                    "this change was rolled back, or another one came first; make it again on the new state"
                )
            outcomes = owner.ask_all(m.Certify(owner.id, op, packed), servers).values()
            states = [o.state for o in outcomes]
        except ConflictError:
            self._abort(op, servers)
            # a change whose process died may hold the place: nobody else would complete it
            with contextlib.suppress(MippError):
                self._settle()
            raise
        except MippError as error:
            states = self._settled(op, error, servers)
            if any(s != "committed" for s in states):
                raise StoreError(f"{error} ({_end(states)})") from error
        if any(s != "committed" for s in states):
            raise StoreError(_end(states))

    def _settled(self, op: bytes, error: MippError, servers: list[int]) -> list[str]:
        """States of a change at the servers, after an error in its commit."""
        if self._owner.recover is None:
            raise error
        self._settle()
        try:
            states = [o.state for o in self._owner.ask_all(m.OutcomeRequest(op), servers).values()]
        except MippError:
            raise error from None
        if all(s == "prepared" for s in states):  # nobody accepted it
            self._abort(op, sorted(self._owner.config.servers))
            raise error
        return states

    def _states(self, op: bytes, servers: list[int]) -> list[str]:
        """States of a change at those servers that tell."""
        states = []
        for server in servers:
            with contextlib.suppress(MippError):
                states.append(self._owner.ask({server: m.OutcomeRequest(op)})[server].state)
        return states

    def _settle(self) -> None:
        if self._owner.recover is not None:
            self._owner.recover()

    def _abort(self, op: bytes, servers: list[int]) -> None:
        frames = self._owner.sign(m.AbortOp(op))
        for server in servers:
            with contextlib.suppress(MippError):  # else it is undone when its lease ends
                self._owner.send({server: frames}, {server: m.AbortOp})


def _end(states: list[str]) -> str:
    if "aborted" in states:
        return "this change was rolled back; nothing of it is visible"
    return "whether this change is visible is not settled yet; it will be when all servers are there"
