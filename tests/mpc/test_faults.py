"""A link that loses, repeats, reorders, cuts or rewrites one message: typed errors at every party, in time.

Every message of a run is disturbed in turn. Nobody can know whether the very last message of a run arrived: a fault
in the round of ``done`` is noticed by its receiver alone, and the user, who needs all three parts, gets nothing. A
``done`` that comes twice changes nothing.
"""

import re
import threading
import time

import numpy as np
import pytest

from mipp.errors import MippError, ProtocolError
from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.link import Frame
from mipp.mpc.session import Party
from mipp.mpc.topk import combine_top_k, top_k
from tests.mpc.parties import KEYS, public, remade, share, tapped
from tests.mpc.ranged import ENCODINGS, Ranged

RNG = np.random.default_rng(12)
ROWS = 130  # more than one call of the comparison
PUBLIC = public(ROWS)
SCORES = RNG.integers(-100, 101, (1, ROWS))
SHARES = share(SCORES, np.uint32, RNG)
LIMIT = 0.25

RANGED = Ranged(ENCODINGS["cosine"])
FEATURES = RANGED.features(40, RNG)
COLUMNS = RANGED.columns(RANGED.encoding.encode_queries(FEATURES[:1]))
PROOF = RANGED.prove(RANGED.encoding.encode_queries(FEATURES[:1]))

TASKS = {
    "top-k": lambda p: top_k(p, SHARES[p.index], 2, PUBLIC, zero=RANGED.relations(p.index, PROOF, COLUMNS)),
    "threshold": lambda p: threshold(p, SHARES[p.index], PUBLIC, 5),
    "certificate": RANGED.task(RANGED.share(RANGED.encoding.encode_rows(FEATURES))),
}


def cut(frame, size):
    whole = b"".join(frame.parts)
    return Frame(frame.head, [memoryview(whole[:size] if size <= len(whole) else whole + bytes(size - len(whole)))])


