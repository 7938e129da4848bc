"""The study of cheaper selection at tiny sizes: what it writes, and its clusters against plain twins."""

import json

import numpy as np
import pytest

from benchmarks.selection import __main__ as selection
from benchmarks.selection import clusters, costs
from mipp.mpc import quickselect


def test_quick(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clusters, "DATASETS", tmp_path)
    assert selection.main(["--quick", "--json", str(tmp_path / "s.json")]) == 0
    content, printed = json.loads((tmp_path / "s.json").read_text()), capsys.readouterr().out
    assert content["schema"] == selection.SCHEMA and content["quick"] is True
    assert content["left_out"] == [selection.MISSING] and selection.MISSING in printed
    assert all(content[part] for part in selection.PARTS)
    for row in content["present"]:
        assert row["bytes a row and server"] > 0 and row["seconds"] > 0
    assert {row["way"] for row in content["bytes"]} == set(selection.WAYS)
    for row in content["bytes"]:
        assert row["all MB"] == pytest.approx(row["servers MB"] + row["user MB"])
        assert row["times fewer"] == pytest.approx(row["present MB"] / row["all MB"])
    # padding and ranking are compared with the same in the clear by the runs themselves
    assert len(content["runs"]) == 5 and all(ran["seconds"] for ran in content["runs"])


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--json", "/no/such/folder/s.json"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        selection.main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err


def test_rows_go_where_there_is_room():
    x, public = clusters.mixture(600, 1), clusters.mixture(300, 2)
    centroids = clusters.train(public, 8)
    near = clusters.nearest(x, centroids, 8)
    plain = ((x[:, None] - centroids[None]) ** 2).sum(axis=2)
    assert np.array_equal(near[0], plain.argsort(axis=1))
    at, spilled = clusters.assign(*near, 8, 80)
    assert np.bincount(at, minlength=8).max() <= 80 and spilled == 0
    free, _ = clusters.assign(*near, 8, 600)
    assert np.array_equal(free, plain.argmin(axis=1))
    # nobody that would lose less by moving stays in a full cluster that another one had to leave
    assert plain[np.arange(600), at].sum() < 1.1 * plain.min(axis=1).sum()
    alone, spilled = clusters.assign(near[0][:, :1], near[1][:, :1], 8, 80)
    assert np.bincount(alone, minlength=8).max() <= 80 and spilled > 0


def test_groups_are_equal_and_part_what_is_near():
    public = clusters.mixture(2000, 2)
    centroids = clusters.train(public, 32)
    group = clusters.deal(centroids, 8, public)
    assert np.bincount(group).tolist() == [4] * 8

    def together(some):
        top, _ = clusters.nearest(public, centroids, 2)
        return float((some[top[:, 0]] == some[top[:, 1]]).mean())

    chance = np.mean([together(np.random.default_rng(s).permutation(group)) for s in range(20)])
    assert together(group) < chance / 4


def test_found_and_needed_are_what_they_say():
    of = clusters.Set("mixture", clusters.mixture(800, 3), clusters.mixture(20, 4), clusters.mixture(400, 5))
    truth = clusters.exact(of.rows, of.queries)
    plain = ((of.queries[:, None] - of.rows[None]) ** 2).sum(axis=2)
    assert np.array_equal(truth, plain.argsort(axis=1)[:, : clusters.K])
    (figure,) = clusters.figures(of, (16,), (1.25,), (4, 8))
    assert 0 < figure.found[4] <= figure.found[8] <= 1 and figure.found == figure.unseen
    ranks = np.tile(np.arange(16), (20, 1))
    at = np.zeros(800, np.int32)
    at[truth.ravel()] = 5
    assert clusters.probes_needed(at, ranks, truth) == 6
    hit = clusters.found_by_groups(at, ranks, np.arange(16) % 4, truth)
    assert not hit.any() and clusters.found_by_groups(at, ranks, np.arange(16) // 4, truth).sum() == 0
    at[truth.ravel()] = 4
    assert clusters.found_by_groups(at, ranks, np.arange(16) // 4, truth).all()


def test_simulated_selections_are_the_built_ones():
    before = quickselect._ROWS_A_SPARE, quickselect._LEAST_SPARE
    found = costs.simulate(200_000, 10, 16, 2, 37)
    assert before == (quickselect._ROWS_A_SPARE, quickselect._LEAST_SPARE)
    assert 1 < found.comparisons < 1.35 and found.bytes == pytest.approx(
        5 * 37 / 24 + 7.85 * found.comparisons, rel=0.03
    )
