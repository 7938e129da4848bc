"""Servers that deviate from the protocol in one way each: the whole list, and what comes of each.

`docs/pages/threat-model.md` has the same list for readers. `scene.py` says what the outcomes mean.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections.abc import Callable

import numpy as np

from mipp.crypto import schedule
from mipp.errors import BusyError, ProtocolError
from mipp.mpc import session
from mipp.rpc import messages as m
from mipp.server import ranking as server_ranking
from tests.adversary.scene import (
    ANY_ROUND,
    EACH_ROUND,
    FEW,
    NO_EFFECT,
    SETTINGS,
    UNDETECTED,
    Lie,
    Outcome,
    Scene,
    detected,
)
from tests.mpc.parties import remade

CONTRADICTED = detected("VerificationError")


# --- score shares ----------------------------------------------------------------------------------------------------


def _score_shares(change: Callable) -> Callable[[Scene], None]:
    return lambda scene: scene.score_shares(change)


def _a_constant(words, header, before):
    words += words.dtype.type(1000)
    return words


def _one_row(words, header, before):
    words[0, ::4] += words.dtype.type(3000)
    words[0, 1::4] -= words.dtype.type(3000)
    return words


def _high_bits(words, header, before):
    words[0, ::3] ^= words.dtype.type(1 << 13)
    return words


def _half_of_the_ring(words, header, before):
    words[0, :1] += words.dtype.type(1 << (8 * words.dtype.itemsize - 1))
    return words


def _stale_row(scene):
    """The nearest row of one query: its share is another row's."""
    row = scene.truth["server"][0][0][0]

    def change(words, header, before):
        words[:, row] = words[:, row - 1]
        return words

    scene.score_shares(change)


def _stale_rows(words, header, before):
    words[:, 1::2] = words[:, ::2][:, : words[:, 1::2].shape[1]]
    return words


def _other_batch(words, header, before):
    return np.ascontiguousarray(words[:, ::-1])


def _other_queries(words, header, before):
    words[: header.queries] = words[: header.queries][::-1].copy()
    return words


def _replayed(words, header, before):
    return next((old.copy() for old in before[:-1] if old.shape == words.shape), words)


def _replay(scene):
    scene.score_shares(_replayed)
    for setting in SETTINGS:  # true ones first, of each shape, to be given again
        scene._ask(setting)


def _wrong_zero_share(words, header, before):
    raw = np.frombuffer(os.urandom(words.nbytes), words.dtype)
    return raw.reshape(words.shape).copy()


def _a_check_column(words, header, before):
    if header.checks:
        words[header.queries :, 3] += words.dtype.type(1)
    return words


def _folded(scene):
    scene.patch.setattr(type(scene.user._querier), "folds", lambda self, index: True)

    def change(reply):
        scene.told += 1
        return m.FoldedColumns(reply.words + reply.words.dtype.type(1))

    scene.replies(m.FoldedColumns, change)


def _selective(words, header, before):
    """Half of what a comparison holds, on the row that the server asks about: it was the nearest of all, or was not."""
    words[0, :1] += words.dtype.type(1 << 16)
    return words


# --- messages between servers ----------------------------------------------------------------------------------------


def _message(kind: str, change: Callable) -> Callable[[Scene], None]:
    return lambda scene: scene.message(kind, lambda party, outgoing: change(scene, party, outgoing))


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _copied(outgoing, peer):
    outgoing[peer] = [a.copy() for a in outgoing[peer]]
    return outgoing[peer]


def _other_nonce(scene, party, outgoing):
    """The same for both peers; its own keys are those of another one."""
    for peer in outgoing:
        _bytes(_copied(outgoing, peer)[0])[:16] = 7


def _old_nonce(scene):
    """The same in every attempt; the others' are fresh, and so is the session."""

    class Stale:
        def __getattr__(self, name):
            return getattr(schedule, name)

        def random_bytes(self, count):
            return b"n" * count if threading.get_ident() in scene.threads else schedule.random_bytes(count)

    scene.told += 1
    scene.patch.setattr(session, "schedule", Stale())


def _two_nonces(scene, party, outgoing):
    _bytes(_copied(outgoing, party.next)[0])[0] ^= 1


def _other_parameters(scene, party, outgoing):
    for peer in outgoing:
        _bytes(_copied(outgoing, peer)[0])[20] ^= 1


