"""The commands with one cloud: ``--scheme paillier``."""

import json

import numpy as np
import pytest


def test_from_init_to_search(mipp_command, pictures, tmp_path):
    code, out, _ = mipp_command("init", "--scheme", "paillier", "--json")
    assert code == 0 and json.loads(out)["scheme"] == "paillier"
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("user", "create", "ulla", "--key-bits", "2048")[0] == 0
    assert mipp_command("owner", "add", "anna", *pictures)[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla")[0] == 0
    code, out, _ = mipp_command(
        "search", "ulla", pictures[2], "-k", 3, "--fetch", tmp_path / "found", "--openly", "--json"
    )
    hits = json.loads(out)["hits"]
    assert code == 0 and len(hits) == 3 and hits[0]["file"].endswith("001-p2.png")
    code, out, _ = mipp_command("search", "ulla", "-k", 3, "--explain-cost")
    assert code == 0 and "ranking user over 8 images" in out and "1 round, " in out
    code, out, _ = mipp_command("search", "ulla", pictures[2], "--threshold", hits[1]["value"], "--json")
    matched = json.loads(out)["hits"]
    assert code == 0 and {h["id"] for h in matched} == {h["id"] for h in hits[:2]} and matched[0]["score"] is not None
    code, _, err = mipp_command("search", "ulla", pictures[2], "--ranking", "server")
    assert code == 1 and 'ranking must be "user"' in err and len(err.splitlines()) == 1
    code, out, _ = mipp_command("status")
    assert code == 0 and "paillier scheme" in out and "servers agree: yes" in out
    assert mipp_command("verify")[0] == 0


def test_passphrase_and_vectors(mipp_command, monkeypatch, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[4])
    assert mipp_command("init", "--scheme", "paillier", "--vectors", 6, "--ring", 16, "--bits", 6)[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / "x.npy")[0] == 0
    monkeypatch.setenv("MIPP_PASSPHRASE", "correct horse")
    assert mipp_command("user", "create", "ulla", "--passphrase", "--key-bits", "2048")[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla")[0] == 0
    code, out, _ = mipp_command("search", "ulla", "--vector", tmp_path / "q.npy", "-k", 2, "--json")
    assert code == 0 and json.loads(out)["hits"][0]["id"].endswith(":4")
    monkeypatch.setenv("MIPP_PASSPHRASE", "wrong")
    code, _, err = mipp_command("search", "ulla", "--vector", tmp_path / "q.npy")
    assert code == 1 and "passphrase" in err


@pytest.mark.slow
def test_demo(mipp_command, pictures, tmp_path):
    code, out, _ = mipp_command(
        "demo", "--scheme", "paillier", "--key-bits", "2048", "--images", pictures[0].parent, "--owners", 2,
        "--queries", 3, "--k", 3, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0 and result["exact_match"] is True
    assert (result["scheme"], result["ranking"]) == ("paillier", "user")


@pytest.mark.slow
def test_evaluate(mipp_command, pictures, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(pictures)))
    code, out, _ = mipp_command(
        "evaluate", "--labels", labels, "--scheme", "paillier", "--key-bits", "2048", "--queries", 3, "--json"
    )
    result = json.loads(out)
    assert code == 0 and result["identical"] is True and (result["queries"], result["images"]) == (3, 8)
    assert result["quantised"] == result["encrypted"]
    code, _, err = mipp_command("evaluate", "--labels", labels, "--queries", 9)
    assert code == 1 and "queries must be" in err


def test_wrong_usage(mipp_command):
    for args in (("init", "--scheme", "rsa"), ("user", "create", "ulla", "--key-bits", "1024")):
        assert mipp_command(*args)[0] == 2


def test_the_earlier_name_of_the_scheme_warns(mipp_command, tmp_path):
    code, _, err = mipp_command("init", "--deployment", tmp_path / "e", "--vectors", 8, "--scheme", "homomorphic")
    assert code == 0 and "called paillier now" in err
