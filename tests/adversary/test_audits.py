"""Hostile clouds answer audits, hostile owners ask for them; an owner dies between its tags and its change."""

import dataclasses
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.crypto import box
from mipp.errors import BusyError, LimitError, MippError, NotFoundError, ParameterError, ShapeError, VerificationError
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode, pack_frames, unpack_frames
from mipp.server import audits, changes
from mipp.server.rates import ReadTurns
from tests.conftest import DIM, answer, vectors
from tests.store.killing import run_in_child

BOX = box.box_private(b"b" * 32).public_key().public_bytes_raw()
embedded = pytest.mark.parametrize("deployment", ["embedded"], indirect=True)


@pytest.fixture
def owned(deployment):
    anna = deployment.create_owner("anna")
    ids = [anna.add_vectors(vectors(n, seed=n))[0][0] for n in (12, 8)]
    anna.delete([(ids[0], 2), (ids[0], 9)])
    return deployment, anna, ids


@pytest.fixture
def lie(owned, monkeypatch):
    """``lie(module, kind, server, change)``: a server seals to owners what ``change`` makes of a message."""
    deployment, asked = owned[0], []

    def lie(module, kind, server, change):
        def packed(frames):
            told = decode(frames)
            return pack_frames(encode(change(told) if isinstance(told, kind) and asked[-1] == server else told))

        monkeypatch.setattr(module, "pack_frames", packed)
        request = m.AuditRows if module is audits else m.FetchShares
        for index, at in deployment.servers.items():

            def handler(given, at=at, index=index):
                asked.append(index)
                return module.HANDLERS[request](at, given)

            at._handlers[request] = handler

    return lie


#: changes of an answer that is not of the form that is due
MALFORMED = {
    "no sums": lambda a: {"sums": a.sums[:0]}, "one sum less": lambda a: {"sums": a.sums[:-1]},
    "a sum more": lambda a: {"sums": np.append(a.sums, a.sums[:1])},
    "many sums": lambda a: {"sums": np.zeros(1 << 20, "<u8")}, "other words": lambda a: {"sums": a.sums.astype("<u4")},
    "matrix": lambda a: {"sums": a.sums[None]}, "p": lambda a: {"sums": np.full_like(a.sums, 2**61 - 1)},
    "all ones": lambda a: {"sums": np.full_like(a.sums, 2**64 - 1)}, "no lost": lambda a: {"lost": a.lost[:0]},
    "lost twice": lambda a: {"lost": a.lost + np.uint8(2)}, "fewer counts": lambda a: {"counts": a.counts[:1]},
    "negative": lambda a: {"counts": np.array([-1, 3], "<i8")}, "more dead": lambda a: {"dead": np.arange(3)},
    "too many": lambda a: {"counts": np.array([13, 0], "<i8"), "dead": np.arange(13)},
    "unsorted": lambda a: {"dead": a.dead[::-1]}, "twice": lambda a: {"dead": np.array([2, 2])},
    "outside": lambda a: {"dead": np.array([2, 12])}, "below": lambda a: {"dead": np.array([-1, 9])},
    "huge counts": lambda a: {"counts": np.array([1 << 62, 1 << 62], "<i8")},
}  # fmt: skip


@embedded
def test_answers_of_another_form(owned, lie):
    """Each is that cloud's problem; the other cloud is audited."""
    _, anna, _ = owned
    for name, change in MALFORMED.items():
        for server in (1, 2):
            lie(audits, m.Audited, server, lambda a, change=change: dataclasses.replace(a, **change(a)))
            report = anna.audit()
            bad, good = (report.clouds[server - 1], report.clouds[2 - server])
            assert good.ok and not report.ok and bad.problem and not bad.rows, (name, server, bad)


@embedded
def test_answers_that_are_wrong(owned, lie):
    _, anna, ids = owned
    for change in (
        lambda a: {"sums": np.zeros_like(a.sums)},
        lambda a: {"sums": (a.sums + np.uint64(1)) % np.uint64(2**61 - 1)},
        lambda a: {"sums": np.roll(a.sums, 1)},
        lambda a: {"sums": np.append(a.sums[:-1], (a.sums[-1:] + np.uint64(1 << 60)) % np.uint64(2**61 - 1))},
    ):
        lie(audits, m.Audited, 2, lambda a, change=change: dataclasses.replace(a, **change(a)))
        for sample in (1.0, 0.9):
            report = anna.audit(sample)
            assert report.clouds[0].ok and report.clouds[1].differing == tuple(ids) and not report.clouds[1].rows