def _range_check(scene, party, outgoing):
    for array in {id(a): a for arrays in outgoing.values() for a in arrays}.values():
        array[0] += array.dtype.type(1)


def _one_bit(scene, party, outgoing):
    """Another bit at each try, of what the peer gets: of the first comparison or row in each plane or word."""
    arrays = [a for arrays in outgoing.values() for a in arrays if a.size]
    every = list(itertools.chain.from_iterable(_places(a) for a in arrays))
    array, at, bit = every[scene.number % len(every)]
    array.reshape(-1)[at] ^= array.dtype.type(1 << bit)


def _places(array):
    """Words and bits that two rows' messages use: packed words, or the first bit of each plane of 512."""
    if array.dtype != np.uint64 or array.size < 8:
        return [(array, at, bit) for bit in range(8, min(36, 8 * array.itemsize)) for at in range(min(array.size, 2))]
    return [(array, at, 0) for at in reversed(range(0, array.size, 8))]


def _opened_to_both(scene, party, outgoing):
    """In place: the party goes on with what its peers see."""
    outgoing[party.next][0][0] ^= np.uint64(1)


def _opened_to_one(scene, party, outgoing):
    _copied(outgoing, party.next)[0][0] ^= np.uint64(1)


def _wrong_hash(scene, party, outgoing):
    for peer in outgoing:
        _bytes(_copied(outgoing, peer)[0])[0] ^= 1


def _earlier_attempt(scene):
    """Every message after the first round is one of an earlier attempt."""
    kept = {}

    def keep(header, frame):
        kept.setdefault((header.kind, header.receiver), frame)
        return frame

    def change(header, frame):
        old = kept.get((header.kind, header.receiver)) if header.kind != "hello" else None
        scene.told += old is not None
        return old or frame

    scene.tapped = keep
    scene._ask("threshold")
    scene.tapped = change


def _earlier_round(scene):
    """In place of the last message, the one before it."""
    last = {}

    def change(header, frame):
        old = last.get(header.receiver) if header.kind == "done" else None
        last[header.receiver] = frame
        scene.told += old is not None
        return old or frame

    scene.tapped = change


def _other_length(scene):
    def change(header, frame):
        if header.kind not in ("shuffle", "reshare", "split", "generate", "and", "open", "confirm"):
            return frame
        scene.told += 1
        return remade(dataclasses.replace(frame, parts=[*frame.parts, memoryview(bytes(8))]), length=header.length + 8)

    scene.tapped = change


def _silence(scene):
    """From another round on in each try, until the last one."""
    scene.patch.setattr(server_ranking, "TIMEOUT", 0.2)

    def begin():
        scene.silent_from = scene.number
        scene.told += 1

    scene._each_attempt(begin)


def _abort_as_refusal(scene):
    """Stops after it saw the opened bits, and calls it a change of the index, on which a client asks again."""

    def change(header, frame):
        if header.kind != "confirm":
            return frame
        scene.told += 1
        text = b"StaleSnapshotError\nthe index changed"
        made = remade(dataclasses.replace(frame, parts=[memoryview(text)]), kind="abort", length=len(text))
        return made

    scene.tapped = change


# --- what the user gets ----------------------------------------------------------------------------------------------


def _key(scene: Scene, rows, scores) -> np.ndarray:
    """K of rows and scores, as the servers form it."""
    low, high = scene.deployment.config.encoding.score_range
    r, w = (scene.rows - 1).bit_length(), (high - low).bit_length() + 1
    words = (np.array(scores, np.int64).view(np.uint64) << np.uint64(r)) + np.uint64((1 << r) - 1)
    return (words - np.array(rows, np.uint64)) & np.uint64((1 << w + r) - 1)


def _told_ranking(change: Callable) -> Callable[[Scene], None]:
    """The liar knows the true ranking, and adds what makes it another one: ``change(rows, scores)`` of query 0."""

    def tell(scene):
        low, high = scene.deployment.config.encoding.score_range
        rows, scores = (np.array(x) for x in scene.truth["server"])
        before = _key(scene, rows, scores)
        change(scene, rows[0], scores[0])
        delta = _key(scene, rows, scores) - before
        mask = np.uint64((1 << (high - low).bit_length() + 1 + (scene.rows - 1).bit_length()) - 1)
        scene.part(lambda words: (words + delta) & mask)

    return tell


