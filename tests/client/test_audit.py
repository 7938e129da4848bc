"""Audits by owners of real deployments: rights are rights; what a cloud changed, lost or swapped is named."""

import json
import shutil
import sqlite3

import numpy as np
import pytest

import mipp
from mipp.client.row_checks import check_same_rows
from mipp.errors import ConflictError, ParameterError, VerificationError
from mipp.io.file_hash import FileHash
from mipp.params import Params
from mipp.rpc import messages as m
from mipp.sharing import OwnerKeys, share_rows
from tests.conftest import DIM, embedded_only, home, reopened, shut, vectors
from tests.network import Network

HEADER, WORDS = 256, 12


def batches_of(deployment, sizes=(20, 20, 9, 1), name="anna"):
    owner = deployment.create_owner(name)
    return owner, [owner.add_vectors(vectors(n, seed=i))[0][0] for i, n in enumerate(sizes)]


def stored(deployment, server, batch):
    """Path of a share file."""
    return next(home(deployment, server).rglob(f"{batch.hex()}.*"))


def words_of(path, rows):
    return np.frombuffer(path.read_bytes()[HEADER : HEADER + 4 * WORDS * rows], "<u4").reshape(rows, WORDS).copy()


def rewrite(deployment, server, batch, words):
    """Change a cloud's file, and all checksums that the cloud has of it, as its operator can."""
    path = stored(deployment, server, batch)
    raw = bytearray(path.read_bytes())
    raw[HEADER : HEADER + words.nbytes] = words.tobytes()
    checksum = FileHash()
    checksum.update(raw[:-32])
    raw[-32:] = checksum.digest()
    path.chmod(0o600)
    path.write_bytes(raw)
    with sqlite3.connect(home(deployment, server) / "catalog-2.sqlite") as db:
        assert db.execute("UPDATE batches SET digest=? WHERE id=?", (bytes(raw[-32:]), batch)).rowcount == 1


def top_bit(rows, other):
    rows[13, 5] ^= 1 << 31
    return rows


def one_word(rows, other):
    rows[13, 5] += 1
    return rows


def swapped(rows, other):
    rows[[3, 4]] = rows[[4, 3]]
    return rows


def another_batch(rows, other):
    return other


def one_row_of_another(rows, other):
    rows[7] = other[7]
    return rows


def last_row(rows, other):
    rows[-1] = other[0]
    return rows


def zeros(rows, other):
    return np.zeros_like(rows)


CHANGES = [top_bit, one_word, swapped, another_batch, one_row_of_another, last_row, zeros]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("server", [1, 2])
@embedded_only
def test_a_changed_file_is_named(deployment, change, server):
    """Also with checksums that fit: its operator can write them, too."""
    anna, ids = batches_of(deployment)
    assert anna.audit().ok
    shut(deployment)
    rows, other = (words_of(stored(deployment, server, b), 20) for b in ids[:2])
    rewrite(deployment, server, ids[0], change(rows, other))
    with reopened(deployment) as again:
        report = again.owner("anna").audit()
        assert not report.ok
        for cloud in report.clouds:
            wrong = (ids[0],) if cloud.server == server else ()
            assert (cloud.differing, cloud.lost, cloud.not_audited, cloud.problem) == (wrong, (), {}, "")
            assert cloud.rows == (50 if cloud.server != server else 30)  # what is right is counted batch by batch


@embedded_only
def test_a_stale_file(deployment):
    """Rows that were there before, of a batch that was merged since."""
    anna, ids = batches_of(deployment, (20, 20))
    old = words_of(stored(deployment, 2, ids[0]), 20)
    anna.compact()
    (merged,) = (b.id for b in anna.batches())
    rows = words_of(stored(deployment, 2, merged), 40)
    shut(deployment)
    rewrite(deployment, 2, merged, np.concatenate([old, rows[20:]]))
    with reopened(deployment) as again:
        report = again.owner("anna").audit()
        assert [c.differing for c in report.clouds] == [(), (merged,)] and report.clouds[0].ok


