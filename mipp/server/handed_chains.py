"""Owners' chains as servers tell them to each other: their message, and which of several servers' is to be adopted."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import MessageError, ProtocolError
from ..rpc import peer_messages as pm
from ..rpc.wire import decode, encode, pack_frames, unpack_frames
from ..store.chains import Chain

__all__ = ["agreed_batches", "chain_facts", "chain_message", "longest", "read_chain"]


def chain_message(c: Chain) -> bytes:
    """A chain as one string."""
    batches = list(zip(*c.batches, strict=True)) or [()] * 11
    ops = list(zip(*c.ops, strict=True)) or [()] * 5
    *facts, records, shares, certificates, imaged = [list(column) for column in batches]
    packs = list(zip(*c.packs, strict=True)) or [()] * 4
    columns: list[Any] = [
        *facts,
        imaged,
        *(list(column) for column in ops),
        c.refused,
        shares,
        certificates,
        c.accepted,
        records,
        *(list(column) for column in packs),
    ]
    chain = pm.ChainState(c.owner, c.position, c.view, c.floor, c.floor_view, *columns)
    return pack_frames(encode(chain))


def read_chain(packed: bytes) -> Chain:
    """Inverse of :func:`chain_message`; MessageError for what is none."""
    msg = decode(unpack_frames(packed), pm.ChainState)
    none = [b""] * len(msg.batches)
    try:
        batches = list(
            zip(msg.positions, msg.rows, msg.dims, msg.batches, msg.dead, msg.origin_batch, msg.origin_row,
                msg.records or none, msg.shares or none, msg.certificates or none, msg.imaged, strict=True)
        )  # fmt: skip
        packs = list(zip(msg.packs, msg.pack_rows, msg.albums, msg.pack_hashes, strict=True))
        ops = list(zip(msg.ops, msg.kinds, msg.op_positions, msg.views, msg.commits, strict=True))
    except ValueError:
        raise MessageError("a history whose columns have different lengths") from None
    head = msg.owner, msg.position, msg.view, msg.floor, msg.floor_view
    return Chain(*head, batches, ops, msg.refused, msg.accepted, packs)


def longest(handed: list[list[Chain]], *, whole: bool) -> list[Chain]:
    """The longest history of each owner, of the chains of each server, with all that any server refused.

    ``whole``: of servers that were not restored. Then one is ahead of the other by one change at most, which that one
    accepted: else the longer history is made up. That holds for the two longest of three: a cloud that was away may be
    further behind.
    """
    found: dict[bytes, list[Chain]] = {}
    for chains in handed:
        if len({chain.owner for chain in chains}) != len(chains):
            raise ProtocolError("a server shows two histories of one owner")
        for chain in chains:
            found.setdefault(chain.owner, []).append(chain)
    return [_longest_of(chains, whole=whole) for chains in found.values()]


def _longest_of(chains: list[Chain], *, whole: bool) -> Chain:
    """The longest of several servers' chains of one owner."""
    first, *others = sorted(chains, key=lambda c: -c.position)
    for second in others[:1]:
        first = _longer(first, second, whole=whole)
    for short in others[1:]:
        if not short.begins(first):
            raise ProtocolError(f"the other servers have different histories of owner {short.owner.hex()}")
        refused = {*first.refused, *short.refused} - {op[0] for op in first.ops}
        first = dataclasses.replace(first, refused=sorted(refused))
    return first


def _longer(best: Chain, chain: Chain, *, whole: bool) -> Chain:
    """Of the chains of two servers the longer one; ProtocolError if they do not fit."""
    short, long = sorted((best, chain), key=lambda c: c.position)
    same = short.position == long.position
    facts = [(c.view, chain_facts(c), c.packs) for c in (short, long)]
    if not short.begins(long) or (same and facts[0] != facts[1]):
        raise ProtocolError(f"the other servers have different histories of owner {chain.owner.hex()}")
    if whole and not same and not _one_ahead(short, long):
        raise ProtocolError(f"a server shows changes of owner {chain.owner.hex()} that another one never accepted")
    imaged = same and any(b[-1] for b in short.batches)  # a cloud knows which rows have images
    batches = agreed_batches(long, short) if not imaged else agreed_batches(short, long)
    committed = {op[0] for op in long.ops}
    refused = ({*short.refused} | {*long.refused}) - committed
    return dataclasses.replace(long, batches=batches, refused=sorted(refused))


def _one_ahead(short: Chain, long: Chain) -> bool:
    """Whether the longer history goes on from the shorter one with the change that is accepted there.

    Batches of the shorter one are in the longer one as they are, unless that change deletes rows of them or merges
    them.
    """
    last = [(op + commit, kind) for op, kind, position, _, commit in long.ops if position == long.position]
    if long.position != short.position + 1 or len(last) != 1 or last[0][0] != short.accepted:
        return False
    kind, before, after = last[0][1], chain_facts(short), chain_facts(long)
    if kind == "upload":
        return after[:-1] == before
    if kind == "delete":
        return [(*f[:4], *f[5:]) for f in after] == [(*f[:4], *f[5:]) for f in before]
    if kind == "annotate":
        return [f[:7] for f in after] == [f[:7] for f in before]
    return after[:-1] == [f for f in before if f in after[:-1]]


def chain_facts(chain: Chain) -> list[Any]:
    """The facts of an owner's batches that all servers know."""
    return [tuple(b[:8]) for b in chain.batches]


def agreed_batches(chain: Chain, second: Chain) -> list[tuple[Any, ...]]:
    """Batches of a chain, with the hashes of shares that either server knows, and range certificates that both know.

    ProtocolError if they know different shares. One that keeps silent about them makes nobody forget them, and one
    that names wrong ones hinders a repair, no more.
    """
    known, out = {b[3]: (b[8], b[9]) for b in second.batches}, []
    for *facts, shares, certificate, imaged in chain.batches:
        other = known.get(facts[3], (b"", b""))
        if shares and other[0] and shares != other[0]:
            raise ProtocolError(f"the other servers have different shares of batch {facts[3].hex()}")
        out.append((*facts, shares or other[0], certificate if certificate == other[1] else b"", imaged))
    return out
