"""Each server is killed at points spread over what owners and users do: all servers agree again, without a person."""

import numpy as np
import pytest

from tests.deployment.hosted import AGREE
from tests.deployment.stage import OPERATIONS, Stage, attempt, check

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Stage(tmp_path_factory.mktemp("kill") / "net") as made:
        yield made


def one_point(stage, what, server, kill_at):
    net = stage.net
    stage.before(what)
    rows_before = dict(stage.plain.rows)
    stage.coming = rows_before
    net.tell(server, "arm", kill_at)
    error = attempt(stage, what)
    net.kill(server)  # at the latest now
    net.start(server)
    took = net.agreed(AGREE)
    stage.slowest = max(stage.slowest, took)
    check(stage, what, error, rows_before)
    return error


def run_matrix(stage, what, points):
    errors = 0
    for server in (1, 2, 3):
        stage.before(what)
        stage.net.tell(server, "arm", 0)
        getattr(stage, what)()
        steps = stage.net.tell(server, "count")
        stage.sync()
        if what == "revoke":
            stage.grant()
        for kill_at in np.unique(np.linspace(1, max(steps, 1), points).astype(int)):
            errors += one_point(stage, what, server, int(kill_at)) is not None
    return errors


@pytest.mark.parametrize("what", ["upload", "merge", "forget", "grant", "ranked"])  # all of them at night
def test_killed_while(stage, what):
    assert run_matrix(stage, what, 3), "no kill was met"


@pytest.mark.nightly
@pytest.mark.parametrize("what", OPERATIONS)
def test_killed_at_any_step(stage, what):
    assert run_matrix(stage, what, 25)