@embedded_only
def test_a_lost_file_and_its_repair(deployment):
    """A cloud that says so itself; what the others rebuild is byte for byte the same, so tags stay."""
    _, ids = batches_of(deployment)
    path = stored(deployment, 2, ids[1])
    before = path.read_bytes()
    shut(deployment)
    path.chmod(0o600)
    path.write_bytes(before[:-40])
    with reopened(deployment) as again:
        report = again.owner("anna").audit()
        one, two = report.clouds
        assert one.ok and not two.ok and not report.ok
        assert (two.lost, two.differing, two.rows, two.problem) == ((ids[1],), (), 30, "")
        assert again.repair()["problems"] == []
        assert again.owner("anna").audit().ok
        assert stored(again, 2, ids[1]).read_bytes()[HEADER : HEADER + 960] == before[HEADER : HEADER + 960]


def test_deletes_merges_and_compactions_keep_audits_right(deployment):
    anna, ids = batches_of(deployment)
    anna.delete([(ids[0], r) for r in (0, 7, 19)] + [(ids[3], 0)])
    report = anna.audit()
    assert report.ok and [(c.rows, c.batches) for c in report.clouds] == [(46, 3)] * 2 and report.live == 46
    anna.compact(merge_below=1)  # rewritten at the clouds without deleted rows
    assert anna.audit().ok and anna.audit(0.5).ok
    anna.compact()
    anna.add_vectors(vectors(5, 70), [("a.png", b"x" * 30)] + [None] * 4)
    anna.delete([(anna.batches()[0].id, 11)])
    anna.compact()  # a merge of a merge
    report = anna.audit()
    assert report.ok and [c.rows for c in report.clouds] == [50, 50]
    assert anna.tags.store.batches() == {b.id for b in anna.batches()}
    anna.forget()
    assert not anna.tags.store.batches()


@pytest.mark.parametrize("bits", [16, 64])
def test_other_rings(tmp_path, bits):
    encoding = mipp.Encoding("cosine", DIM, ring_bits=bits, **({"bits": 5, "query_bits": 5} if bits == 16 else {}))
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        anna, ids = batches_of(deployment)
        assert anna.audit().ok and anna.audit(0.2).ok
        view = deployment.servers[2].store.view(anna.id)
        words = view.batches[0].words.copy()
        words[0, -1] ^= words.dtype.type(1 << (bits - 1))
        swap(view, 0, words)
        assert [c.differing for c in anna.audit().clouds] == [(), (ids[0],)]


def swap(view, number, words):
    """Have a server use other words for a batch from now on."""
    object.__setattr__(view.batches[number], "home", words)
    object.__setattr__(view.batches[number], "offset", 0)


@embedded_only
def test_a_sample(deployment):
    """Half of a cloud's rows changed: 60 draws of 250 miss all of them with probability 2^-60. The batch is named."""
    anna, ids = batches_of(deployment, (100, 150))
    report = anna.audit(sample=0.2)
    assert report.ok and all(35 < c.rows < 51 and c.batches == 2 for c in report.clouds)  # 50 draws, some of one row
    view = deployment.servers[1].store.view(anna.id)
    words = view.batches[1].words.copy()
    words[::1] += 1
    swap(view, 1, words)
    report = anna.audit(sample=0.4)
    assert report.clouds[0].differing == (ids[1],) and report.clouds[1].ok
    for bad in (0, -0.1, 1.1, float("nan"), True, "1%", None):
        with pytest.raises(ParameterError):
            anna.audit(bad)


@embedded_only
def test_never_ok_when_nothing_was_checked(deployment):
    owner = deployment.create_owner("anna")
    report = owner.audit()
    assert not report.ok and [(c.rows, c.problem, c.not_audited) for c in report.clouds] == [(0, "", {})] * 2
    (batch, _), *_ = owner.add_vectors(vectors(3))
    shutil.rmtree(deployment.folder / "owners" / "anna.tags")
    report = owner.audit()
    assert not report.ok and all(list(c.not_audited) == [batch] and not c.rows for c in report.clouds)
    owner.add_vectors(vectors(4, 1))
    report = owner.audit()
    assert not report.ok and all(c.rows == 4 and "renew" in c.not_audited[batch] for c in report.clouds)
    assert owner.renew_tags() == [batch] and owner.renew_tags() == []
    assert owner.audit().ok