@embedded
def test_an_answer_of_an_earlier_audit(owned, lie):
    """Sums that were right once are not under another seed; bytes that were sent before do not even open."""
    deployment, anna, ids = owned
    seen = []

    def first(a):
        seen.append(a.sums)
        return dataclasses.replace(a, sums=seen[0])

    lie(audits, m.Audited, 2, first)
    assert anna.audit().ok and len(seen) == 1
    assert anna.audit().clouds[1].differing and anna.audit().clouds[0].ok
    real, kept = deployment.servers[1].handle, []

    def handler(frames):
        reply = real(frames)
        if decode([bytes(f) for f in reply]).__class__ is m.SealedAudit:
            kept.append(reply)
            return kept[0]
        return reply

    answer(deployment, 1, handler)
    assert anna.audit().clouds[0].ok  # the first
    report = anna.audit()
    assert report.clouds[0].problem and not report.clouds[0].rows and ids


@embedded
def test_a_cloud_says_that_rows_are_deleted(owned, lie):
    """Else it could drop what it likes, and no audit would ask for it."""
    _, anna, ids = owned
    for dead in ([2, 5, 9], [9], [], list(range(12)), [2, 8]):
        given = {"dead": np.array(dead, "<i8"), "counts": np.array([len(dead), 0], "<i8")}
        lie(audits, m.Audited, 1, lambda a, given=given: dataclasses.replace(a, **given))
        report = anna.audit()
        assert "one of the two is wrong" in report.clouds[0].problem and report.clouds[1].ok, dead
        assert ids[0].hex() in report.clouds[0].problem and not report.clouds[0].rows


@embedded
def test_a_key_centre_that_says_nothing_of_deletions(owned, lie):
    """Its answer has not the form that is due: the other cloud is asked."""
    _, anna, _ = owned
    lie(audits, m.Audited, 3, lambda a: dataclasses.replace(a, dead=a.dead[:1]))
    assert anna.audit().ok
    lie(audits, m.Audited, 3, lambda a: dataclasses.replace(a, dead=a.dead[:1], counts=np.minimum(a.counts, 1)))
    assert all("one of the two is wrong" in c.problem for c in anna.audit().clouds)


@embedded
def test_a_cloud_that_is_always_elsewhere(owned, lie, monkeypatch):
    """It is named after some attempts, and the other one is audited."""
    monkeypatch.setattr("mipp.client.retry.ATTEMPTS", 2)
    _, anna, _ = owned
    for change in ({"position": 77}, {"view": b"v" * 32}):
        lie(audits, m.Audited, 2, lambda a, change=change: dataclasses.replace(a, **change))
        report = anna.audit()
        assert report.clouds[0].ok and "changed while" in report.clouds[1].problem
    lie(audits, m.Audited, 2, lambda a: a)
    assert anna.audit().ok


@embedded
def test_a_cloud_that_lists_other_batches(owned):
    deployment, anna, _ = owned
    server = deployment.servers[1]
    real = server._handlers[m.ListBatches]
    for change in (
        lambda b: {"batches": b.batches[:1], "rows": b.rows[:1], "live": b.live[:1], "generation": b.generation[:1],
                   "refused": b.refused[:1]},
        lambda b: {"live": b.live - 1}, lambda b: {"rows": b.rows + 1}, lambda b: {"position": 9},
    ):  # fmt: skip
        server._handlers[m.ListBatches] = lambda r, change=change: dataclasses.replace(real(r), **change(real(r)))
        report = anna.audit()
        assert "one of the two is wrong" in report.clouds[0].problem and report.clouds[1].ok
    server._handlers[m.ListBatches] = real
    assert anna.audit().ok


