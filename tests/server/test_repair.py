"""Files that a cloud lost are rebuilt by the other servers, without their owner."""

import contextlib
import dataclasses

import numpy as np
import pytest

import mipp
from mipp.errors import (
    AccessDeniedError,
    ConflictError,
    MippError,
    NotFoundError,
    ParameterError,
    ProtocolError,
    ShapeError,
    VerificationError,
)
from mipp.rpc import peer_messages as pm
from mipp.rpc.channel import LocalChannel, accepted, request
from mipp.rpc.wire import decode, encode
from mipp.server.completions import completion_session, holders_of
from mipp.server.handed_chains import longest
from mipp.server.repair import Repairer
from tests.conftest import vectors

QUERY = vectors(1, 99)[0]


@pytest.fixture
def world(deployment, filled):
    return filled(deployment)


def files(world, server, room="shares"):
    """Contents of a server's files by name without the part that is of one attempt."""
    paths = (world.home(server) / room).glob("*/*")
    return {(p.parent.name, p.name.rsplit("-", 1)[0]): p.read_bytes() for p in paths}


def drop_images(world, server):
    for path in (world.home(server) / "images").glob("*/*"):
        path.unlink()


def answers(world):
    index = world.user.index()
    found = [world.user.search(QUERY, index.total, ranking=r) for r in ("server", "user")]
    return [[(h.owner, h.id, h.score) for h in result.hits] for result in found], [r.left_out for r in found]


@pytest.mark.parametrize("server", [1, 2])
def test_lost_and_damaged_files_are_rebuilt_byte_for_byte(world, server):
    before, packs, told = files(world, server), files(world, server, "images"), answers(world)
    lost, *others, _ = sorted((world.home(server) / "shares").glob("*/*"))
    lost.unlink()
    for path in others:
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    for path in (world.home(server) / "images").glob("*/*"):
        path.unlink()
    world.reopen()
    assert any(answers(world)[1])
    assert world.deployment.repair() == {"files": len(before) - 1 + len(packs), "problems": []}
    assert files(world, server) == before
    found = files(world, server, "images")  # of another generation, so other headers
    assert sorted(p[256:-32] for p in found.values()) == sorted(p[256:-32] for p in packs.values())
    assert answers(world) == told and not world.deployment.verify()["problems"]
    assert world.deployment.repair()["files"] == 0
    assert len(list((world.home(server) / "shares").glob("*/*"))) == len(before)  # the damaged ones are gone


def test_images_come_from_a_repaired_cloud_alone(world):
    drop_images(world, 1)
    world.reopen()
    assert not world.deployment.repair()["problems"]
    drop_images(world, 2)
    world.reopen()
    wanted = [h for h in world.user.search(QUERY, 60, ranking="user").hits if h.row < 15]
    assert wanted and all(world.user.fetch([h])[0].content[-1:] == bytes([h.row]) for h in wanted[:3])


def test_rows_that_the_other_cloud_dropped_are_not_there(world):
    owner = world.owners[0]
    gone = [i for i in world.plain if i[0] == owner.batches()[0].id][:3]
    owner.delete(gone)
    told = answers(world)
    world.deployment.servers[2].store.compact(owner.id)
    for path in (world.home(1) / "shares" / owner.id.hex()).glob("*"):
        path.unlink()
    world.reopen()
    assert world.deployment.repair() == {"files": 2, "problems": []}
    assert answers(world) == told and not world.deployment.verify()["problems"]
    batch = world.deployment.servers[1].store.view(owner.id).batches[0]
    assert batch.stored == batch.rows - len(gone) and batch.generation and batch.certified
    # and from such a file back: the other cloud is repaired from it
    for path in (world.home(2) / "shares").glob("*/*"):
        path.unlink()
    world.reopen()
    assert not world.deployment.repair()["problems"] and answers(world) == told


def lost_batch(world, server=1):
    """A cloud that lost one file: its server, and what it lost."""
    path = sorted((world.home(server) / "shares").glob("*/*"))[0]
    path.unlink()
    world.reopen()
    cloud = world.deployment.servers[server]
    (lost,) = cloud.store.repairs.lost_batches(read=True)
    return cloud, lost


class Lying:
    """The servers' side for peers, where one server's replies are changed."""

    def __init__(self, servers, change):
        self._channel = LocalChannel({i: s.operate for i, s in servers.items()})
        self.servers, self._change = tuple(servers), change

    def gather(self, requests, *, together=False, spare=False):
        return {i: self._change(i, self._channel.gather({i: frames})[i]) for i, frames in requests.items()}


