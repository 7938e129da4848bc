"""The commands as a person calls them: what they print, exit codes, one-line errors."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mipp import features


def test_from_init_to_forget(mipp_command, pictures, tmp_path):
    code, out, _ = mipp_command("init", "--json")
    assert code == 0 and json.loads(out)["descriptor"] == features.DEFAULT
    for name in ("anna", "berta"):
        assert mipp_command("owner", "create", name)[0] == 0
        assert stat.S_IMODE((tmp_path / f"d/owners/{name}.key").stat().st_mode) == 0o600
    assert mipp_command("user", "create", "ulla")[0] == 0
    code, out, _ = mipp_command("owner", "add", "anna", *pictures[:5], "--json")
    added = json.loads(out)
    assert code == 0 and added["added"] == 5 and added["skipped"] == 0 and len(added["ids"]) == 5
    code, out, _ = mipp_command("owner", "add", "anna", pictures[0].parent, "--json")
    assert (json.loads(out)["added"], json.loads(out)["skipped"]) == (3, 5)
    assert mipp_command("owner", "add", "berta", pictures[2])[0] == 0

    code, _, err = mipp_command("search", "ulla", pictures[2])
    assert code == 1 and err.startswith("mipp: error:") and len(err.splitlines()) == 1 and "grant" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--max-k", 6)[0] == 0
    fetched, sheet = tmp_path / "fetched", tmp_path / "sheet.png"
    code, out, _ = mipp_command("search", "ulla", pictures[2], "-k", 3, "--fetch", fetched, "--sheet", sheet, "--json")
    hits = json.loads(out)["hits"]
    assert code == 0 and len(hits) == 3 and hits[0]["owner"] == "anna"
    assert hits[0]["id"] == next(i["id"] for i in added["ids"] if i["file"].endswith("p2.png"))
    assert Path(hits[0]["file"]).read_bytes() == pictures[2].read_bytes()
    assert sheet.read_bytes()[:4] == b"\x89PNG" and len(list(fetched.iterdir())) == 3
    code, _, err = mipp_command("search", "ulla", pictures[2], "-k", 7)
    assert code == 1 and "k up to 6" in err

    assert mipp_command("owner", "delete", "anna", hits[0]["id"])[0] == 0
    code, out, _ = mipp_command("search", "ulla", pictures[2], "-k", 3, "--json")
    assert hits[0]["id"] not in [h["id"] for h in json.loads(out)["hits"]]
    code, out, _ = mipp_command("owner", "add", "anna", pictures[2], "--json")
    assert json.loads(out)["added"] == 1, "deleted images can be added again"
    assert mipp_command("owner", "compact", "anna")[0] == 0
    code, out, _ = mipp_command("owner", "add", "anna", pictures[0].parent, "--json")
    assert json.loads(out)["skipped"] == 8, "the journal follows a merge"
    code, out, _ = mipp_command("status", "--json")
    status = json.loads(out)
    assert [(o["name"], o["live"], o["batches"]) for o in sorted(status["owners"], key=lambda o: o["name"])] == [
        ("anna", 8, 1),
        ("berta", 1, 1),
    ]
    assert status["servers_agree"] and mipp_command("verify")[0] == 0

    code, out, _ = mipp_command("search", "ulla", "-k", 3, "--explain-cost", "--json")
    cost = json.loads(out)
    assert code == 0 and cost["images"] == 8 and cost["servers"]["rounds"] > 3 and "bound" in cost["servers"]
    assert cost["memory"]["read"] > 0 and set(cost["memory"]) == {"read", "server", "user"}
    text = mipp_command("search", "ulla", "-k", 3, "--explain-cost")[1]
    assert "rounds" in text and f"each cloud reads {cost['memory']['read']:,} bytes of rows" in text
    assert f"a server holds {cost['memory']['server']:,} bytes at once, the user {cost['memory']['user']:,} by" in text
    code, out, _ = mipp_command("search", "ulla", "-k", 3, "--explain-cost", "--line", 20, 1, "--json")
    told = json.loads(out)
    trips = 2 + told["servers"]["rounds"] / 2
    assert code == 0 and 0.02 * trips < told["line_seconds"] < 0.02 * trips + 0.01
    assert "messages take" in mipp_command("search", "ulla", "-k", 3, "--explain-cost", "--line", 20, 1)[1]
    assert mipp_command("search", "ulla", "query.png", "--line", 20, 1)[0] == 2
    for line in ((20, 0), ("nan", 1), (20, "nan"), (20, "inf"), (-1, 1)):
        assert mipp_command("search", "ulla", "--explain-cost", "--line", *line)[0] == 2
    by_user = ("search", "ulla", pictures[2], "-k", 3, "--ranking", "user", "--json")
    code, _, err = mipp_command(*by_user)
    assert code == 1 and "ranking 'user'" in err, "all scores are granted by name only"
    code, _, err = mipp_command("owner", "grant", "anna", "ulla", "--ranking", "user", "--max-k", 6)
    assert code == 1 and "contradicts max_k=6" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--ranking", "server", "--ranking", "user")[0] == 0
    scored = json.loads(mipp_command(*by_user)[1])["hits"]
    code, _, err = mipp_command("search", "ulla", pictures[2], "--threshold", scored[2]["value"], "--json")
    assert code == 1 and "ranking 'threshold'" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--ranking", "server", "--ranking", "threshold")[0] == 0
    code, out, _ = mipp_command("search", "ulla", pictures[2], "--threshold", scored[2]["value"], "--json")
    matches = json.loads(out)["hits"]
    assert {h["id"] for h in matches} == {h["id"] for h in scored} and matches[0]["score"] is None
    assert "score" not in mipp_command("search", "ulla", pictures[2], "--threshold", scored[2]["value"])[1]
    by_user = ("search", "ulla", pictures[2], "--threshold", scored[2]["value"], "--ranking", "user")
    code, _, err = mipp_command(*by_user)
    assert code == 1 and "ranking 'user'" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--ranking", "server", "--ranking", "user")[0] == 0
    code, out, err = mipp_command(*by_user, "--json")
    reached = json.loads(out)
    assert code == 0 and {h["id"] for h in reached["hits"]} == {h["id"] for h in scored[:3]} and reached["verified"]
    assert {h["score"] for h in reached["hits"]} == {h["score"] for h in scored[:3]}
    assert not json.loads(mipp_command(*by_user, "--json", "--no-verify")[1])["verified"]
    told = json.loads(mipp_command(*by_user[:2], *by_user[3:], "--explain-cost", "--json")[1])
    assert told["ranking"] == "user" and told["memory"]["read"] > 0
    assert mipp_command("owner", "grant", "anna", "ulla", "--ranking", "server", "--ranking", "threshold")[0] == 0

    assert mipp_command("owner", "revoke", "anna", "ulla")[0] == 0
    assert mipp_command("search", "ulla", pictures[2])[0] == 1
    assert mipp_command("owner", "forget", "berta", "--yes")[0] == 0
    code, _, err = mipp_command("owner", "add", "berta", pictures[3])
    assert code == 1 and "forgotten" in err
    assert "forgotten" in mipp_command("status")[1]


def test_vectors(mipp_command, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[7:8])
    np.save(tmp_path / "flat.npy", x[7])
    assert mipp_command("init", "--fit", tmp_path / "x.npy", "--metric", "l2", "--query-bits", 10)[0] == 0
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    mipp_command("owner", "grant", "o", "u")
    code, out, _ = mipp_command("owner", "add", "o", "--vectors", tmp_path / "x.npy", "--json")
    assert code == 0 and json.loads(out)["added"] == 50
    code, out, _ = mipp_command("owner", "add", "o", "--vectors", tmp_path / "x.npy", "--json")
    assert json.loads(out)["skipped"] == 50
    code, out, _ = mipp_command("search", "u", "--vector", tmp_path / "q.npy", "-k", 2, "--json")
    hits = json.loads(out)["hits"]
    assert hits[0]["id"].endswith(":7") and hits[0]["value"] < 0.1 < hits[1]["value"]
    assert (
        json.loads(mipp_command("search", "u", "--vector", tmp_path / "flat.npy", "-k", 2, "--json")[1])["hits"] == hits
    )
    code, _, err = mipp_command("search", "u", "--vector", tmp_path / "x.npy")
    assert code == 1 and "50 vectors" in err
    for bad in (["search", "u", tmp_path / "q.npy"], ["owner", "add", "o", tmp_path / "q.npy"]):
        code, _, err = mipp_command(*bad)
        assert code == 1 and "mipp: error:" in err
    x[3, 4] = np.nan
    np.save(tmp_path / "x.npy", x)
    code, _, err = mipp_command("owner", "add", "o", "--vectors", tmp_path / "x.npy")
    assert code == 1 and "NaN" in err and "Traceback" not in err


def test_broken_images_are_reported_and_the_rest_goes_on(mipp_command, pictures):
    (pictures[0].parent / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    mipp_command("init")
    mipp_command("owner", "create", "o")
    code, out, _ = mipp_command("owner", "add", "o", pictures[0].parent, "--json")
    report = json.loads(out)
    assert code == 1 and report["added"] == 8
    assert [Path(e["file"]).name for e in report["errors"]] == ["broken.jpg"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["status"], "no deployment"),
        (["owner", "create", "a/b"], "no deployment"),
        (["search", "u"], "either IMAGE or"),
        (["init", "--descriptor", "nothing"], "nothing"),
        (["init", "--ring", "16", "--vectors", "128", "--metric", "l2"], "16"),
        (["init", "--vectors", "0"], "dim"),
        (["demo", "--owners", "0"], "owners"),
        (["evaluate"], "labels"),
        (["nothing"], "nothing"),
        (["init", "--vectors", "8", "--metric", "l1"], "levels"),
    ],
)
def test_errors_a_person_can_act_on(mipp_command, args, text):
    code, _, err = mipp_command(*args)
    assert code in (1, 2) and text in err and "Traceback" not in err


def test_errors_inside_a_deployment(mipp_command, pictures):
    mipp_command("init")
    mipp_command("owner", "create", "o")
    for args, text in [
        (["init"], "already"),
        (["owner", "create", "o"], "exists"),
        (["owner", "create", "../o"], "name"),
        (["owner", "add", "p", pictures[0]], "unknown owner"),
        (["owner", "grant", "o", "u"], "no user called"),
        (["owner", "delete", "o", "zz"], "image id"),
        (["search", "u", pictures[0]], "unknown user"),
        (["owner", "add", "o", "--vectors", __file__], "features of images"),
    ]:
        code, _, err = mipp_command(*args)
        assert code == 1 and text in err and len(err.splitlines()) == 1, args
    key = Path(os.environ["MIPP_DEPLOYMENT"]) / "owners/o.key"
    key.write_text("{")
    code, _, err = mipp_command("owner", "compact", "o")
    assert code == 1 and "corrupt" in err


def test_passphrases(mipp_command, pictures, monkeypatch):
    mipp_command("init")
    monkeypatch.setenv("MIPP_PASSPHRASE", "a long one")
    assert mipp_command("owner", "create", "o", "--passphrase")[0] == 0
    assert mipp_command("owner", "add", "o", pictures[0])[0] == 0
    monkeypatch.setenv("MIPP_PASSPHRASE", "another")
    code, _, err = mipp_command("owner", "add", "o", pictures[1])
    assert code == 1 and "wrong passphrase" in err
    monkeypatch.delenv("MIPP_PASSPHRASE")
    code, _, err = mipp_command("owner", "add", "o", pictures[1])
    assert code == 1 and "MIPP_PASSPHRASE" in err


def test_verify_names_a_damaged_file(mipp_command, pictures, tmp_path):
    mipp_command("init")
    mipp_command("owner", "create", "o")
    mipp_command("owner", "add", "o", *pictures)
    path = next((tmp_path / "d/servers/2/shares").glob("*/*"))
    raw = bytearray(path.read_bytes())
    raw[300] ^= 1
    path.write_bytes(raw)
    code, out, _ = mipp_command("verify")
    assert code == 1 and path.name in out


@pytest.mark.slow
def test_demo_on_rendered_images(mipp_command, tmp_path):
    args = ["--queries", 6, "--k", 5, "--out", tmp_path / "out", "--json"]
    by_user = json.loads(mipp_command("demo", "--ranking", "user", *args)[1])
    assert by_user["exact_match"] is True and "Answer" in by_user["bytes"]
    code, out, _ = mipp_command("demo", *args)
    result = json.loads(out)
    assert result["p_at_k"] == by_user["p_at_k"]
    assert code == 0 and result["exact_match"] is True
    assert (result["images"], result["owners"], result["queries"]) == (400, 4, 6)
    assert set(result["seconds"]) == {"extract", "encrypt", "upload", "score", "rank", "fetch"}
    assert {"UploadOp", "Query", "Ranked", "Images"} <= set(result["bytes"])
    assert result["p_at_k"] > 0.5
    assert Path(result["sheet"]).read_bytes()[:4] == b"\x89PNG"


def test_demo_on_a_folder(mipp_command, pictures, tmp_path):
    labels = pictures[0].parent / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p.name},{i % 2}\n" for i, p in enumerate(pictures)))
    (pictures[0].parent / "zz.png").write_bytes(b"broken")
    code, out, _ = mipp_command(
        "demo", "--images", pictures[0].parent, "--owners", 3, "--k", 99, "--out", tmp_path / "o", "--json"
    )
    result = json.loads(out)
    assert code == 0 and result["exact_match"] and result["images"] == 8 and "p_at_k" not in result
    assert len(result["errors"]) == 1 and result["k"] == 7
    code, out, _ = mipp_command(
        "demo", "--images", pictures[0].parent, "--labels", labels, "--owners", 2, "--k", 2, "--out", tmp_path / "o"
    )
    assert code == 0 and "P@2" in out and "equals the plaintext's: yes" in out


def test_evaluate(mipp_command, pictures):
    labels = pictures[0].parent / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p.name},{i % 2}\n" for i, p in enumerate(pictures)))
    for descriptor in ("cld", "ehd", "cld+ehd"):
        code, out, _ = mipp_command(
            "evaluate", "--images", pictures[0].parent, "--labels", labels, "--descriptor", descriptor, "--json"
        )
        result = json.loads(out)
        assert code == 0 and result["descriptor"] == descriptor and result["identical"] is True
        assert result["quantised"] == result["encrypted"]
        for kind in ("float", "quantised", "encrypted"):
            assert set(result[kind]) == {"map", "p10", "p20", "nn_error", "anmrr", "ns", "recall10"}


@pytest.mark.slow
def test_installed_command_and_help():
    """As installed: the help of every command, information, and no traceback on Ctrl-C's exit path."""
    run = [sys.executable, "-c", "from mipp.cli import main; main()"]
    assert subprocess.run([*run, "--help"], capture_output=True, check=True).stdout
    out = subprocess.run([*run, "info", "--json"], capture_output=True, text=True, check=True).stdout
    info = json.loads(out)
    assert info["level"] in info["levels"] and info["threads"] >= 1 and "ring" in info["tiers"]
    for command in ("init", "demo", "search", "evaluate", "status", "verify", "info", "owner", "user"):
        assert subprocess.run([*run, command, "--help"], capture_output=True, check=False).returncode == 0


