"""`mipp evaluate`, `mipp learn-weights` and `mipp init` with samples."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mipp import features
from mipp.demo.render import render_collection
from mipp.io.vectors import save_fvecs


@pytest.fixture
def labels(tmp_path):
    lines = ["path,label"]
    for name, label, pixels in render_collection(3, 8, (64, 64)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        lines.append(f"{name}.png,{label}")
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def vectors(tmp_path):
    rng = np.random.default_rng(0)
    rows, queries = rng.gamma(1.0, 9.0, (400, 10)), rng.gamma(1.0, 9.0, (15, 10))
    near = np.argsort(((queries[:, None] - rows[None]) ** 2).sum(2), axis=1)[:, :20]
    save_fvecs(tmp_path / "rows.fvecs", rows)
    save_fvecs(tmp_path / "queries.fvecs", queries)
    np.save(tmp_path / "truth.npy", near)
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file.attrs["distance"] = "euclidean"
        for name, data in (("train", rows), ("test", queries)):
            file[name] = data.astype(np.float32)
        file["neighbors"] = near.astype(np.int32)
    return tmp_path


def test_images_and_files(mipp_command, labels, tmp_path):
    code, out, _ = mipp_command("evaluate", "--labels", labels, "--out", tmp_path / "r", "--json")
    result = json.loads(out)
    assert code == 0 and result["descriptor"] == features.DEFAULT and result["identical"] and "curves" not in result
    assert [p.rsplit("/")[-1] for p in result["files"]] == ["evaluation.json", "precision_recall.png", "rank_hits.png"]
    saved = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert saved["encrypted"] == result["encrypted"] and "curves" in saved
    code, out, _ = mipp_command("evaluate", "--labels", labels, "--descriptor", "2*csd32+cld", "--ring", 16)
    assert code == 0 and "2*csd32+cld" in out and "ANMRR" in out and "identical: yes" in out and "16 bits" in out


@pytest.mark.parametrize("ring", [16, 32])
def test_vectors(mipp_command, vectors, ring):
    options = ("--ring", ring, "--json")
    code, out, _ = mipp_command("evaluate", "--vectors", vectors / "all.hdf5", *options)
    whole = json.loads(out)
    assert code == 0 and whole["identical"] and whole["float"]["recall10"] == 1.0 and whole["metric"] == "l2"
    assert whole["encrypted"]["recall10"] > (0.9 if ring == 16 else 0.98)
    code, out, _ = mipp_command(
        "evaluate", "--vectors", vectors / "rows.fvecs", "--query-vectors", vectors / "queries.fvecs",
        "--truth", vectors / "truth.npy", *options,
    )  # fmt: skip
    assert code == 0 and json.loads(out) == whole
    code, out, _ = mipp_command("evaluate", "--vectors", vectors / "all.hdf5", "--project", 6, "--queries", 5, *options)
    projected = json.loads(out)
    assert code == 0 and projected["dim"] == 7 and projected["queries"] == 5 and projected["identical"]


def test_vectors_with_labels(mipp_command, vectors):
    path = vectors / "row_labels.csv"
    path.write_text("label\n" + "".join(f"{i % 7}\n" for i in range(400)))
    code, out, _ = mipp_command("evaluate", "--vectors", vectors / "rows.fvecs", "--labels", path, "--queries", 9)
    assert code == 0 and "mAP" in out and "9 queries" in out
    path.write_text("label\n1\n\n2\n")
    code, _, err = mipp_command("evaluate", "--vectors", vectors / "rows.fvecs", "--labels", path)
    assert code == 1 and "do not fit" in err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "--labels"),
        (["--vectors", "rows.fvecs"], "--query-vectors"),
        (["--vectors", "rows.fvecs", "--query-vectors", "queries.fvecs", "--window", "0", "9"], "--window"),
        (["--labels", "truth.npy", "--metric", "l2"], "--metric"),
        (["--vectors", "all.hdf5", "--queries", "99"], "15 queries"),
        (["--vectors", "truth.npy", "--query-vectors", "queries.fvecs"], "10"),
    ],
)
def test_wrong_use(mipp_command, vectors, monkeypatch, args, text):
    monkeypatch.chdir(vectors)
    code, _, err = mipp_command("evaluate", *args)
    assert code in (1, 2) and text in err and "Traceback" not in err


def test_without_matplotlib_the_figures_are_written_and_the_plots_are_said_to_be_missing(
    mipp_command, labels, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out, args = tmp_path / "r", ("evaluate", "--labels", labels, "--descriptor", "cld", "--out", tmp_path / "r")
    code, _, err = mipp_command(*args, "--plots")
    assert code == 1 and "mipp-retrieval[plot]" in err and not out.exists(), "asked for, so said before the work"
    code, _, err = mipp_command(*args)
    assert code == 0 and [p.name for p in out.iterdir()] == ["evaluation.json"]
    assert len(err.splitlines()) == 1 and "mipp-retrieval[plot]" in err
    code, _, err = mipp_command(*args, "--no-plots")
    assert (code, err) == (0, "")


def test_learn_weights(mipp_command, labels):
    code, out, _ = mipp_command("learn-weights", "--labels", labels, "--descriptor", "cld+2*lbp", "--json")
    result = json.loads(out)
    assert code == 0 and features.get(result["descriptor"]).dim == 71 and 0 < result["map"] <= 1
    code, _, err = mipp_command("learn-weights", "--labels", labels, "--descriptor", "cld")
    assert code == 1 and "two parts" in err
    code, out, _ = mipp_command("learn-weights", "--images", labels.parent, "--descriptor", "cld+lbp", "--json")
    result = json.loads(out)
    assert code == 0 and result["images"] == 24 and features.get(result["descriptor"]).dim == 71
    for wrong in ((), ("--labels", labels, "--images", labels.parent)):
        code, _, err = mipp_command("learn-weights", *wrong)
        assert code == 2 and "--labels" in err


def test_init_with_samples(mipp_command, labels, vectors, tmp_path):
    """Fitted and tuned indexes find what they hold."""
    rows = vectors / "rows.fvecs"
    for i, extra in enumerate((["--tune"], ["--project", "5", "--ring", "16"], [])):
        place = ["--deployment", tmp_path / f"v{i}"]
        code, out, _ = mipp_command("init", "--vectors", 10, "--metric", "l2", "--fit", rows, *extra, *place, "--json")
        made = json.loads(out)
        assert code == 0 and made["stored_dim"] == (6 if i == 1 else 11)
        mipp_command("owner", "create", "o", *place)
        mipp_command("user", "create", "u", *place)
        mipp_command("owner", "add", "o", "--vectors", rows, *place)
        mipp_command("owner", "grant", "o", "u", "--ranking", "user", *place)
        one = tmp_path / "one.npy"
        np.save(one, np.random.default_rng(0).gamma(1.0, 9.0, (400, 10))[7])
        code, out, _ = mipp_command("search", "u", "--vector", one, "--k", 1, "--ranking", "user", *place, "--json")
        assert code == 0 and json.loads(out)["hits"][0]["id"].endswith(":7")
    code, _, _ = mipp_command(
        "init", "--descriptor", "cld+lbp", "--fit", labels.parent, "--ring", 16, "--deployment", tmp_path / "i"
    )
    assert code == 0
    for wrong in (["--tune"], ["--project", "3"], ["--vectors", "4", "--window", "0", "1"], ["--window", "2", "1"]):
        code, _, err = mipp_command("init", *wrong, "--deployment", tmp_path / "x")
        assert code in (1, 2) and err


def test_window_of_a_deployment(mipp_command, tmp_path):
    """Set once for the index; owners and users read deep images by it."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "deep"
    folder.mkdir()
    for i in range(4):
        deep = (1000 + rng.integers(0, 256, (80, 80))).astype(np.uint16)
        Image.fromarray(deep).save(folder / f"{i}.png")
    mipp_command("init", "--descriptor", "ehd", "--window", 1000, 1255)
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    mipp_command("owner", "add", "o", folder)
    mipp_command("owner", "grant", "o", "u", "--ranking", "user")
    code, out, _ = mipp_command(
        "search", "u", folder / "2.png", "--k", 4, "--ranking", "user", "--fetch", tmp_path / "f", "--json",
        "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    hits = json.loads(out)["hits"]
    assert code == 0 and (tmp_path / "sheet.png").exists()
    # without the window all four are the same flat gray; with it, the nearest is the query alone
    assert hits[0]["score"] > hits[1]["score"]
    assert Path(hits[0]["file"]).read_bytes() == (folder / "2.png").read_bytes()


def test_features_of_another_version_are_refused(mipp_command, labels, tmp_path):
    """An index made before a descriptor changed: said at once, nothing is added."""
    images = sorted(labels.parent.glob("*.png"))
    mipp_command("init", "--descriptor", "EHD + cld")
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    code, _, _ = mipp_command("owner", "add", "o", images[0])
    assert code == 0
    config = next((tmp_path / "d").glob("*.json"))
    data = json.loads(config.read_text())
    assert (data["descriptor"], data["descriptor_version"]) == ("cld+ehd", 4)
    del data["descriptor_version"]
    config.write_text(json.dumps(data))
    for command in (("owner", "add", "o", images[1]), ("search", "u", images[0])):
        code, _, err = mipp_command(*command)
        assert code == 1 and "version 1" in err and "make a new index" in err
    code, out, _ = mipp_command("status", "--json")
    assert code == 0 and json.loads(out)["images"] == 1


def test_files_of_billion_scale_benchmarks(mipp_command, tmp_path):
    rng = np.random.default_rng(3)
    rows, asked = rng.integers(0, 256, (300, 8)).astype(np.uint8), rng.integers(0, 256, (5, 8)).astype(np.uint8)
    near = ((rows[None].astype(int) - asked[:, None]) ** 2).sum(2).argsort(axis=1, kind="stable")[:, :10]
    for name, data in (("base.u8bin", rows), ("query.u8bin", asked), ("gt.ibin", near.astype("<u4"))):
        (tmp_path / name).write_bytes(np.array(data.shape, "<u4").tobytes() + data.tobytes())
    code, out, err = mipp_command(
        "evaluate", "--vectors", tmp_path / "base.u8bin", "--query-vectors", tmp_path / "query.u8bin", "--truth",
        tmp_path / "gt.ibin", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["encrypted"]["recall10"] == 1
