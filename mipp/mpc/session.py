"""One attempt of a protocol between the three servers: who this party is, its keys, its labels, its messages.

``session = SHA-256(header | nonce_1 | nonce_2 | nonce_3)``, one fresh 16-byte nonce from each server, so no attempt
repeats another's masks even with the same header or after a restart. Keys of steps come from the pair key K_c (of the
two servers other than c) by HKDF-SHA256: once with the session, then with step, purpose and item; a label is used
once. An attempt that fails stays failed: the peers are told, and every later call raises.

Leakage: none; messages here carry nonces and hashes of public values. Cost: one round at the start, 80 bytes to each
peer, and two at the end, 32 bytes and none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import itertools
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..crypto import schedule
from ..errors import (
    DTypeError,
    MessageError,
    MippError,
    OutOfRangeError,
    ParameterError,
    ProtocolError,
    ScoreRangeError,
    ShapeError,
    StaleSnapshotError,
)
from ..params import RING_DTYPES
from ..rpc.failures import error_from_wire, error_to_wire
from ..rpc.turns import short_turns
from . import kernels as local
from .link import HEADER_BYTES, PARTIES, Frame, Header, Link, local_links, parse_header

__all__ = ["Counters", "Party", "Public", "run_local"]

T = TypeVar("T")
#: peer -> arrays; peer -> length and dtype of each array to come
Arrays = dict[int, list[np.ndarray]]
Outgoing = Mapping[int, Sequence[np.ndarray]]
Incoming = Mapping[int, Sequence[tuple[int, type[np.unsignedinteger]]]]
#: of a message that tells why a party stopped
ABORT_BYTES = 1024
HELLO_BYTES = 16 + 32 + 32
CONFIRM_BYTES = 32
MAX_ROWS = 1 << 31
#: limits of time that an attempt may take in all
PATIENCE = 5
#: kinds of messages that come after, or with, work on all rows
_SLOW = ("hello", "reshare", "shuffle")


@dataclasses.dataclass(frozen=True)
class Public:
    """Public facts of one query, on which all three servers and the user must agree.

    Parameters
    ----------
    header : 32 bytes, hash of the query's header
    snapshot : 32 bytes, hash of the index's state that the scores belong to
    rows : N >= 1 scores per query
    ring_bits : 16, 32 or 64, of the score shares
    low, high : every score lies in low..high; high - low < 2^(ring_bits - 1)

    Raises
    ------
    ParameterError, ScoreRangeError
        A value out of range; scores whose spread could wrap.
    """

    header: bytes
    snapshot: bytes
    rows: int
    ring_bits: int
    low: int
    high: int

    def __post_init__(self) -> None:
        if len(self.header) != 32 or len(self.snapshot) != 32:
            raise ParameterError("header and snapshot hashes have 32 bytes")
        if not 1 <= self.rows <= MAX_ROWS:
            raise ParameterError(f"rows must be from 1 to {MAX_ROWS}, not {self.rows}")
        if self.ring_bits not in RING_DTYPES:
            raise ParameterError(f"ring_bits must be 16, 32 or 64, not {self.ring_bits!r}")
        if self.low > self.high:
            raise ParameterError("the score range is empty")
        if self.score_bits > self.ring_bits:
            raise ScoreRangeError(f"scores from {self.low} to {self.high} cannot be compared in {self.ring_bits} bits")

    @property
    def score_bits(self) -> int:
        """w: the least width with high - low < 2^(w-1)."""
        return (self.high - self.low).bit_length() + 1

    @property
    def row_bits(self) -> int:
        """r: ceil(log2 rows)."""
        return (self.rows - 1).bit_length()

    @property
    def key_bits(self) -> int:
        """w + r, the width of distinct keys; ScoreRangeError when they do not fit 64 bits."""
        bits = self.score_bits + self.row_bits
        if bits > 64:
            raise ScoreRangeError(
                f"{self.rows} rows and scores from {self.low} to {self.high} need {bits} bits, more than 64"
            )
        return bits

    def digest(self, *more: int | bytes | str) -> bytes:
        """SHA-256 over all values but the snapshot, and ``more``: what the protocol was asked to do."""
        values = (self.header, self.rows, self.ring_bits, self.low, self.high, *more)
        return local.digest("mipp v1 public", *values)

    def words(self, shares: np.ndarray) -> np.ndarray:
        """One server's additive shares as (B, rows) words of the ring, checked."""
        shares = np.asarray(shares)
        if shares.dtype.kind not in "iu" or shares.dtype.itemsize * 8 != self.ring_bits or not shares.dtype.isnative:
            raise DTypeError(f"score shares must be {self.ring_bits}-bit words, not {shares.dtype}")
        if shares.ndim == 1:
            shares = shares[None]
        if shares.ndim != 2 or shares.shape[1] != self.rows or not len(shares):
            raise ShapeError(f"score shares must be (queries, {self.rows}), not {shares.shape}")
        return shares.view(RING_DTYPES[self.ring_bits])