def test_a_damaged_image_is_reported_and_the_rest_is_fetched(mipp_command, pictures, tmp_path):
    mipp_command("init")
    mipp_command("user", "create", "u")
    for name, some in (("anna", pictures[:4]), ("berta", pictures[4:])):
        mipp_command("owner", "create", name)
        mipp_command("owner", "add", name, *some)
        mipp_command("owner", "grant", name, "u")
    hit = json.loads(mipp_command("search", "u", pictures[0], "-k", 1, "--json")[1])["hits"][0]
    for server in (1, 2):
        next((tmp_path / f"d/servers/{server}/images").glob(f"*/{hit['id'].split(':')[0]}.*")).unlink()
    fetched, sheet = tmp_path / "fetched", tmp_path / "sheet.png"
    code, out, err = mipp_command(
        "search", "u", pictures[0], "-k", 8, "--fetch", fetched, "--sheet", sheet, "--openly", "--json"
    )  # fmt: skip
    hits = json.loads(out)["hits"]
    assert code == 1 and len(err.splitlines()) == 4 and str(tmp_path) not in err + out.replace(str(fetched), "")
    assert all(("file" in h) == (h["owner"] == "berta") and ("error" in h) == (h["owner"] == "anna") for h in hits)
    assert len(list(fetched.iterdir())) == 4 and sheet.read_bytes()[:4] == b"\x89PNG"
