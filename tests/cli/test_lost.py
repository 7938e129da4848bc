"""The commands after a cloud lost a file of rows that nobody can rebuild: each says so, and what to do."""

import json
import sqlite3

import numpy as np
import pytest

from mipp.store.catalog import NAME
from mipp.store.repairs import lost_files


@pytest.fixture(params=[("lattice", 1), ("shares", 2)], ids=["lattice", "shares"])
def clouds(request, mipp_command, pictures):
    """Anna's pictures, in a deployment with one cloud or two; how many clouds."""
    scheme, count = request.param
    assert mipp_command("init", "--clouds", count, "--scheme", scheme)[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("user", "create", "ulla")[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla", "--ranking", "user")[0] == 0
    assert mipp_command("owner", "add", "anna", *pictures[:5])[0] == 0
    return count


def lose(folder, clouds):
    for cloud in range(1, clouds + 1):
        next((folder / f"servers/{cloud}/shares").glob("*/*")).unlink()


def test_a_file_that_all_clouds_lost(clouds, mipp_command, pictures, tmp_path):
    lose(tmp_path / "d", clouds)
    search = ("search", "ulla", pictures[6], "-k", 5, "--ranking", "user")
    code, _, err = mipp_command("owner", "add", "anna", *pictures[5:])
    assert code == 0, err
    code, out, err = mipp_command(*search[:4], 3, *search[5:])
    assert code == 0 and "left out batch" in err
    code, out, _ = mipp_command("status")
    assert code == 0 and "LACKS THE FILES of 1 of the batches" in out
    assert json.loads(mipp_command("status", "--json")[1])["owners"][0]["lost"] == 1
    code, out, _ = mipp_command("repair")
    assert code == 1 and "mipp owner delete NAME FILE...) and adds them again (mipp owner add NAME FILE" in out
    code, out, _ = mipp_command("owner", "audit", "anna")
    assert code == 1 and "mipp owner delete anna FILE..." in out
    code, _, err = mipp_command("owner", "compact", "anna")
    assert code == 1 and "5 rows" in err and "mipp owner delete anna FILE..." in err
    code, out, err = mipp_command("owner", "add", "anna", *pictures)
    assert code == 1 and "0 added, 8 already there" in out and "5 rows of these files are lost" in err
    assert "mipp owner delete anna FILE..." in err and "mipp owner add anna FILE..." in err
    assert json.loads(mipp_command("owner", "add", "anna", *pictures, "--json")[1])["lost"] == 5

    code, out, err = mipp_command("owner", "delete", "anna", *pictures[:5], "--yes")
    assert code == 0 and "5 deleted" in out, err
    code, out, err = mipp_command("owner", "add", "anna", *pictures)
    assert code == 0 and "5 added, 3 already there, 0 left out" in out, err
    assert "LACKS" not in mipp_command("status")[1] and mipp_command("verify")[0] == 0
    code, out, err = mipp_command(*search)
    assert code == 0 and "left out" not in err
    code, out, err = mipp_command("owner", "compact", "anna")
    assert code == 0 and "2 batches went, 1 are left" in out, err
    assert mipp_command("owner", "audit", "anna")[0] == mipp_command("verify")[0] == 0


@pytest.mark.parametrize(("scheme", "count"), [("lattice", 1), ("shares", 2)])
def test_the_way_out_for_a_file_of_vectors(scheme, count, mipp_command, tmp_path):
    assert mipp_command("init", "--clouds", count, "--scheme", scheme, "--vectors", 4)[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    file = tmp_path / "x.npy"
    np.save(file, np.random.default_rng(1).normal(size=(9, 4)))
    add = ("owner", "add", "anna", "--vectors", file)
    assert mipp_command(*add)[0] == 0
    lose(tmp_path / "d", count)
    code, _, err = mipp_command(*add)
    assert code == 1 and "9 rows of these files are lost" in err
    code, out, err = mipp_command("owner", "delete", "anna", file, "--yes")
    assert code == 0 and "9 deleted" in out, err
    code, out, err = mipp_command(*add)
    assert code == 0 and "9 added, 0 already there" in out, err
    assert mipp_command("verify")[0] == 0 and mipp_command("owner", "compact", "anna")[0] == 0


def test_files_are_counted_in_a_folder(clouds, mipp_command, pictures, tmp_path):
    """Whether its catalog was closed in order or not; nothing is changed there."""
    folder = tmp_path / "d/servers/1"
    names = {path.name for path in folder.iterdir()}
    assert lost_files(folder) == 0
    lose(tmp_path / "d", 1)
    assert lost_files(folder) == 1
    with sqlite3.connect(folder / NAME) as db:  # as if a server ran
        db.execute("UPDATE batches SET size=size+1")
        db.commit()
        assert lost_files(folder) == 1
    assert mipp_command("owner", "delete", "anna", *pictures[:5], "--yes")[0] == 0
    assert lost_files(folder) == 0 and {path.name for path in folder.iterdir()} >= names