@dataclasses.dataclass
class Counters:
    """Counts of one party, public.

    Parameters
    ----------
    payload : bytes sent, by message kind
    frames, rounds : frames sent; rounds, also those in which it sent nothing
    comparisons : secret comparisons, with the padding to whole words
    seconds : by message kind, from the end of the round before to the end of its own
    since : when the last round ended
    """

    payload: Counter[str] = dataclasses.field(default_factory=Counter)
    frames: int = 0
    rounds: int = 0
    comparisons: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict, compare=False)
    since: float = dataclasses.field(default_factory=time.perf_counter, compare=False)

    def lap(self, what: str) -> None:
        """Count the seconds since the last one."""
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self.since
        self.since = now

    @property
    def payload_bytes(self) -> int:
        return sum(self.payload.values())

    @property
    def framing_bytes(self) -> int:
        return self.frames * HEADER_BYTES


class Party:
    """Server ``index`` in one attempt of one protocol.

    Parameters
    ----------
    index : 1, 2 or 3
    pair_keys : other party -> 32 secret bytes shared with it
    link : to the peers, for this attempt only
    timeout : seconds to wait for any one message
    slow : seconds more for messages before which, or in which, all rows are worked on; and in all
        :data:`PATIENCE` times both together
    threads : native threads, default all cores

    Secret: the keys. Never shown, never pickled.
    """

    def __init__(
        self,
        index: int,
        pair_keys: Mapping[int, bytes],
        link: Link,
        *,
        timeout: float = 60.0,
        slow: float = 0.0,
        threads: int | None = None,
    ) -> None:
        if index not in PARTIES:
            raise ParameterError(f"a party is 1, 2 or 3, not {index!r}")
        self.index, self.link, self.timeout, self.threads = index, link, timeout, threads or 0
        self.slow, self._began = slow, time.monotonic()
        self.next, self.previous = index % 3 + 1, (index + 1) % 3 + 1
        self.peers = (self.next, self.previous)
        for peer in self.peers:
            if len(pair_keys.get(peer, b"")) != 32:
                raise ParameterError(f"party {index} needs a 32-byte key with party {peer}")
        # by the party that lacks it: what is masked with K_c only c cannot unmask
        self._keys = {6 - index - peer: bytes(pair_keys[peer]) for peer in self.peers}
        self.counters = Counters()
        self.session = b""
        self._step = 0
        self._state = "new"
        self._labels: set[bytes] = set()
        self._opened = hashlib.sha256()
        self._along: list[tuple[str, Outgoing, Incoming, Callable[[Arrays], None]]] = []

    def __repr__(self) -> str:
        return f"Party({self.index}, {self._state}, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a party holds secret keys and does not pickle")

    @property
    def step(self) -> int:
        """Number of rounds so far, public."""
        return self._step

    def at(self, kind: str) -> str:
        """Where an attempt fails, for error texts: the round that this party is in, and the kind of message."""
        return f"round {self._step + 1} ({kind})"

    # --- the attempt -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """All of a protocol runs inside: whatever goes wrong ends this party for good and is told to the peers."""
        if self._state != "new":
            raise ProtocolError("this attempt is over; start a new one with a new link")
        self._state = "running"
        try:
            yield
        except BaseException as error:
            self._state = "failed"
            self._tell(error)
            raise
        else:
            assert not self._along, "no round came for messages that go along"
            self._state = "done"
        finally:
            self._keys.clear()

    def fail(self, error: BaseException) -> None:
        """End an attempt that cannot begin here: the peers are told, so that nobody waits. The caller raises."""
        with contextlib.suppress(BaseException), self.attempt():
            raise error

    def _tell(self, error: BaseException) -> None:
        known = error if isinstance(error, Exception) else ProtocolError("stopped")
        name, text = error_to_wire(known)
        payload = f"{name}\n{text}".encode()[:ABORT_BYTES]
        for peer in self.peers:
            with contextlib.suppress(Exception):
                self._send("abort", peer, [memoryview(payload)])

    def hello(self, header: bytes, parameters: bytes, snapshot: bytes) -> None:
        """First round: fresh nonces make the session, and all must mean the same parameters and snapshot.

        Parameters
        ----------
        header, parameters, snapshot : 32 bytes each, public; ``parameters`` covers the header (:meth:`Public.digest`)

        Raises
        ------
        ParameterError, StaleSnapshotError
            A peer has other parameters, or another snapshot.
        """
        nonces = {self.index: schedule.random_bytes(16)}
        mine = np.frombuffer(nonces[self.index] + parameters + snapshot, np.uint8)
        at = self.at("hello")
        got = self._to_all("hello", mine)
        for peer in self.peers:
            theirs = got[peer][0].tobytes()
            nonces[peer] = theirs[:16]
            if theirs[16:48] != parameters:
                raise ParameterError(f"{at}: parties {self.index} and {peer} were given different parameters")
            if theirs[48:] != snapshot:
                raise StaleSnapshotError(f"{at}: parties {self.index} and {peer} have different snapshots")
        self.session = hashlib.sha256(header + b"".join(nonces[p] for p in PARTIES)).digest()
        self._keys = {c: schedule.hkdf(k, b"mipp v1 session" + self.session) for c, k in self._keys.items()}

    def confirm(self) -> None:
        """Last two rounds: nobody gives out a result before all saw the same opened bits, and said so.

        A fault that any party has noticed by its ``confirm`` ends the attempt at all parties. Only the loss of a
        ``done`` is noticed by its receiver alone; the user, who needs every party's part, still gets nothing.
        """
        mine, at = np.frombuffer(self._opened.digest(), np.uint8), self.at("confirm")
        got = self._to_all("confirm", mine)
        for peer in self.peers:
            if not hmac.compare_digest(got[peer][0].tobytes(), mine.tobytes()):
                raise ProtocolError(f"{at}: parties {self.index} and {peer} saw different opened bits")
        self.exchange("done", dict.fromkeys(self.peers, ()), dict.fromkeys(self.peers, ()))

    def _to_all(self, kind: str, mine: np.ndarray) -> dict[int, list[np.ndarray]]:
        specs = [(mine.size, np.uint8)]
        return self.exchange(kind, {p: [mine] for p in self.peers}, dict.fromkeys(self.peers, specs))

    def note_opened(self, words: np.ndarray) -> None:
        """Bits that all parties opened, for :meth:`confirm`."""
        self._opened.update(words.tobytes())

    # --- keys --------------------------------------------------------------------------------------------------

    def key(self, missing: int, purpose: str, item: int = 0) -> bytes:
        """A fresh AES-256 key that only the two parties other than ``missing`` can derive.

        Bound to session, step, ``purpose`` and ``item``; asking twice is an error. 32 secret bytes.
        """
        label = step_label(self._step, purpose, item)
        if not self.session or missing not in self._keys:
            raise ProtocolError("no session, or a key that this party does not have")
        if bytes([missing]) + label in self._labels:
            raise ProtocolError("a mask would have been used twice")
        self._labels.add(bytes([missing]) + label)
        return _expand(self._keys[missing], label)

    def coins(self, purpose: str, count: int) -> np.ndarray:
        """``count`` random bytes that all three servers know: nobody did before the nonces were exchanged.

        What is tested with them must have been fixed before this attempt began.
        """
        if not self.session:
            raise ProtocolError("no session")
        key = hashlib.sha256(b"mipp v1 coins" + self.session + purpose.encode()).digest()
        return local.keystream(key, count, np.dtype(np.uint8), self.threads)

    def zero_keys(self, purpose: str, item: int = 0) -> tuple[bytes, bytes]:
        """Keys lacked by the next and by the previous party: masks that cancel over the three."""
        return self.key(self.next, purpose, item), self.key(self.previous, purpose, item)

    # --- messages ----------------------------------------------------------------------------------------------

    def along(self, kind: str, outgoing: Outgoing, incoming: Incoming, then: Callable[[Arrays], None]) -> None:
        """Messages that go along with the next round's, before them; ``then`` gets what comes before that round ends.

        Parameters as of :meth:`exchange`. What ``then`` raises ends the attempt as if the round had raised it.
        """
        self._along.append((kind, outgoing, incoming, then))

    def exchange(self, kind: str, outgoing: Outgoing, incoming: Incoming) -> Arrays:
        """One round: send, then wait for what must come.

        Parameters
        ----------
        kind : message kind
        outgoing : peer -> contiguous arrays, not written to afterwards
        incoming : peer -> (length, dtype) of each array to come

        Returns
        -------
        dict
            peer -> arrays, read-only

        Raises
        ------
        ProtocolError, MessageError
            A peer failed, was silent for ``timeout`` seconds, or sent what does not belong here. The text names the
            round and the kind of message.
        """
        if self._state != "running":
            raise ProtocolError("this attempt is over; start a new one with a new link")
        along, self._along = self._along, []
        for name, out in [*((name, out) for name, out, _, _ in along), (kind, outgoing)]:
            for peer, arrays in out.items():
                self._send(name, peer, [a.reshape(-1).view(np.uint8).data.toreadonly() for a in arrays if a.size])
        for name, _, wanted, then in along:
            then({peer: self._receive(name, peer, specs) for peer, specs in wanted.items()})
        got = {peer: self._receive(kind, peer, specs) for peer, specs in incoming.items()}
        self._step += 1
        self.counters.rounds += 1
        self.counters.lap(kind)
        return got

    def _send(self, kind: str, peer: int, parts: Sequence[memoryview]) -> None:
        length = sum(p.nbytes for p in parts)
        head = Header(kind, self.index, peer, self._step, self.session[:16].ljust(16, b"\0"), length).pack()
        self.link.send(peer, Frame(head, parts))
        self.counters.payload[kind] += length
        self.counters.frames += 1

    def _patience(self, kind: str) -> float:
        """Seconds to wait for a message: a peer that comes just in time each time must not hold an attempt for ever."""
        left = self._began + PATIENCE * (self.timeout + self.slow) - time.monotonic()
        if left <= 0:
            raise ProtocolError("the attempt takes longer than it may")
        return min(self.timeout + (self.slow if kind in _SLOW else 0.0), left)

    def _receive(self, kind: str, peer: int, specs: Sequence[tuple[int, type[np.unsignedinteger]]]) -> list[np.ndarray]:
        sizes = [count * np.dtype(dtype).itemsize for count, dtype in specs]
        at = self.at(kind)
        try:
            frame = self.link.receive(peer, max(sum(sizes), ABORT_BYTES), self._patience(kind))
            header = parse_header(frame.head)
        except (ProtocolError, MessageError) as error:
            raise type(error)(f"{at}: {error}") from error
        if header.sender != peer or header.receiver != self.index:
            raise MessageError(f"{at}: a frame of another sender or for another receiver")
        if frame.nbytes != header.length:
            raise MessageError(f"{at}: a frame of party {peer} is not as long as it says")
        if header.kind == "abort":
            raise _peer_error(f"{at}: party {peer}", b"".join(frame.parts), begun=bool(self.session))
        if header.session != self.session[:16].ljust(16, b"\0"):
            raise ProtocolError(f"{at}: party {peer} sent a message of another session")
        if header.step != self._step or header.kind != kind:
            raise ProtocolError(f"{at}: party {peer} sent a message of another step")
        if header.length != sum(sizes):
            raise MessageError(f"{at}: party {peer} sent {header.length} bytes where {sum(sizes)} belong")
        return [np.frombuffer(part, dtype) for part, (_, dtype) in zip(_cut(frame.parts, sizes), specs, strict=True)]