@embedded_only
def test_a_damaged_file_of_tags(deployment):
    """Whatever is changed in it, it does not open; other batches are audited; renewing makes it again."""
    anna, ids = batches_of(deployment, (20, 20, 9))
    folder = deployment.folder / "owners" / "anna.tags"
    path, other = folder / ids[0].hex(), folder / ids[1].hex()
    whole = path.read_bytes()
    flips = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in (0, 8, 12, 16, 24, 40, 50, 70, 250, -1)]
    cut = [whole[:-1], whole[:70], whole[:10], b"", whole + b"x"]
    for content in (*flips, *cut, other.read_bytes(), other.read_bytes()[:24] + ids[0] + other.read_bytes()[40:]):
        path.write_bytes(content)
        report = anna.audit()
        assert not report.ok
        # cloud 1 may still be audited where only the tags of cloud 2 are damaged
        left_out = [list(c.not_audited) for c in report.clouds]
        assert [ids[0]] in left_out and all(c.rows >= 29 and not c.differing and not c.problem for c in report.clouds)
    with pytest.raises(mipp.errors.IntegrityError, match="renew"):
        anna.compact()
    assert len(anna.batches()) == 3
    assert anna.renew_tags() == [ids[0]] and anna.audit().ok
    path.unlink()
    path.symlink_to(other)
    assert not anna.audit().ok and anna.renew_tags() == [ids[0]] and anna.audit().ok
    assert repr(anna.tags.store).endswith("key hidden)")


@embedded_only
def test_damaged_tags_of_image_ids(deployment):
    """No audit reads them, a merge does; they are made anew like the others."""
    anna, _ = batches_of(deployment, (5, 4))
    anna.compact()
    (batch,) = (b.id for b in anna.batches())
    path = deployment.folder / "owners" / "anna.tags" / batch.hex()
    raw = bytearray(path.read_bytes())
    raw[70] ^= 1
    path.write_bytes(raw)
    anna.add_vectors(vectors(2, 5))
    assert anna.audit().ok
    with pytest.raises(mipp.errors.IntegrityError, match="renew"):
        anna.compact()
    assert anna.renew_tags() == [batch] and anna.renew_tags(everything=True) and anna.compact() == 1
    assert anna.audit().ok


@embedded_only
def test_renewal_compares_the_clouds(deployment):
    anna, ids = batches_of(deployment, (20, 9))
    anna.delete([(ids[0], 4)])
    anna.compact(merge_below=1)
    shutil.rmtree(deployment.folder / "owners" / "anna.tags")
    view = deployment.servers[2].store.view(anna.id)
    kept = view.batches[0].words
    words = kept.copy()
    words[9, 3] ^= 1
    swap(view, 0, words)
    with pytest.raises(VerificationError, match=r"clouds 1, 2 do not hold .* one of them is wrong .*from row 10 on"):
        anna.renew_tags()
    assert ids[0] not in anna.tags.store.batches()
    with pytest.raises(VerificationError, match="one of them is wrong"):  # nor is it merged
        anna.compact()
    assert [b.id for b in anna.batches()] == ids
    swap(view, 0, kept)
    assert set(anna.renew_tags()) == set(ids) and anna.audit().ok
    anna.compact()
    assert anna.audit().ok and len(anna.batches()) == 1
    swap(view := deployment.servers[1].store.view(anna.id), 0, view.batches[0].words + np.uint32(1))
    with pytest.raises(VerificationError, match="cloud 1 gave back row 0"):  # tags that are there are compared, too
        anna.renew_tags(everything=True)