def flipped(server, reply):
    if server == 2 and isinstance(reply, pm.Completion):
        words = reply.words.copy()
        words[-1, -1] ^= 1
        return pm.Completion(words)
    return reply


def shorter(server, reply):
    return pm.Completion(reply.words[:-1]) if server == 3 and isinstance(reply, pm.Completion) else reply


def other_hashes(server, reply):
    if server == 2 and isinstance(reply, pm.CompletionBegun):
        return dataclasses.replace(reply, shares=bytes(len(reply.shares)))
    return reply


def fewer_rows(server, reply):
    return dataclasses.replace(reply, rows=1) if server == 3 and isinstance(reply, pm.CompletionBegun) else reply


def all_rows_named(server, reply):
    """As if rows had been dropped: there would be no hash to compare."""
    if server == 2 and isinstance(reply, pm.CompletionBegun):
        return dataclasses.replace(reply, ordinals=np.arange(reply.rows, dtype="<i8"))
    return flipped(server, reply)


def silent_hashes(server, reply):
    if server == 2 and isinstance(reply, pm.CompletionBegun):
        return dataclasses.replace(reply, shares=b"")
    return flipped(server, reply)


def no_images(server, reply):
    """A pack of the right number of rows, none of which has an image."""
    if isinstance(reply, pm.PackPart):
        body = np.zeros(8 * (reply.rows + 1), np.uint8)
        return dataclasses.replace(reply, size=len(body), data=body)
    return reply


def more_rows(server, reply):
    if isinstance(reply, pm.PackPart):
        body = np.zeros(8 * 300_001, np.uint8)
        return dataclasses.replace(reply, rows=300_000, size=len(body), data=body)
    return reply


def dribbled(server, reply):
    return dataclasses.replace(reply, data=reply.data[:1]) if isinstance(reply, pm.PackPart) else reply


def other_pack(server, reply):
    return dataclasses.replace(reply, data=reply.data[::-1].copy()) if isinstance(reply, pm.PackPart) else reply


def longer_pack(server, reply):
    return dataclasses.replace(reply, size=reply.size - 1) if isinstance(reply, pm.PackPart) else reply


def endless_pack(server, reply):
    return dataclasses.replace(reply, size=1 << 47) if isinstance(reply, pm.PackPart) else reply


LIES = [
    flipped, shorter, other_hashes, fewer_rows, all_rows_named, silent_hashes, other_pack, longer_pack, endless_pack,
    no_images, more_rows, dribbled,
]  # fmt: skip


@pytest.mark.parametrize("change", LIES, ids=lambda f: f.__name__)
def test_what_is_not_the_owners_changes_nothing(world, change):
    drop_images(world, 1)
    cloud, _ = lost_batch(world)
    before = files(world, 1)
    _, problems = Repairer(cloud, Lying(world.deployment.servers, change)).repair()
    assert problems and all(str(world.home(1)) not in line for line in problems)
    if change in LIES[-6:]:
        assert all(line.startswith("image pack") for line in problems)
        assert not files(world, 1, "images")
    else:
        assert all(line.startswith("batch") for line in problems)
        assert before == files(world, 1)
    assert not world.deployment.repair()["problems"] and not world.deployment.verify()["problems"]


def peers_of(world, server):
    """What another server's requests get: the target's number is checked, as over the mesh."""

    def ask(to, msg):
        return accepted(decode(world.deployment.servers[to].operate(encode(msg), peer=server)))

    return ask


NONE = np.empty(0, "<i8")


def begun(ask, target, lost, ordinals=NONE):
    return {to: ask(to, pm.BeginCompletion(target, lost.owner, lost.id, ordinals)) for to in (2, 3)}


def test_a_server_asks_for_itself_only(world):
    _, lost = lost_batch(world)
    for peer in (2, 3):
        with pytest.raises(AccessDeniedError):
            peers_of(world, peer)(3, pm.BeginCompletion(1, lost.owner, lost.id, NONE))
    for target in (2, 3, 4, 0, -1):  # no cloud that the others hold for
        with pytest.raises(ParameterError):
            request(world.deployment.operators, 2, pm.BeginCompletion(target, lost.owner, lost.id, NONE))


