"""Clusters on the command line: an index that has them, searches of some, and what they find."""

import json

import numpy as np
import pytest


def features(count, seed):
    rng, centres = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(6, 5))
    return (centres[rng.integers(0, 6, count)] + 0.3 * rng.normal(size=(count, 5))).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    for name, count in (("public", 200), ("rows", 600), ("queries", 5), ("few", 3)):
        np.save(tmp_path / f"{name}.npy", features(count, count))
    return tmp_path


def test_index_and_search(mipp_command, files):
    code, out, _ = mipp_command("init", "--fit", files / "public.npy", "--clusters", 8, "--groups", 4, "--json")
    assert code == 0 and (json.loads(out)["clusters"], json.loads(out)["groups"]) == (8, 4)
    for arguments in (
        ("owner", "create", "anna"), ("owner", "add", "anna", "--vectors", files / "rows.npy"),
        ("user", "create", "ulla"), ("owner", "grant", "anna", "ulla", "--ranking", "server", "--ranking", "probe"),
    ):  # fmt: skip
        assert mipp_command(*arguments)[0] == 0
    search = ("search", "ulla", "--vectors", files / "queries.npy", "-k", 5, "--json")
    exact, probed = (mipp_command(*search, *more)[1].splitlines() for more in ((), ("--probe",)))
    found = [{(row["query"], row["id"]) for row in map(json.loads, lines) if "id" in row} for lines in (exact, probed)]
    assert len(found[0] & found[1]) > 0.6 * len(found[0]) > 0
    costs = [
        json.loads(mipp_command("search", "ulla", "--explain-cost", "--json", *more)[1]) for more in ((), ("--probe",))
    ]
    assert costs[1]["user"]["proof"] > costs[0]["user"]["proof"]
    assert costs[1]["clustered"] == 576 and "clustered" not in costs[0]
    np.save(files / "one.npy", features(1, 4))
    for more, text in (
        (("--ranking", "user"), "ranked by the servers"), (("-k", 500), "is sure to cover"),
        (("--threshold", 0.5), "--probe"),
    ):  # fmt: skip
        code, _, err = mipp_command("search", "ulla", "--vector", files / "one.npy", "--probe", *more)
        assert code and text in err and "Traceback" not in err


def test_centroids_of_a_file(mipp_command, files):
    np.save(files / "centroids.npy", features(12, 3))
    code, out, _ = mipp_command("init", "--vectors", 5, "--centroids", files / "centroids.npy", "--groups", 3)
    assert code == 0 and "clusters: 12 in 3 groups" in out and "in batches of 792 rows or more" in out
    assert "warning" not in out


def test_batches_that_are_never_laid_out(mipp_command, files, monkeypatch):
    """The operator and the user are told."""
    monkeypatch.setattr("mipp.client.row_ids._CLUSTERED_BYTES", 1 << 10)
    monkeypatch.setattr("mipp.client.row_ids.BATCH_BYTES", 1 << 10)
    code, out, _ = mipp_command("init", "--fit", files / "public.npy", "--clusters", 8, "--groups", 4)
    assert code == 0 and "warning: vectors are added in batches of" in out
    for arguments in (
        ("owner", "create", "anna"), ("owner", "add", "anna", "--vectors", files / "few.npy"),
        ("user", "create", "ulla"), ("owner", "grant", "anna", "ulla", "--ranking", "probe"),
    ):  # fmt: skip
        assert mipp_command(*arguments)[0] == 0
    code, out, _ = mipp_command("search", "ulla", "--explain-cost", "--probe", "-k", 2)
    assert code == 0 and "no batch is large enough for clusters" in out
    np.save(files / "one.npy", features(1, 4))
    for query in (("--vector", files / "one.npy"), ("--vectors", files / "queries.npy")):
        code, _, err = mipp_command("search", "ulla", *query, "--probe", "-k", 2)
        assert code == 0 and err.count("no batch is large enough for clusters") == 1
    _, out, _ = mipp_command("search", "ulla", "--vector", files / "one.npy", "--probe", "-k", 2, "--json")
    assert json.loads(out)["clustered"] == 0
    told = json.loads(mipp_command("deployment", "info", "--json")[1])
    assert (told["clusters"], told["groups"]) == (8, 4)
    assert "8 in 4 groups" in mipp_command("deployment", "info")[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--vectors", 5, "--clusters", 8, "--groups", 2), "--clusters needs --fit"),
        (("--fit", "public", "--clusters", 8), "need --groups G"),
        (("--fit", "public", "--groups", 8), "--groups needs --clusters C"),
        (("--clouds", 1, "--fit", "public", "--clusters", 8), "one cloud has no clusters"),
        (("--scheme", "paillier", "--fit", "public", "--groups", 2), "one cloud has no clusters"),
        (("--fit", "public", "--clusters", 9, "--groups", 2), "groups of one size"),
        (("--fit", "few", "--clusters", 9, "--groups", 3), "at least 9 public rows"),
        (("--fit", "public", "--metric", "ip", "--clusters", 8, "--groups", 2), "ip is none"),
        (("--fit", "public", "--ranking", "user", "--clusters", 8, "--groups", 2), "servers rank"),
        (("--vectors", 4, "--centroids", "public", "--groups", 2), "5"),
    ],
)
def test_refused(mipp_command, files, arguments, text):
    given = [files / f"{a}.npy" if a in ("public", "few") else a for a in arguments]
    code, _, err = mipp_command("init", *given)
    assert code and text in err and "Traceback" not in err
    assert not (files / "d" / "deployment.json").exists()


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_schemes_with_one_cloud_have_none(mipp_command, files, scheme):
    assert mipp_command("init", "--vectors", 5, "--scheme", scheme)[0] == 0
    assert mipp_command("user", "create", "ulla", "--key-bits", 2048)[0] == 0
    np.save(files / "one.npy", features(1, 4))
    code, _, err = mipp_command("search", "ulla", "--vector", files / "one.npy", "--probe")
    assert code and "this index has no clusters" in err


def test_an_index_without_clusters(mipp_command, files):
    assert mipp_command("init", "--vectors", 5)[0] == 0 and mipp_command("user", "create", "ulla")[0] == 0
    np.save(files / "one.npy", features(1, 4))
    code, _, err = mipp_command("search", "ulla", "--vector", files / "one.npy", "--probe")
    assert code and "no clusters" in err


def test_evaluate(mipp_command, files):
    given = ("evaluate", "--vectors", files / "rows.npy", "--query-vectors", files / "queries.npy")
    code, out, _ = mipp_command(*given, "--clusters", 4, "--groups", 2)
    assert code == 0 and "clusters: 4 in 2 groups find" in out
    code, out, _ = mipp_command(*given, "--clusters", 4, "--groups", 2, "--out", files / "e.html", "--json")
    found = json.loads(out)["clusters"]
    assert "Searches of chosen clusters" in (files / "e.html").read_text()
    assert 0.5 < found["recall"] <= 1 and 0 <= found["least"] <= found["recall"] and 0.4 < found["ranked"] < 0.7
    # too few rows for clusters: all are ranked
    code, out, _ = mipp_command(*given, "--clusters", 64, "--groups", 2, "--json")
    assert (json.loads(out)["clusters"]["recall"], json.loads(out)["clusters"]["ranked"]) == (1.0, 1.0)
    for more in (("--clusters", 4), ("--groups", 2)):
        assert mipp_command(*given, *more)[0] == 2