@embedded_only
def test_a_merge_refuses_what_came_back_changed(deployment):
    anna, ids = batches_of(deployment)
    x = dict(zip(*anna.rows_of(ids[1]), strict=True))
    view = deployment.servers[1].store.view(anna.id)
    kept = view.batches[1].words
    words = kept.copy()
    words[6, 1] += 7
    swap(view, 1, words)
    before = anna.ask_all(m.HeadRequest(anna.id))
    with pytest.raises(VerificationError, match=rf"cloud 1 gave back row 6 of batch {ids[1].hex()} changed \(1 of 20"):
        anna.compact()
    assert {(h.position, h.view) for h in anna.ask_all(m.HeadRequest(anna.id)).values()} == {
        (h.position, h.view) for h in before.values()
    }
    assert [b.id for b in anna.batches()] == ids and anna.tags.store.batches() == set(ids)
    swap(view, 1, kept)
    assert anna.compact() == 3 and anna.audit().ok
    _, rows = anna.rows_of(anna.batches()[0].id)
    assert all((rows[20 + r] == row).all() for r, row in x.items())


def test_of_three_clouds_the_one_that_differs_is_named():
    params = Params(4, 1)
    keys = OwnerKeys(b"r" * 32, b"d" * 16, b"g" * 16, params)
    shared = share_rows(np.arange(24).reshape(4, 6), keys)

    def back(cloud, change=0):
        words = shared.shares[cloud].copy()
        words[2, 1] += change
        ids = np.broadcast_to(np.frombuffer(shared.nonce, np.uint8), (4, 16))
        return m.Shares(1, b"v" * 32, 4, 6, np.arange(4, dtype="<i8"), words, ids, np.arange(4, dtype="<i8"))

    check_same_rows(shared.nonce, {c: back(c) for c in params.clouds}, keys)
    for wrong in params.clouds:
        with pytest.raises(VerificationError, match=f"cloud {wrong} holds other rows than the other clouds.* row 2"):
            check_same_rows(shared.nonce, {c: back(c, int(c == wrong)) for c in params.clouds}, keys)
    with pytest.raises(VerificationError, match="clouds 1, 2, 4 do not hold the same rows"):
        check_same_rows(shared.nonce, {c: back(c, c) for c in params.clouds}, keys)


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_schemes_with_one_cloud(tmp_path, scheme):
    """Audits work; there is nothing to compare a renewal or a merge without tags with."""
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), scheme=scheme, threads=1) as made:
        anna, ids = batches_of(made, (20, 9))
        assert anna.audit().ok and [c.server for c in anna.audit().clouds] == [1]
        view = made.servers[1].store.view(anna.id)
        kept = view.batches[0].words
        swap(view, 0, kept + np.uint32(1))
        assert anna.audit().clouds[0].differing == (ids[0],)
        with pytest.raises(VerificationError, match="cloud 1 gave back row 0"):
            anna.compact()
        swap(view, 0, kept)
        shutil.rmtree(made.folder / "owners" / "anna.tags")
        assert set(anna.renew_tags()) == set(ids) and anna.audit().ok and anna.compact() == 1 and anna.audit().ok


@embedded_only
def test_files_of_tags_of_uploads_that_failed_go(deployment, monkeypatch):
    anna, ids = batches_of(deployment, (5,))
    real = anna._changes.make

    def broken(*args):
        raise OSError("the process dies")

    monkeypatch.setattr(anna._changes, "make", broken)
    with pytest.raises(OSError, match="dies"):
        anna.add_vectors(vectors(3, 9))
    assert len(anna.tags.store.batches()) == 2  # they were written before anything was sent
    monkeypatch.setattr(anna._changes, "make", real)
    assert anna.audit().ok and anna.tags.store.batches() == set(ids)


@embedded_only
def test_tags_of_an_upload_that_came_second_go_at_once(deployment, monkeypatch):
    """It is encrypted again, under another id, whose tags stay."""
    anna, ids = batches_of(deployment, (5,))
    real, failed = anna._changes.make, []

    def second(*args):
        if not failed:
            failed.append(args[1])
            assert failed[0] in anna.tags.store.batches()
            raise ConflictError("another change came first")
        assert failed[0] not in anna.tags.store.batches()
        return real(*args)

    monkeypatch.setattr(anna._changes, "make", second)
    (batch, _), *_ = anna.add_vectors(vectors(3, 9))
    assert failed and anna.tags.store.batches() == {*ids, batch} and anna.audit().ok