def _row_twice(scene, rows, scores):
    rows[1] = rows[0]


def _no_row(scene, rows, scores):
    rows[1] = (1 << (scene.rows - 1).bit_length()) - 1


def _score_out_of_range(scene, rows, scores):
    scores[0] = scene.deployment.config.encoding.score_range[1] + 1


def _score_out_of_order(scene, rows, scores):
    scores[2] = scores[1] + 1


def _next_in_rank(scene, rows, scores):
    """A row that was not among the nearest, with a score that fits."""
    rows[2] = next(row for row in range(scene.rows) if row not in rows)
    scores[2] -= 1


def _match_bit(scene):
    def change(words):
        words[0, 0] ^= words.dtype.type(1)
        return words

    scene.part(change)


def _match_bits_at_random(scene):
    scene.part(lambda words: np.frombuffer(os.urandom(words.nbytes), words.dtype).reshape(words.shape))


def _part_of_another_session(scene):
    kept: dict[tuple[int, ...], m.Ranked] = {}

    def reply(ranked):
        scene.told += 1
        return kept.setdefault(ranked.words.shape, ranked)

    scene.replies(m.Ranked, reply)
    for setting in ("server", "threshold"):
        scene._ask(setting)


def _other_shape(scene):
    scene.part(lambda words: words[:, :-1])


def _busy_afterwards(scene):
    """Takes part, sees whether the attempt went well, and says that it was busy: the client asks again by itself."""
    said = threading.Event()

    def reply(answer):
        scene.told += 1
        if said.is_set():
            said.clear()
            return answer
        said.set()
        raise BusyError("too many requests; try again later")

    scene._each_attempt(lambda: None)
    scene.replies(m.Ranked, reply)


def _refuses(scene):
    def reply(answer):
        scene.told += 1
        raise ProtocolError("nothing")

    scene.replies((m.Ranked, m.Answer), reply)


def everywhere(user=None, server=None, threshold=None) -> dict[str, Outcome]:
    given = {"user": user, "server": server, "threshold": threshold}
    return {setting: outcome for setting, outcome in given.items() if outcome is not None}


_ADDED = detected("ProtocolError", "the user's parts")
_ALL_WRONG = everywhere(CONTRADICTED, detected("ProtocolError", "open"), UNDETECTED)