def test_a_session_is_for_one_asker_and_one_batch(world):
    _, lost = lost_batch(world)
    ask = peers_of(world, 1)
    told = begun(ask, 1, lost)
    nonces = [told[2].nonce, told[3].nonce]
    ask(2, pm.CompletionPart(1, lost.owner, lost.id, nonces, 0, 1))
    other = next(b.id for b in world.deployment.servers[2].store.view(lost.owner).batches if b.id != lost.id)
    for msg in (
        pm.CompletionPart(1, lost.owner, other, nonces, 0, 1),
        pm.CompletionPart(1, world.owners[0].id if lost.owner != world.owners[0].id else world.owners[1].id, lost.id,
                          nonces, 0, 1),
        pm.CompletionPart(1, lost.owner, lost.id, nonces[::-1], 0, 1),
        pm.CompletionPart(1, lost.owner, lost.id, [bytes(16), nonces[1]], 0, 1),
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            ask(2, msg)
    for first, count in ((0, 0), (-1, 1), (0, lost.rows + 1), (lost.rows, 1), (1 << 62, 1 << 62)):
        with pytest.raises((ShapeError, ParameterError)):
            ask(2, pm.CompletionPart(1, lost.owner, lost.id, nonces, first, count))
    wraps = [0, 1 << 62, -(1 << 63), -(1 << 62), 1]
    for bad in ([1, 1], [-1], [lost.rows], [2, 1], wraps, [0, (1 << 63) - 1, -(1 << 63)]):
        with pytest.raises(ShapeError):
            ask(3, pm.BeginCompletion(1, lost.owner, lost.id, np.array(bad, "<i8")))
    for _ in range(2):  # later sessions of the same server push it out
        begun(ask, 1, lost)
    with pytest.raises(NotFoundError):
        ask(2, pm.CompletionPart(1, lost.owner, lost.id, nonces, 0, 1))


def test_holders_that_were_told_different_rows_give_nothing(world):
    """A lying cloud that mixes rows would learn differences of keystream, so of features of its choice."""
    _, lost = lost_batch(world)
    ask = peers_of(world, 1)

    def summed(ordinals):
        two = ask(2, pm.BeginCompletion(1, lost.owner, lost.id, NONE))
        three = ask(3, pm.BeginCompletion(1, lost.owner, lost.id, ordinals))
        nonces = [two.nonce, three.nonce]
        parts = [ask(s, pm.CompletionPart(1, lost.owner, lost.id, nonces, 0, 2)).words for s in (2, 3)]
        return parts[0] + parts[1]

    world.deployment.repair()
    mine = world.deployment.servers[1].store.view(lost.owner)
    words = mine.batches[mine.index[lost.id]].words[:2]
    assert np.array_equal(summed(NONE), words)
    swapped = np.array([1, 2], "<i8")  # the key centre answers for rows 1 and 2, the cloud for 0 and 1
    centre = world.deployment.servers[3]
    view = centre.store.view(lost.owner)
    stream = centre.row_words(lost.owner, view.batches[view.index[lost.id]])
    forged = [summed(swapped) for _ in range(2)]
    delta = stream(np.array([1, 2])) - stream(np.array([0, 1]))
    for one in forged:
        assert not np.array_equal(one, words) and not np.array_equal(one - words, delta)
        assert not np.array_equal(one + delta, words)
    assert not np.array_equal(*forged)  # masks of sessions that do not meet


def test_ids_of_another_length_are_not_kept(world):
    _, lost = lost_batch(world)
    views = world.deployment.servers[2].store.views
    for owner, batch in ((b"o" * (1 << 20), lost.id), (lost.owner, b"b"), (b"", b""), (b"u" * 16, lost.id)):
        for msg in (
            pm.BeginCompletion(1, owner, batch, NONE), pm.PackRequest(1, owner, batch, b"", 0),
            pm.CompletionPart(1, owner, batch, [b"n" * 16] * 2, 0, 1),
        ):  # fmt: skip
            with pytest.raises((ShapeError, NotFoundError)):
                peers_of(world, 1)(2, msg)
    assert set(views._owner_locks) <= {o.id for o in world.owners}


def test_a_server_that_forgets_an_owner_drops_its_sessions(world):
    _, lost = lost_batch(world)
    begun(peers_of(world, 1), 1, lost)
    next(o for o in world.owners if o.id == lost.owner).forget()
    assert not any(world.deployment.servers[s].completions._open for s in (2, 3))


def test_hashes_that_a_server_noted_stay(world):
    """Whatever the others say of them, or do not say, in a repair or after a restore."""
    cloud, lost = lost_batch(world)
    shares = cloud.store.repairs.known(lost.owner, lost.id)[0]
    assert len(shares) == 96

    def silent(server, reply):
        known = isinstance(reply, pm.CompletionBegun)
        return dataclasses.replace(reply, shares=b"", certificate=b"") if known else reply

    assert not Repairer(cloud, Lying(world.deployment.servers, silent)).repair()[1]
    assert cloud.store.repairs.known(lost.owner, lost.id)[0] == shares
    chains = world.deployment.servers[2].store.chains.all()
    cut = [dataclasses.replace(c, batches=[(*b[:8], b"", b"", b[10]) for b in c.batches]) for c in chains]
    for chain in cut:
        cloud.store.chains.adopt(chain)
    known, certificate = cloud.store.repairs.known(lost.owner, lost.id)
    assert known == shares and len(certificate) == 32
    # of two others, one that is silent is not believed to know that there is nothing
    for two in ((chains, cut), (cut, chains)):
        for chain in longest(list(two), whole=True):
            assert all(len(b[8]) == 96 and b[9] == b"" for b in chain.batches)


def test_a_longer_history_needs_the_other_servers_vote(world):
    """Else one server could have a restored one drop all of an owner's rows."""
    chains = {c.owner: c for c in world.deployment.servers[2].store.chains.all()}
    for true in chains.values():
        op, commit = b"o" * 16, b"c" * 32
        view, at = b"v" * 32, true.position + 1
        made_up = dataclasses.replace(
            true, position=at, view=view, batches=[], ops=[*true.ops, (op, "delete", at, view, commit)]
        )
        for two in ((true, made_up), (made_up, true)):
            with pytest.raises(ProtocolError, match="never accepted"):
                longest([[one] for one in two], whole=True)
        for vote in (op + b"d" * 32, b"p" * 16 + commit):
            with pytest.raises(ProtocolError):
                longest([[dataclasses.replace(true, accepted=vote)], [made_up]], whole=True)
        waits = dataclasses.replace(true, accepted=op + commit)
        fits = dataclasses.replace(made_up, batches=true.batches)
        (longer,) = longest([[waits], [fits]], whole=True)
        assert longer.position == at
        for wrong in (
            dataclasses.replace(fits, position=at + 1), made_up, dataclasses.replace(fits, batches=true.batches[:-1]),
            dataclasses.replace(made_up, ops=[*true.ops, (op, "upload", at, view, commit)]),
            dataclasses.replace(fits, ops=[*true.ops, (op, "upload", at, view, commit)]),
        ):  # fmt: skip
            with pytest.raises(ProtocolError):
                longest([[waits], [wrong]], whole=True)
        with pytest.raises(ProtocolError, match="two histories"):  # its own vote, made up, and then the longer one
            longest([[true], [waits, fits]], whole=True)
        (longer,) = longest([[true], [made_up]], whole=False)  # all were restored
        assert longer.position == at


def test_a_pack_that_somebody_met_damaged_comes_back(world):
    (path, *_) = sorted((world.home(1) / "images").glob("*/*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    world.reopen()
    cloud = world.deployment.servers[1]
    assert not cloud.store.repairs.lost_packs()
    for owner in world.owners:
        with contextlib.suppress(MippError):
            cloud.store.packs.image(owner.id, owner.batches()[0].id, 0)
    assert len(cloud.store.repairs.lost_packs()) == 1
    assert world.deployment.repair()["files"] == 1 and not cloud.store.repairs.lost_packs()


def test_lost_files_are_noticed_without_a_restart(world):
    """Also of a batch that is mapped, and packs that nobody asked for."""
    answers(world)
    cloud = world.deployment.servers[1]
    for room in ("shares", "images"):
        first, second, *_ = sorted((world.home(1) / room).glob("*/*"))
        first.unlink()
        second.write_bytes(second.read_bytes()[:-1])
    assert len(cloud.store.repairs.lost_batches()) == len(cloud.store.repairs.lost_packs()) == 2
    assert world.deployment.repair() == {"files": 4, "problems": []}


def test_who_had_the_damaged_file_mapped_reads_the_new_one(world, monkeypatch):
    monkeypatch.setattr("mipp.store.files.SMALL_FILE", 1)
    monkeypatch.setattr("mipp.store.rows.SMALL_FILE", 1)
    world.reopen()
    told = answers(world)
    (path, *_) = sorted((world.home(1) / "shares").glob("*/*"))
    with open(path, "r+b") as file:  # in place: the map shows it
        file.seek(-200, 2)
        file.write(bytes(100))
    total = world.user.index().total
    with pytest.raises(VerificationError):
        world.user.search(QUERY, 60, ranking="user")
    wrong = world.user.search(QUERY, 60, ranking="user", verify=False).hits
    assert [h.score for h in wrong] != [h[2] for h in told[0][1]]
    assert total == 60 and world.deployment.repair()["files"] == 1
    assert answers(world) == told


def test_what_fails_is_tried_less_and_less(world, caplog):
    cloud, _ = lost_batch(world)
    asked = []

    def counted(server, reply):
        asked.append(server)
        return flipped(server, reply)

    repairer = Repairer(cloud, Lying(world.deployment.servers, counted))
    assert repairer.repair()[1]
    first = len(asked)
    cloud.store.views.clear()
    with contextlib.suppress(MippError):
        cloud.store.view(world.owners[0].id), cloud.store.view(world.owners[1].id)
    for _ in range(3):
        assert repairer._all(read=False) == (0, [])
    assert len(asked) == first
    repairer.repair()
    assert len(asked) == 2 * first
    assert sum("was not rebuilt" in r.getMessage() for r in caplog.records) == 1
    (_, pause, _) = next(iter(repairer._failed.values()))
    assert pause == 20.0


def test_rows_far_from_each_other(world):
    """Ranges of rows are made together, however far they lie from each other."""
    centre, owner = world.deployment.servers[3], world.owners[0]
    view = centre.store.view(owner.id)
    words = centre.row_words(owner.id, view.batches[0])
    all_rows = words(np.arange(15))
    for rows in ([0], [14], [0, 14], [0, 1, 2, 7, 14], list(range(15))):
        assert np.array_equal(words(np.array(rows)), all_rows[rows])
    large = dataclasses.replace(view.batches[0], rows=1 << 20)
    far = centre.row_words(owner.id, large)
    rows = np.concatenate([np.arange(0, 1 << 20, 10_007), [(1 << 20) - 1]])
    together = far(rows)
    assert all(np.array_equal(far(rows[i : i + 1])[0], together[i]) for i in range(0, len(rows), 9))


def test_a_session_depends_on_all_that_words_depend_on():
    facts = {
        "deployment": b"d" * 16, "target": 1, "owner": b"o" * 16, "batch": b"b" * 16, "rows": 5, "dim": 3,
        "ordinals": NONE, "nonces": [b"x" * 16, b"y" * 16],
    }  # fmt: skip
    changes = {
        "deployment": b"e" * 16, "target": 2, "owner": b"p" * 16, "batch": b"c" * 16, "rows": 6, "dim": 4,
        "ordinals": np.arange(2), "nonces": [b"y" * 16, b"x" * 16],
    }  # fmt: skip
    names = {completion_session(**facts)} | {completion_session(**facts | {k: v}) for k, v in changes.items()}
    assert len(names) == 1 + len(changes)


def test_a_batch_that_went_meanwhile_is_left_alone(world):
    cloud, lost = lost_batch(world)
    ask = peers_of(world, 1)
    told = begun(ask, 1, lost)
    owner = next(o for o in world.owners if o.id == lost.owner)
    owner.forget()
    with pytest.raises(NotFoundError):
        ask(2, pm.CompletionPart(1, lost.owner, lost.id, [told[2].nonce, told[3].nonce], 0, 1))
    with pytest.raises(ConflictError):
        cloud.store.repairs.put_share(lost, None, iter([np.zeros((lost.rows, 16), np.uint32)]), b"", None)
    assert world.deployment.repair() == {"files": 0, "problems": []}


def test_rows_that_are_not_deleted_here_are_not_left_out(world):
    cloud, lost = lost_batch(world)
    width = cloud.config.params.padded(lost.dim)
    with pytest.raises(ConflictError, match="not deleted here"):
        cloud.store.repairs.put_share(
            lost, np.arange(1, lost.rows), iter([np.zeros((lost.rows - 1, width), np.uint32)]), b"", None
        )
    assert not list((world.home(1) / "shares" / lost.owner.hex()).glob(f"{lost.id.hex()}*"))


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_one_clouds_rows_are_rebuilt_by_nobody(tmp_path, scheme):
    encoding = mipp.Encoding("cosine", 4, bits=6)
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme=scheme, threads=1) as deployment:
        deployment.create_owner("anna").add_vectors(vectors(2, dim=4))
        for path in (tmp_path / "d").glob("servers/*/shares/*/*"):
            path.unlink()
        told = deployment.repair()
        assert told["files"] == 0 and "nobody can rebuild" in told["problems"][0]
        with pytest.raises(ParameterError):
            holders_of(deployment.servers[1], 1)