@embedded
def test_what_comes_back_for_a_merge(owned, lie):
    """Rows that are left out or changed, or have other images: refused with tags and without; nothing changes."""
    deployment, anna, ids = owned

    def without(s, keep):
        return dataclasses.replace(
            s, ordinals=s.ordinals[keep], share=s.share[keep], origin_batch=s.origin_batch[keep],
            origin_row=s.origin_row[keep],
        )  # fmt: skip

    changes_of = {
        "left out": lambda s: without(s, slice(1, None)),
        "none": lambda s: without(s, slice(0)),
        "more rows": lambda s: dataclasses.replace(s, rows=s.rows + 1),
        "huge": lambda s: dataclasses.replace(s, rows=1 << 47),
        "other places": lambda s: dataclasses.replace(s, ordinals=s.ordinals + 1),
        "images swapped": lambda s: dataclasses.replace(s, origin_row=s.origin_row[::-1].copy()),
        "image of another batch": lambda s: dataclasses.replace(s, origin_batch=s.origin_batch ^ np.uint8(1)),
        "a word": lambda s: dataclasses.replace(s, share=s.share + np.uint32(1 << 31)),
    }
    for tags in (True, False):
        if not tags:
            shutil.rmtree(deployment.folder / "owners" / "anna.tags")
        for name, change in changes_of.items():
            lie(changes, m.Shares, 1, change)
            with pytest.raises(MippError) as caught:
                anna.compact()
            assert not isinstance(caught.value, NotFoundError), name
            assert name not in ("left out", "a word") or isinstance(caught.value, VerificationError)
            assert [b.id for b in anna.batches()] == ids, name
    lie(changes, m.Shares, 1, lambda s: s)
    assert anna.compact() == 1 and anna.audit().ok


@embedded
def test_what_an_owner_may_ask(owned):
    deployment, anna, ids = owned
    berta = deployment.create_owner("berta")
    berta.add_vectors(vectors(3))
    named = np.frombuffer(ids[0] + ids[1], np.uint8).reshape(2, 16)
    good = m.AuditRows(b"s" * 32, 0, BOX, named)
    for server in (1, 2, 3):
        assert anna.ask({server: good})
        with pytest.raises(NotFoundError):
            berta.ask({server: good})
        for change, error in (
            ({"seed": b"s" * 31}, ParameterError), ({"seed": b""}, ParameterError), ({"draws": -1}, ParameterError),
            ({"draws": 21}, ParameterError), ({"draws": 1 << 40}, ParameterError), ({"reply_key": b"k"}, MippError),
            ({"reply_key": bytes(32)}, MippError), ({"batches": named[:0]}, ShapeError),
            ({"batches": named[:, :15].copy()}, ShapeError), ({"batches": named[[0, 0]]}, ShapeError),
            ({"batches": np.zeros(((1 << 14) + 1, 16), np.uint8)}, ShapeError),
            ({"batches": np.zeros((1, 16), np.uint8)}, NotFoundError),
        ):  # fmt: skip
            with pytest.raises(error):
                anna.ask({server: dataclasses.replace(good, **change)})
    with pytest.raises(MippError):  # a user is no owner
        deployment.create_user("ulla").ask({1: good})


