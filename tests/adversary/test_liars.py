"""Servers that lie in one way each: what is noticed, and by which error, is what the threat model says."""

import contextlib
import dataclasses
import re
from pathlib import Path

import pytest

import mipp
from mipp.client import query as client_query
from mipp.errors import VerificationError
from tests.adversary.liars import LIES
from tests.adversary.scene import EACH_ROUND, FEW, MANY, NO_EFFECT, SETTINGS, UNDETECTED, Scene
from tests.conftest import DIM, made

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "threat-model.md"
QUICK = [lie for lie in LIES if lie.tries != EACH_ROUND]


@contextlib.contextmanager
def staged(folder, clouds):
    """By the rows of a lie's scene."""
    with contextlib.ExitStack() as stack:
        found = {}
        for rows in (MANY, FEW):
            (folder / str(rows[0])).mkdir()
            encoding = mipp.Encoding("cosine", DIM)
            made = mipp.Deployment.create(folder / str(rows[0]) / "d", encoding, clouds=clouds, threads=1)
            found[rows] = Scene(stack.enter_context(made), rows)
        yield found


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with staged(tmp_path_factory.mktemp("liars"), 2) as found:
        yield found


@pytest.fixture(scope="module")
def with_third_cloud(tmp_path_factory):
    with staged(tmp_path_factory.mktemp("liars3"), 3) as found:
        yield found


def outcomes(scenes, lie, setting, liars):
    """What the servers that had an occasion for the lie came to, and that all is well afterwards."""
    scene = scenes[lie.rows]
    found = {liar: scene.observed(liar, lie, setting) for liar in liars}
    assert scene.attempt(setting) == NO_EFFECT
    return {liar: outcome for liar, outcome in found.items() if outcome is not None}


@pytest.mark.parametrize("setting", SETTINGS)
def test_lies_of_one_server(scenes, setting):
    told = [lie for lie in QUICK if setting in lie.outcomes]
    found = {lie.name: outcomes(scenes, lie, setting, [2]) for lie in told}
    assert found == {lie.name: dict.fromkeys(found[lie.name], lie.outcomes[setting]) for lie in told}
    assert sum(map(bool, found.values())) > len(told) - 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lie", "setting"),
    [
        pytest.param(
            lie, setting, id=f"{lie.name}-{setting}", marks=[pytest.mark.nightly] * (lie.tries != EACH_ROUND)
        )
        for lie in LIES for setting in lie.outcomes
    ],
)  # fmt: skip
def test_each_lie_of_each_server(scenes, lie, setting):
    asked = scenes[lie.rows].asked
    found = outcomes(scenes, lie, setting, asked)
    assert found and found == dict.fromkeys(found, lie.outcomes[setting])
    # only messages that one or two servers have to send are not every server's to alter
    assert len(found) == len(asked) or lie.name.startswith(("alters a split", "alters a generate"))


def named(scenes, lie, liar):
    """A verified search of the user with three clouds: right, and who is suspected; None if there was no occasion."""
    scene, found = scenes[lie.rows], set()
    sets = scene.user.sets
    for turn, servers in enumerate(sets.sets):
        if liar not in servers:
            continue
        with scene.lying(liar, lie):
            for number in range(2):  # the first may be what is given again
                scene.number, sets._turn = number, turn
                sets._wrong.clear()
                try:
                    result = scene.user.nearest(scene.queries, scene.k, ranking="user")
                except VerificationError as error:
                    found.add(error.suspects)
                    continue
                assert result.verified and (result.rows.tolist(), result.scores.tolist()) == scene.truth["user"]
                if result.suspects:
                    assert liar not in result.index.servers
                    found.add(result.suspects)
            if not scene.told:
                return None
    return found


def right_names(found, liar):
    """The liar is always among the suspects; a cloud with the key centre, which could frame it."""
    if liar == 3:
        return found == {(3,)}
    sets = {s for s in ((1, 2, 3), (1, 3, 4), (2, 3, 4)) if liar in s}
    return bool(found) and found <= sets | {tuple(sorted((liar, 3)))}


@pytest.mark.parametrize(
    "liar", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3, 4]
)
def test_liars_are_named_with_three_clouds(with_third_cloud, liar):
    told = {lie.name: named(with_third_cloud, lie, liar) for lie in LIES if "user" in lie.outcomes}
    found = {name: suspects for name, suspects in told.items() if suspects is not None}
    wrong = {name: suspects for name, suspects in found.items() if not right_names(suspects, liar)}
    assert not wrong and len(found) > 8


def test_garbage_passes_where_rows_are_few(scenes):
    """Random scores of two rows are always an order, and in range by chance: the table is about many rows."""
    lie = next(lie for lie in LIES if lie.name == "adds a wrong zero share")
    assert scenes[FEW].observed(1, dataclasses.replace(lie, rows=FEW, tries=400), "server") == UNDETECTED


@pytest.mark.slow
def test_lies_over_a_network(tmp_path):
    """The same, with servers of their own: score shares are cut to their bits there, and above them nothing arrives."""
    with made("network", tmp_path, mipp.Encoding("cosine", DIM)) as deployment:
        scene = Scene(deployment, MANY)
        for lie in QUICK:
            if lie.rows != MANY:
                continue
            for setting, expected in lie.outcomes.items():
                if lie.name == "adds half of the ring to a score share":
                    expected = NO_EFFECT
                assert scene.observed(1, lie, setting) == expected, (lie.name, setting)
                assert scene.attempt(setting) == NO_EFFECT


def rows_of_the_page():
    """The table of the threat model: lie -> setting -> cell."""
    section = re.search(r"^## What a lying server can do\n(.*?)^## ", PAGE.read_text(), re.M | re.S)[1]
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {name: dict(zip(SETTINGS, cells, strict=True)) for name, *cells in lines[2:]}


@pytest.mark.skipif(not PAGE.is_file(), reason="no docs beside the tests")
def test_the_threat_model_lists_the_lies():
    """Each lie, with the outcome that the tests above observe; what follows a semicolon is for readers."""
    said = {
        name: {setting: cell.partition(";")[0] for setting, cell in cells.items()}
        for name, cells in rows_of_the_page().items()
    }
    assert said == {
        lie.name: {setting: str(lie.outcomes.get(setting, "–")) for setting in SETTINGS} for lie in LIES
    }  # fmt: skip


def test_an_outcome_that_changes_is_seen(scenes):
    """The suite fails whichever way: a lie that is listed as undetected and is noticed, and the reverse."""
    lie = next(lie for lie in LIES if lie.name == "adds a constant to all score shares")
    swapped = {"user": lie.outcomes["server"], "server": lie.outcomes["user"]}
    scene = scenes[lie.rows]
    for setting, expected in swapped.items():
        assert scene.observed(1, lie, setting) != expected


@pytest.mark.slow
@pytest.mark.parametrize("folds", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_honest_servers_raise_no_alarm(scenes, folds, monkeypatch):
    """Some hundreds of searches with verified answers, and of rankings by the servers."""
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: folds)
    for scene in scenes.values():
        scene.honest()
        assert all(scene.attempt("user") == NO_EFFECT for _ in range(300))
        assert all(scene.attempt(setting) == NO_EFFECT for setting in ("server", "threshold") for _ in range(100))