class Fault:
    """Disturbs the ``at``-th message that ``sender`` sends; knows whether it came to that, and at which kind."""

    def __init__(self, name, sender, at):
        self.name, self.sender, self.at = name, sender, at
        self.count, self.held, self.kind = 0, None, None
        self._lock = threading.Lock()

    def __call__(self, header, frame, send):
        with self._lock:
            if self.held is not None and header.kind != "abort" and header.receiver == self.held[0]:
                send(frame)
                send = self.held[1]
                frame, self.held = self.held[2], None
                send(frame)
                return
            hit = self.count == self.at and header.kind != "abort"
            self.count += 1
        if not hit:
            send(frame)
            return
        self.kind = header.kind
        size = frame.nbytes
        changes = {
            "repeated": lambda: (send(frame), send(frame)),
            "lost": lambda: None,
            "reordered": lambda: setattr(self, "held", (header.receiver, send, frame)),
            "truncated": lambda: send(cut(frame, max(size - 1, 0))),
            "truncated, length too": lambda: send(remade(cut(frame, size // 2), length=size // 2)),
            "longer": lambda: send(remade(cut(frame, size + 8), length=size + 8)),
            "much longer": lambda: send(remade(cut(frame, size + 5000), length=size + 5000)),
            "empty": lambda: send(remade(cut(frame, 0), length=0)),
            "no header": lambda: send(Frame(b"", frame.parts)),
            "bad magic": lambda: send(Frame(b"XXXX" + frame.head[4:], frame.parts)),
            "other session": lambda: send(remade(frame, session=b"?" * 16)),
            "other step": lambda: send(remade(frame, step=header.step + 1)),
            "other kind": lambda: send(remade(frame, kind="open" if header.kind != "open" else "and")),
            "other sender": lambda: send(remade(frame, sender=6 - header.sender - header.receiver)),
            "abort": lambda: send(remade(cut(frame, 3), kind="abort", length=3)),
        }
        changes[self.name]()


FAULTS = ["repeated", "lost", "reordered", "truncated", "truncated, length too", "longer", "much longer", "empty",
          "no header", "bad magic", "other session", "other step", "other kind", "other sender", "abort"]  # fmt: skip


def outcome(task, fault):
    """What each party returned or raised, and how long all took."""
    links, results = tapped(fault, [fault.sender]), {}

    def work(i):
        try:
            results[i] = TASKS[task](Party(i, KEYS[i], links[i], timeout=LIMIT))
        except MippError as error:
            results[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in (1, 2, 3)]
    begin = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    assert len(results) == 3, "a party hangs"
    return results, time.monotonic() - begin


def combined(task, results):
    parts = [r for r in results.values() if not isinstance(r, MippError)]
    if task == "certificate":  # counts when all three servers have it
        if len(parts) < 3:
            raise ProtocolError("no certificate")
        return not any(len(part) for part in parts)
    if task == "threshold":
        return np.array_equal(combine_matches(parts), SCORES >= 5)
    rows, _ = combine_top_k(parts, PUBLIC)
    return rows[0].tolist() == sorted(range(ROWS), key=lambda r: (-SCORES[0][r], r))[:2]


def size_matters(name):
    """Whether a fault changes a message without payload."""
    return name not in ("truncated", "truncated, length too", "empty")


def positions(task, sender):
    """Numbers of the messages of a run without faults."""
    fault = Fault("lost", sender, -1)
    results, _ = outcome(task, fault)
    assert combined(task, results)
    return fault.count


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("task", TASKS)
def test_every_party_gets_a_typed_error_in_time(task, name):
    quiet = name in ("lost", "reordered")  # ends by the time limit: only a few places
    for sender in (1, 2, 3):
        total = positions(task, sender)
        places = range(total) if not quiet else sorted({0, 1, 2, total // 2, total - 1})
        if name != "lost" and not quiet and task == "top-k":
            places = range(sender - 1, total, 3)
        if not quiet and task == "certificate":
            places = [*range(5), *range(4 + sender, total, 7)]
        for at in places:
            fault = Fault(name, sender, at)
            results, seconds = outcome(task, fault)
            if fault.kind is None:
                continue  # this run, with other roles, had fewer messages
            errors = [r for r in results.values() if isinstance(r, MippError)]
            assert seconds < 4 * LIMIT + 1
            if (fault.kind, name) == ("confirm", "repeated"):
                assert errors  # noticed in the last round, where a "done" belongs
                with pytest.raises(ProtocolError):
                    combined(task, results)
            elif fault.kind == "done":
                if name == "repeated":
                    assert not errors and combined(task, results)
                elif size_matters(name):
                    assert errors
                    with pytest.raises(ProtocolError):
                        combined(task, results)
            else:
                assert len(errors) == 3, (fault.kind, at, results)


class TwoFaced:
    """Flips a bit of the ``at``-th message of a kind that ``sender`` sends to one peer; the other gets the true one."""

    def __init__(self, kind, sender, receiver, at, place):
        self.kind, self.sender, self.receiver, self.left, self.place = kind, sender, receiver, at, place
        self.hit = False

    def __call__(self, header, frame, send):
        if header.kind == self.kind and header.receiver == self.receiver:
            self.left -= 1
            if self.left < 0 and not self.hit:
                self.hit = True
                whole = bytearray(b"".join(frame.parts))
                whole[int(self.place * (len(whole) - 1))] ^= 1
                frame = Frame(frame.head, [memoryview(bytes(whole))])
        send(frame)


@pytest.mark.parametrize(("task", "kind"), [("top-k", "check"), ("top-k", "open"), ("certificate", "open")])
def test_whatever_is_opened_is_confirmed(task, kind):
    """Every opened word counts, padding too: a party that shows its peers different ones ends the attempt at all."""
    hits = 0
    for sender, receiver in ((1, 2), (1, 3), (2, 1), (3, 2)):
        for at, place in ((0, 0), (0, 1), (1, 0.3), (2, 0.5), (3, 1)):
            fault = TwoFaced(kind, sender, receiver, at, place)
            results, _ = outcome(task, fault)
            if not fault.hit:  # there were fewer messages of this kind
                assert combined(task, results)
                continue
            hits += 1
            errors = [str(r) for r in results.values() if isinstance(r, MippError)]
            assert len(errors) == 3 and any(re.search(r"\((confirm|open)\)|check: |another step", e) for e in errors)
            with pytest.raises(ProtocolError):
                combined(task, results)
    assert hits >= 8


def test_a_party_that_never_comes():
    fault = Fault("lost", 1, -1)
    links, results = tapped(fault, [1]), {}

    def work(i):
        with pytest.raises(ProtocolError, match="silent"):
            TASKS["top-k"](Party(i, KEYS[i], links[i], timeout=LIMIT))
        results[i] = True

    threads = [threading.Thread(target=work, args=(i,)) for i in (1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(5)
    assert results == {1: True, 2: True}


def test_errors_do_not_show_what_was_sent():
    results, _ = outcome("top-k", Fault("truncated", 1, 5))
    for error in results.values():
        assert len(str(error)) < 200 and "array" not in str(error) and "0x" not in str(error)