LIES = [
    # score shares
    Lie("adds a constant to all score shares", _score_shares(_a_constant),
        everywhere(CONTRADICTED, UNDETECTED, UNDETECTED)),
    Lie("adds numbers to the score shares of some rows", _score_shares(_one_row),
        everywhere(CONTRADICTED, UNDETECTED, UNDETECTED)),
    Lie("flips high bits of score shares", _score_shares(_high_bits),
        everywhere(CONTRADICTED, UNDETECTED, UNDETECTED), tries=40),
    Lie("adds half of the ring to a score share", _score_shares(_half_of_the_ring),
        everywhere(CONTRADICTED, NO_EFFECT, NO_EFFECT)),
    Lie("computes with one stale row", _stale_row, everywhere(CONTRADICTED, UNDETECTED, UNDETECTED),
        tries=200),
    Lie("computes with many stale rows", _score_shares(_stale_rows), _ALL_WRONG),
    Lie("gives the score shares of another batch", _score_shares(_other_batch), _ALL_WRONG),
    Lie("swaps the score shares of two queries", _score_shares(_other_queries),
        everywhere(CONTRADICTED, detected("ProtocolError", "open"))),
    Lie("gives the score shares of an earlier query again", _replay, _ALL_WRONG),
    Lie("adds a wrong zero share", _score_shares(_wrong_zero_share), _ALL_WRONG),
    Lie("adds to a check column", _score_shares(_a_check_column), everywhere(CONTRADICTED)),
    Lie("adds to a folded check column", _folded, everywhere(CONTRADICTED)),
    Lie("adds to one row and watches what happens", _score_shares(_selective),
        everywhere(CONTRADICTED, UNDETECTED, UNDETECTED), rows=FEW),
    # messages between servers
    Lie("says a nonce that it does not use", _message("hello", _other_nonce),
        everywhere(None, detected("ProtocolError", "check"), detected("ProtocolError", "check")), rows=FEW),
    Lie("uses the nonce of an earlier attempt again", _old_nonce, everywhere(None, NO_EFFECT, NO_EFFECT), rows=FEW),
    Lie("says two nonces", _message("hello", _two_nonces),
        everywhere(None, detected("ProtocolError", "check"), detected("ProtocolError", "check")), rows=FEW),
    Lie("names other parameters", _message("hello", _other_parameters),
        everywhere(None, detected("ParameterError", "hello"), detected("ParameterError", "hello")), rows=FEW),
    Lie("alters the sums of the query's range check", _message("check", _range_check),
        everywhere(None, detected("OutOfRangeError", "check"), detected("OutOfRangeError", "check")), rows=FEW),
    Lie("alters a message of the shuffle", _message("shuffle", _one_bit),
        everywhere(None, UNDETECTED), rows=FEW, tries=60),
    Lie("alters a message of the resharing", _message("reshare", _one_bit),
        everywhere(None, None, UNDETECTED), rows=FEW, tries=60),
    Lie("alters a split message", _message("split", _one_bit), everywhere(None, UNDETECTED, UNDETECTED), rows=FEW,
        tries=60),
    Lie("alters a generate message", _message("generate", _one_bit), everywhere(None, UNDETECTED, UNDETECTED),
        rows=FEW, tries=60),
    Lie("alters the message of an AND gate", _message("and", _one_bit), everywhere(None, UNDETECTED, UNDETECTED),
        rows=FEW, tries=60),
    Lie("flips an opened bit towards both peers", _message("open", _opened_to_both),
        everywhere(None, UNDETECTED), rows=FEW),
    Lie("flips an opened bit towards one peer", _message("open", _opened_to_one),
        everywhere(None, detected("ProtocolError", "confirm")), rows=FEW),
    Lie("confirms other opened bits", _message("confirm", _wrong_hash),
        everywhere(None, detected("ProtocolError", "confirm"), detected("ProtocolError", "confirm")), rows=FEW),
    Lie("sends a message of an earlier attempt again", _earlier_attempt,
        everywhere(None, detected("ProtocolError", "check"), detected("ProtocolError", "check")),
        rows=FEW),
    Lie("sends the message of the round before again", _earlier_round,
        everywhere(None, detected("ProtocolError", "done"), detected("ProtocolError", "done")), rows=FEW),
    Lie("sends a message of another length", _other_length,
        everywhere(None, detected("MessageError", ANY_ROUND),
                   detected("MessageError", ANY_ROUND)), rows=FEW),
    Lie("falls silent in any round", _silence,
        everywhere(None, detected("UnreachableError", ANY_ROUND), detected("UnreachableError", ANY_ROUND)), rows=FEW,
        tries=EACH_ROUND),
    Lie("stops after it saw the opened bits, and says that the index changed", _abort_as_refusal,
        everywhere(None, detected("ProtocolError", "confirm"), detected("ProtocolError", "confirm")), rows=FEW),
    # what the user gets
    Lie("names a row twice", _told_ranking(_row_twice), everywhere(None, _ADDED)),
    Lie("names a row that is none", _told_ranking(_no_row), everywhere(None, _ADDED)),
    Lie("gives a score out of range", _told_ranking(_score_out_of_range), everywhere(None, _ADDED)),
    Lie("gives scores against the order", _told_ranking(_score_out_of_order), everywhere(None, _ADDED)),
    Lie("puts another row, with a score that fits, in the last place", _told_ranking(_next_in_rank),
        everywhere(None, UNDETECTED)),
    Lie("flips a match bit", _match_bit, everywhere(None, None, UNDETECTED)),
    Lie("gives random match bits", _match_bits_at_random, everywhere(None, None, _ADDED)),
    Lie("gives its part of another session", _part_of_another_session, everywhere(None, _ADDED, _ADDED)),
    Lie("gives a part of another shape", _other_shape, everywhere(None, _ADDED, _ADDED)),
    Lie("says that it was busy, after it took part", _busy_afterwards,
        everywhere(None, UNDETECTED, UNDETECTED)),
    Lie("gives the user no answer", _refuses, dict.fromkeys(SETTINGS, detected("ProtocolError"))),
]  # fmt: skip
