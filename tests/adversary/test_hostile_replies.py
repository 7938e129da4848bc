"""Servers that reply with something else: clients raise a typed error, whatever comes, and never another one."""

import dataclasses

import numpy as np
import pytest

import mipp
from mipp.errors import MessageError, MippError
from mipp.rpc import messages as m
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]


class Altered:
    """A channel whose last reply of a round is replaced, when the round is of a kind."""

    def __init__(self, real, kind, change):
        self.real, self.kind, self.change, self.done, self.remote = real, kind, change, 0, real.remote

    def gather(self, requests, *, together=False, spare=False):
        replies = self.real.gather(requests, together=together)
        if any(isinstance(r, self.kind) for r in replies.values()):
            self.done += 1
            last = max(replies)
            new = self.change(replies.pop(last))
            if new is not None:
                replies[last] = new
        return replies


def words(*shape, dtype="<u4"):
    return np.zeros(shape, dtype)


CHANGES = {
    "nothing": lambda r: None,
    "ok": lambda r: m.Ok(),
    "text": lambda r: "text",
    "snapshot": lambda r: m.Snapshot(b"", True, []),
    "score shares": lambda r: m.Answer(words(0, 0)),
    "score shares of another rank": lambda r: m.Answer(words(8)),
    "score shares of another type": lambda r: m.Answer(np.zeros((1, 40))),
    "a ranking": lambda r: m.Ranked(1, b"", b"", 1, 40, words(1, 3, dtype="<u8")),
    "images": lambda r: m.Images(b"", words(0, 16), words(0, 24), words(0), words(1), [], []),
    "names without owners": lambda r: m.Granters([b"i" * 16], []),
}


def users_calls(world):
    user = world.user
    return {
        "user ranks": lambda: user.search(QUERY, 3, ranking="user"),
        "servers rank": lambda: user.search(QUERY, 3, ranking="server"),
        "range": lambda: user.range_search(QUERY, 0.1),
        "scores": lambda: user.scores(QUERY),
        "index": lambda: user.index("anna"),
        "fetch": lambda: user.fetch([(world.owners[0].batches()[0].id, 0)], strict=True),
        "register": user.register,
    }


def owners_calls(world):
    owner = world.owners[0]
    return {
        "add": lambda: owner.add_vectors(vectors(2, 50)),
        "delete": lambda: owner.delete([(world.deployment.owner("anna").batches()[0].id, 1)]),
        "batches": owner.batches,
        "grants": owner.grants,
        "grant": lambda: owner.grant(world.user),
        "compact": owner.compact,
        "rows": lambda: owner.rows_of(world.deployment.owner("anna").batches()[0].id),
    }


KINDS = (m.Answer, m.Ranked, m.Snapshot, m.Granters, m.Images, m.Ok, m.Head, m.BatchList, m.GrantList, m.SealedShares)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("calls", [users_calls, owners_calls])
def test_a_reply_of_another_kind(world, calls, change):
    party = world.user if calls is users_calls else world.owners[0]
    real, met = party.channel, 0
    for name, call in calls(world).items():
        for kind in KINDS:
            world.user._known = {}  # asks for the state of the index each time
            party.channel = Altered(real, kind, change)
            try:
                call()
            except MippError:
                met += 1
            except Exception as error:
                raise AssertionError(f"{name}, reply of kind {kind.__name__}: {error!r}") from error
            finally:
                party.channel = real
    assert met