@embedded
def test_work_is_bounded_before_it_begins(owned, monkeypatch):
    deployment, anna, ids = owned
    named = np.frombuffer(ids[0] + ids[1], np.uint8).reshape(2, 16)
    for name in ("MAX_AUDIT_ROWS", "MAX_AUDIT_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(audits, name, 13)
            with pytest.raises(LimitError):
                anna.ask({1: m.AuditRows(b"s" * 32, 0, BOX, named)})
            assert anna.ask({1: m.AuditRows(b"s" * 32, 0, BOX, named[:1])})  # one alone is as large as it is
    # a client whose batches are more than one request may name asks several times
    with monkeypatch.context() as patch:
        patch.setattr(audits, "MAX_AUDIT_ROWS", 13)
        patch.setattr("mipp.client.merging.MAX_AUDIT_ROWS", 13)
        assert anna.audit().ok and anna.audit(0.9).ok
    assert deployment.servers[1].audits._parties == set()


@embedded
def test_audits_count_as_requests(owned):
    deployment, anna, ids = owned
    server = deployment.servers[1]
    server.card = dataclasses.replace(server.card, requests=2)
    msg = m.AuditRows(b"s" * 32, 1, BOX, np.frombuffer(ids[0], np.uint8)[None])
    for _ in range(2):
        anna.ask({1: msg})
    with pytest.raises(BusyError, match="2 requests a minute"):
        anna.ask({1: msg})
    assert anna.ask({2: msg})


def test_one_audit_at_a_time():
    turns, begun, done = ReadTurns(patience=0.05), threading.Event(), threading.Event()

    def work():
        with turns.of(b"a"):
            begun.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    with pytest.raises(BusyError, match="this party"), turns.of(b"a"):
        pass
    with pytest.raises(BusyError, match="other parties"), turns.of(b"b"):
        pass
    done.set()
    thread.join()
    with turns.of(b"b"), pytest.raises(BusyError), turns.of(b"b"):
        pass
    with pytest.raises(KeyError), turns.of(b"a"):
        raise KeyError
    with turns.of(b"a"):
        pass


# --- an owner that dies --------------------------------------------------------------------------------------------

PACKAGE = str(Path(mipp.__file__).parent)
WATCHED = tuple(
    os.path.join(PACKAGE, "client", name)
    for name in ("rows.py", "merging.py", "tags.py", "row_checks.py", "changes.py")
)


def killed(folder, work, kill_at):
    return run_in_child(
        lambda: mipp.Deployment.open(folder, threads=1), work, lambda name: name.startswith(WATCHED), kill_at
    )


def upload(deployment):
    deployment.owner("anna").add_vectors(vectors(4, seed=50))


def merge(deployment):
    deployment.owner("anna").compact()


@pytest.mark.parametrize("work", [upload, merge])
@pytest.mark.parametrize("points", [12, pytest.param(100, marks=pytest.mark.nightly)])
def test_killed_between_tags_and_change(tmp_path, work, points):
    """Whatever is visible then has its tags, and they are right; those of what is not are gone after an audit."""
    with mipp.Deployment.create(tmp_path / "made", mipp.Encoding("cosine", DIM), threads=1) as deployment:
        anna = deployment.create_owner("anna")
        for seed in (1, 2):
            anna.add_vectors(vectors(6, seed=seed))
    shutil.copytree(tmp_path / "made", tmp_path / "counted")
    lines, acknowledged = killed(tmp_path / "counted", work, 0)
    assert acknowledged and lines > points
    tags_left = 0
    for kill_at in np.unique(np.linspace(2, lines - 1, points).astype(int)):
        folder = tmp_path / f"killed{kill_at}"
        shutil.copytree(tmp_path / "made", folder)
        killed(folder, work, int(kill_at))
        tags_left = max(tags_left, len(list((folder / "owners" / "anna.tags").iterdir())))
        with mipp.Deployment.open(folder, threads=1) as deployment:
            anna = deployment.owner("anna")
            assert anna.audit().ok, kill_at
            assert anna.tags.store.batches() == {b.id for b in anna.batches()}
        shutil.rmtree(folder)
    assert tags_left > 2, "no point lay between the tags and the change"


def test_sealed_to_who_asked(tmp_path):
    """Whoever repeats a request that it saw gets bytes that it cannot open."""
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), threads=1) as deployment:
        anna = deployment.create_owner("anna")
        (batch, _), *_ = anna.add_vectors(vectors(2))
        key = b"k" * 32
        public = box.box_private(key).public_key().public_bytes_raw()
        frames = anna.sign(m.AuditRows(b"s" * 32, 0, public, np.frombuffer(batch, np.uint8)[None]), 1)
        reply = decode(deployment.servers[1].handle(frames), m.SealedAudit)
        info = audits.audit_seal_info(deployment.config.id, anna.id, 1, b"s" * 32)
        told = decode(unpack_frames(box.open_sealed(key, reply.sealed, info)), m.Audited)
        assert told.sums.shape == (12,) and told.lost.tolist() == [0] and not len(told.dead)
        with pytest.raises(mipp.errors.AuthenticationError):
            box.open_sealed(b"x" * 32, reply.sealed, info)
        with pytest.raises(mipp.errors.AuthenticationError):
            box.open_sealed(key, reply.sealed, audits.audit_seal_info(deployment.config.id, anna.id, 1, b"t" * 32))