@embedded_only
def test_a_cloud_that_came_later_has_no_tags_yet(deployment):
    """Tags are each cloud's own: a batch is named for the cloud that lacks them, and audited at the other."""
    anna, ids = batches_of(deployment, (5, 4))
    words = deployment.servers[1].store.view(anna.id).batches[0].words
    anna.tags.keep(ids[0], anna.tags.of_shares({1: words}))
    report = anna.audit()
    assert report.clouds[0].ok and list(report.clouds[1].not_audited) == [ids[0]] and report.clouds[1].rows == 4
    assert anna.renew_tags() == [ids[0]] and anna.audit().ok


@embedded_only
def test_no_upload_without_tags(deployment, monkeypatch):
    """A disk that is full at the owner: nothing was sent."""
    anna, ids = batches_of(deployment, (5,))
    shutil.rmtree(deployment.folder / "owners" / "anna.tags")
    (deployment.folder / "owners" / "anna.tags").write_text("no folder")
    with pytest.raises(mipp.errors.StoreError):
        anna.add_vectors(vectors(3, 9))
    assert [b.id for b in anna.batches()] == ids


def test_the_command(tmp_path, monkeypatch, capsys):
    from mipp.cli import main

    monkeypatch.setenv("MIPP_DEPLOYMENT", str(tmp_path / "d"))

    def command(*args):
        monkeypatch.setattr("sys.argv", ["mipp", *args])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), threads=1) as deployment:
        _, ids = batches_of(deployment, (20, 9))
    code, out, _ = command("owner", "audit", "anna")
    assert code == 0 and out.count("29 rows of 2 batches are as they were uploaded") == 2
    code, out, _ = command("owner", "audit", "anna", "--sample", "50%", "--json")
    data = json.loads(out)
    assert code == 0 and data["ok"] and data["sample"] == 0.5 and [c["server"] for c in data["clouds"]] == [1, 2]
    rewrite(deployment, 2, ids[0], words_of(stored(deployment, 2, ids[0]), 20) + np.uint32(1))
    code, out, _ = command("owner", "audit", "anna")
    assert code == 1 and f"cloud 2: batch {ids[0].hex()} DIFFERS" in out and "cloud 1: 29 rows" in out
    data = json.loads(command("owner", "audit", "anna", "--json")[1])
    assert not data["ok"] and [c["differing"] for c in data["clouds"]] == [[], [ids[0].hex()]]
    (tmp_path / "d" / "owners" / "anna.tags" / ids[1].hex()).unlink()
    assert command("owner", "audit", "anna")[0] == 1
    code, out, _ = command("owner", "audit", "anna", "--renew")
    assert code == 1 and "tags of 1 batches were made" in out and "was not audited" not in out
    for part in ("0", "2", "x%", "-1%"):
        code, _, err = command("owner", "audit", "anna", "--sample", part)
        assert code == 2 and "part" in err


@pytest.mark.slow
def test_over_a_network(tmp_path, encoding):
    """A cloud that is away, and one whose file was changed, while others go on."""
    network = Network(tmp_path, encoding).start().ready()
    try:
        with network.connect() as client:
            anna, ids = batches_of(client)
            anna.delete([(ids[0], 3)])
            assert anna.audit().ok and anna.audit(0.5).ok
            network.stop(2)
            report = anna.audit()
            assert report.clouds[0].ok and "2" in str(report.clouds[1].server) and report.clouds[1].problem
            assert not report.ok and not report.clouds[1].rows
            rewrite(client, 2, ids[1], words_of(stored(client, 2, ids[1]), 20) ^ np.uint32(1 << 31))
            network.start(2).ready()
            report = anna.audit()
            assert report.clouds[0].ok and report.clouds[1].differing == (ids[1],)
            network.stop(3)  # nobody but a cloud says then what was deleted: the other cloud does
            report = anna.audit()
            assert report.clouds[0].ok and report.clouds[1].differing == (ids[1],)
    finally:
        network.stop()