ALTERATIONS = {
    "shorter": lambda one: one[:-1],
    "empty": lambda one: one[:0],
    "twice": lambda one: [*one, *one] if isinstance(one, list) else np.concatenate([one, one]),
    "narrower": lambda one: one[:, :-1].copy() if getattr(one, "ndim", 1) == 2 else one[1:],
    "negative": lambda one: one - one.dtype.type(100) if isinstance(one, np.ndarray) else one[::-1],
    "huge": lambda one: one + one.dtype.type(1 << 40) if getattr(one, "dtype", None) == np.int64 else one[:1],
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_a_field_of_a_reply_is_altered(world, alter):
    """Each list and array of each reply that an owner or a user reads, at one server."""
    met, tried = 0, set()
    for party, calls in ((world.user, users_calls(world)), (world.owners[0], owners_calls(world))):
        real = party.channel
        if party is world.user:
            calls["grants"] = world.user.grants
        for name, call in calls.items():
            world.user._known, seen = {}, {}
            party.channel = Altered(
                real, object, lambda reply, seen=seen: seen.setdefault(type(reply), reply) and reply
            )
            try:
                call()
                for kind, field in [(of, field) for of in seen for field in dataclasses.fields(of)]:
                    if not isinstance(getattr(seen[kind], field.name), (list, np.ndarray)):
                        continue

                    def change(reply, field=field.name):
                        value = getattr(reply, field)
                        return dataclasses.replace(reply, **{field: alter(value)}) if len(value) else reply

                    world.user._known = {}
                    tried.add(kind.__name__)
                    party.channel = Altered(real, kind, change)
                    try:
                        call()
                    except MippError:
                        met += 1
                    except Exception as error:
                        raise AssertionError(f"{name}, {kind.__name__}.{field.name}: {error!r}") from error
            finally:
                party.channel = real
    assert met and {"BatchList", "Granters", "Ranked", "Answer", "UserGrantList", "GrantUseList"} <= tried


@pytest.mark.parametrize(
    "change",
    [{"rows": lambda r: r.rows[:0]}, {"refused": lambda r: []}, {"batches": lambda r: r.batches[:, :5].copy()},
     {"live": lambda r: r.live - 100}, {"live": lambda r: r.rows + 1}, {"rows": lambda r: r.rows * 0},
     {"rows": lambda r: r.rows + (1 << 62)}, {"generation": lambda r: r.generation - 9}, {"position": lambda r: -1},
     {name: lambda r, name=name: [*getattr(r, name)] * 2 if name == "refused" else
      np.concatenate([getattr(r, name)] * 2) for name in ("rows", "live", "generation", "batches", "refused")}],
)  # fmt: skip
def test_a_list_of_batches_that_does_not_fit_together(world, change):
    """Another number of rows than of ids, ids that come twice, and counts that cannot be."""
    owner = world.owners[0]
    first = owner.batches()[0].id
    server = world.deployment.servers[1]
    real = server._handlers[m.ListBatches]
    server._handlers = {**server._handlers, m.ListBatches: lambda request: dataclasses.replace(
        real(request), **{name: to(real(request)) for name, to in change.items()})}  # fmt: skip
    for call in (owner.batches, lambda: owner.delete([(first, 0)]), lambda: owner.compact(merge_below=100)):
        with pytest.raises(MessageError, match="server 1 sent a list of batches"):
            call()
    server._handlers = {**server._handlers, m.ListBatches: real}
    assert owner.delete([(first, 0)]) == 1


def test_a_ranking_without_words(world):
    user = world.user
    for shape in (lambda w: w[:0], lambda w: w[..., :0], lambda w: np.concatenate([w, w]), lambda w: w[..., [0, 0]]):
        for call in (lambda: user.search(QUERY, 3, ranking="server"), lambda: user.range_search(QUERY, 0.1)):
            real = user.channel
            user.channel = Altered(real, m.Ranked, lambda r, shape=shape: dataclasses.replace(r, words=shape(r.words)))
            try:
                with pytest.raises(MippError):
                    call()
            finally:
                user.channel = real


def test_keys_of_schemes_and_rows_do_not_pickle(world):
    import pickle

    user, server = world.user, world.deployment.servers[1]
    world.check(k=3)
    rows = server.rows(next(iter(server.queries._plans.values())))
    for thing in (user.scheme, server.scheme, rows, world.deployment.servers[3].scheme):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(thing)


def test_an_unknown_scheme_is_refused_before_any_file_is_opened(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 8), scheme="paillier"):
        pass
    path = tmp_path / "d" / "deployment.json"
    text = path.read_text()
    for name in ("evil", "", "Paillier"):
        path.write_text(text.replace('"scheme": "paillier"', f'"scheme": "{name}"'))
        with pytest.raises(mipp.errors.DeploymentError, match="scheme"):
            mipp.Deployment.open(tmp_path / "d")
