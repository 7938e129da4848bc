"""A user that stays sees what a new one sees, whatever owners change meanwhile: nothing that it remembers is stale."""

import os
import random

import pytest

from mipp.errors import DeploymentError, MippError
from tests.conftest import ALL_RANKINGS, again, vectors

pytestmark = pytest.mark.slow


def _outcome(call):
    try:
        return call()
    except MippError as error:
        return type(error).__name__


def _seen(user, owners, ranking):
    """What the user finds, or the error that it gets, one by one."""
    query = vectors(1, seed=9)[0]

    def hits(k):
        return [(h.score, h.owner, h.batch, h.row) for h in user.search(query, k, owners=owners, ranking=ranking).hits]

    return [
        _outcome(lambda: hits(1)),
        _outcome(lambda: hits(3)),
        _outcome(lambda: [[h.row for h in r.hits] for r in user.search_batch(vectors(2), 1, owners=owners)]),
        _outcome(lambda: user.scores(query[None], owners=owners)[1].tolist()),
        _outcome(lambda: user.index(owners).ids()),
    ]


def _new(user):
    """The same user, as if its program had just started."""
    fresh = type(user).__new__(type(user))
    fresh.__dict__.update(user.__dict__, _known={}, _told={}, _names={}, _unsettled={})
    return fresh


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_user_that_stays_sees_what_a_new_one_sees(deployment, seed):
    choose = random.Random(seed)
    user = deployment.create_user("u")
    owners = {}
    for step in range(20):
        name = choose.choice("abc")
        # names of forgotten owners do not come back
        owner = owners.get(name)
        if owner is None:
            owner = owners[name] = deployment.create_owner(f"{name}{step}")
            if choose.random() < 0.5:
                owner.grant(user.id, rankings=ALL_RANKINGS)
            owner.add_vectors(vectors(choose.randint(1, 4), seed=step))
            owner.grant(user.id, rankings=ALL_RANKINGS)
        else:
            change = choose.choice(["add", "delete", "revoke", "grant", "block", "unblock", "forget", "compact"])
            try:
                if change == "add":
                    owner.add_vectors(vectors(2, seed=step))
                elif change == "delete":
                    owner.delete([(owner.batches()[0].id, 0)])
                elif change == "revoke":
                    owner.revoke(user.id)
                elif change == "grant":
                    owner.grant(user.id, rankings=choose.choice([ALL_RANKINGS, ("server",)]))
                elif change == "block":
                    user.block([owner])
                elif change == "unblock":
                    user.unblock([owner])
                elif change == "forget":
                    owner.forget()
                    del owners[name]
                else:
                    owner.compact()
            except (MippError, IndexError):
                pass
        for which in (None, owner, owner.name):
            for ranking in ("user", "server"):
                assert _seen(user, which, ranking) == _seen(_new(user), which, ranking), (step, which, ranking)


def test_a_name_that_another_owner_has_now_is_not_searched_for_the_old_one(deployment, monkeypatch):
    """Names are looked up when they are used: servers may come to know another owner by one."""
    user, first, second = deployment.create_user("u"), deployment.create_owner("a"), deployment.create_owner("b")
    for seed, owner in enumerate((first, second)):
        owner.add_vectors(vectors(3, seed=seed))
        owner.grant(user.id, rankings=ALL_RANKINGS)
    assert user.search(vectors(1)[0], 1, owners="a").hits[0].owner == first.id
    user._names = {second.id: "a", first.id: "b"}  # as it would be if they had swapped names since
    assert user.search(vectors(1)[0], 1, owners="a").hits[0].owner == first.id


def _in_child(call):
    """What a forked child gets of a call, as one byte."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            call()
        except DeploymentError as error:
            code = 0 if "fork" in str(error) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_is_refused_and_its_parent_goes_on(deployment):
    owner, user = deployment.create_owner("a"), deployment.create_user("u")
    owner.add_vectors(vectors(4))
    owner.grant(user.id, rankings=ALL_RANKINGS)
    query = vectors(1)[0]
    before = user.search(query, 2).hits
    calls = {
        "add": lambda: owner.add_vectors(vectors(2)),
        "delete": lambda: owner.delete([before[0].id]),
        "search": lambda: user.search(query, 1),
        "user": lambda: deployment.user("u"),
        "make": lambda: deployment.create_owner("b"),
    }
    assert {name: _in_child(call) for name, call in calls.items()} == dict.fromkeys(calls, 0)
    child = os.fork()
    if child == 0:
        deployment.close()  # closes nothing of the parent's
        os._exit(0)
    os.waitpid(child, 0)
    assert user.search(query, 2).hits == before
    owner.add_vectors(vectors(2, seed=5))
    assert user.index().total == 6
    assert deployment.owners() == ["a"]
    with again(deployment) as opened:
        assert not opened.notes