def step_label(step: int, purpose: str, item: int) -> bytes:
    """HKDF info of one key: no two (step, purpose, item) give the same bytes."""
    name = purpose.encode()
    return b"mipp v1 step" + struct.pack(">IIB", step, item, len(name)) + name


_INNER, _OUTER = (bytes(x ^ pad for x in range(256)) for pad in (0x36, 0x5C))


def _expand(key: bytes, label: bytes) -> bytes:
    """HKDF-Expand (RFC 5869) to 32 bytes: one block of HMAC-SHA256. ``key`` is HKDF output already.

    Written out, as :func:`hmac.digest` gives up the interpreter's lock each time: 20 us with three parties, not 1.
    """
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(block.translate(_INNER) + label + b"\x01").digest()
    return hashlib.sha256(block.translate(_OUTER) + inner).digest()


def _cut(parts: Sequence[memoryview], sizes: Sequence[int]) -> list[memoryview]:
    """Parts of the given sizes, without a copy when they came that way or as one piece."""
    if [p.nbytes for p in parts] == [s for s in sizes if s]:
        left = iter(parts)
        return [next(left).toreadonly() if s else memoryview(b"") for s in sizes]
    whole = (parts[0] if len(parts) == 1 else memoryview(b"".join(parts))).toreadonly()
    ends = np.cumsum([0, *sizes]).tolist()
    return [whole[a:b] for a, b in itertools.pairwise(ends)]


