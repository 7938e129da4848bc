"""The commands with one cloud: ``--clouds 1``, ``--scheme lattice``."""

import json

import numpy as np
import pytest

from mipp.demo.run import DemoImage, run_demo


def test_from_init_to_search(mipp_command, pictures, tmp_path):
    code, out, _ = mipp_command("init", "--clouds", 1, "--json")
    assert code == 0 and json.loads(out)["scheme"] == "lattice"
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("user", "create", "ulla")[0] == 0
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
    code, _, err = mipp_command("search", "ulla", pictures[2], "--previews")
    assert code == 1 and "there are no names and captions" in err
    code, out, err = mipp_command("user", "create", "uma", "--key-bits", 4096)
    assert code == 0 and "--key-bits does nothing in the lattice scheme" in err
    assert "--key-bits" not in mipp_command("user", "create", "udo")[2]
    code, _, err = mipp_command("owner", "grant", "anna", "ulla", "--max-k", 5)
    assert code == 1 and "leave max_k out (0): quota bounds" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--quota", 1)[0] == 0
    assert mipp_command("search", "ulla", pictures[2], pictures[3])[2].count("search with fewer at a time") == 1
    assert mipp_command("search", "ulla", pictures[2])[0] == 0
    code, _, err = mipp_command("search", "ulla", pictures[2], pictures[3])
    assert code == 1 and "quota of the grant of owner anna is used up; the owner grants again" in err
    assert "fewer" not in err
    code, out, _ = mipp_command("status")
    assert code == 0 and "lattice scheme" in out and "servers agree: yes" in out
    assert mipp_command("verify")[0] == 0


def test_long_scores_with_a_passphrase(mipp_command, monkeypatch, tmp_path):
    """Users have a key in their key file, and bring servers an evaluation key once."""
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[4])
    init = ("init", "--scheme", "lattice", "--vectors", 6, "--ring", 32, "--bits", 12, "--query-bits", 12)
    assert mipp_command(*init)[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / "x.npy")[0] == 0
    monkeypatch.setenv("MIPP_PASSPHRASE", "correct horse")
    assert mipp_command("user", "create", "ulla", "--passphrase")[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla")[0] == 0
    code, out, _ = mipp_command("search", "ulla", "-k", 2, "--explain-cost")
    assert code == 0 and "and once, before a user's first search" in out
    for _ in range(2):
        code, out, _ = mipp_command("search", "ulla", "--vector", tmp_path / "q.npy", "-k", 2, "--json")
        assert code == 0 and json.loads(out)["hits"][0]["id"].endswith(":4")
    monkeypatch.setenv("MIPP_PASSPHRASE", "wrong")
    code, _, err = mipp_command("search", "ulla", "--vector", tmp_path / "q.npy")
    assert code == 1 and "passphrase" in err


@pytest.mark.parametrize(("scheme", "searched"), [("shares", [7]), ("lattice", [5, 7])])
def test_a_demo_counts_its_queries(pictures, tmp_path, scheme, searched):
    told = []
    images = [DemoImage(path, "") for path in pictures]
    run_demo(
        images, tmp_path / "out", owners=2, queries=7, k=2, descriptor="cld", scheme=scheme, ring_bits=16,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert [done for stage, done, of in told if stage == "search" and of == 7] == searched
    assert [done for stage, done, of in told if stage == "fetch"] == list(range(1, 8))


@pytest.mark.slow
def test_demo(mipp_command, pictures, tmp_path):
    code, out, _ = mipp_command(
        "demo", "--scheme", "lattice", "--images", pictures[0].parent, "--owners", 2, "--queries", 3, "--k", 3,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0 and result["exact_match"] is True
    assert (result["scheme"], result["ranking"]) == ("lattice", "user")


@pytest.mark.slow
def test_evaluate(mipp_command, pictures, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(pictures)))
    code, out, _ = mipp_command("evaluate", "--labels", labels, "--scheme", "lattice", "--queries", 3, "--json")
    result = json.loads(out)
    assert code == 0 and result["identical"] is True and (result["queries"], result["images"]) == (3, 8)
    assert result["quantised"] == result["encrypted"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--scheme", "lattice", "--clouds", 2), "has 1 cloud, not 2"),
        (("--clouds", 4), "1, 2 or 3 clouds, not 4"),
        (("--clouds", 1, "--preview-size", 8192), "one cloud keeps no records that a user could fetch"),
        (("--clouds", 1, "--vectors", 1025), "at most 1024 coordinates"),
        (("--clouds", 1, "--vectors", 1025), "words of a row: --project N --fit FILE"),
        (("--clouds", 1, "--vectors", 1025), "--scheme paillier"),
        (
            ("--clouds", 1, "--vectors", 200, "--metric", "ip", "--ring", 64, "--bits", 16, "--query-bits", 16),
            "32 bits of score",
        ),
    ],
)
def test_what_the_scheme_cannot_do(mipp_command, options, text):
    code, _, err = mipp_command("init", *options)
    assert code == 1 and text in err and "Traceback" not in err