def _peer_error(who: str, payload: bytes, *, begun: bool) -> MippError:
    """The error that a peer stopped with. Once the session has begun, it is no refusal any more.

    A peer that names one then, "busy" or "the index changed", would have the user's client ask again by itself, when
    opened bits have been seen.
    """
    name, _, text = payload.decode(errors="replace").partition("\n")
    if begun and name != OutOfRangeError.__name__:
        name = ProtocolError.__name__
    return error_from_wire(name, f"{who} stopped: {text}")


def run_local(
    task: Callable[[Party], T],
    pair_keys: Mapping[int, Mapping[int, bytes]],
    *,
    links: Mapping[int, Link] | None = None,
    timeout: float = 60.0,
    threads: int | None = None,
) -> dict[int, T]:
    """Run ``task`` for the three parties in three threads of this process.

    Parameters
    ----------
    task : gets the party; its result is returned
    pair_keys : party -> its keys by peer
    links : party -> link; default queues of this process

    Returns
    -------
    dict
        party -> result

    Raises
    ------
    MippError
        The first error that a party met; nobody's result is returned then.
    """
    links = links or local_links()
    parties = {i: Party(i, pair_keys[i], links[i], timeout=timeout, threads=threads) for i in PARTIES}
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def work(party: Party) -> None:
        try:
            results[party.index] = task(party)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(parties[i],), name=f"mipp party {i}") for i in PARTIES[1:]]
    with short_turns():
        for worker in workers:
            worker.start()
        work(parties[1])
        for worker in workers:
            worker.join()
    if errors:  # peers only hear that an unexpected one happened: show that one itself
        raise next((e for e in errors if not isinstance(e, MippError)), errors[0])
    return results
