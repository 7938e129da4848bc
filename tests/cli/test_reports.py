"""`mipp evaluate --out FILE.html` and `--compare`."""

import json
import os

import pytest

from mipp.evaluation import pages
from mipp.io import files
from tests.pages import Page


@pytest.fixture
def labels(pictures, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label\n" + "".join(f"{p},{i % 2}<b>\n" for i, p in enumerate(pictures)))
    return path


@pytest.fixture
def evaluate(mipp_command, labels):
    def call(*args):
        return mipp_command("evaluate", "--labels", labels, *args)

    return call


def test_a_page_holds_what_was_printed(evaluate, labels, tmp_path):
    out = tmp_path / "report.html"
    code, text, err = evaluate("--descriptor", "cld", "--out", out, "--json")
    result, page = json.loads(text), Page(out.read_text())
    assert (code, err, result["files"]) == (0, "", [str(out)]) and out.stat().st_mode & 0o777 == 0o600
    kept = {name: value for name, value in page.data.items() if name not in ("curves", "created", "command")}
    assert kept == {name: value for name, value in result.items() if name != "files"}
    assert page.data["command"].startswith("mipp evaluate --labels ") and page.data["command"] in page.text
    assert page.data["dataset"]["classes"] == 2 and page.images and page.data["versions"]["mipp"]
    code, text, _ = evaluate("--descriptor", "cld")
    line = next(line for line in text.splitlines() if line.startswith("95 % from"))
    assert code == 0 and f"{result['intervals']['encrypted']['map'][0]:.4f}" == line.split()[3]
    assert not [f for f in os.listdir(tmp_path) if f.startswith(".")]


def test_a_page_of_vectors(mipp_command, tmp_path):
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(60, 5))
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "queries.npy", rows[:9])
    out, args = tmp_path / "v.html", ("--vectors", tmp_path / "rows.npy", "--query-vectors", tmp_path / "queries.npy")
    code, _, err = mipp_command("evaluate", *args, "--out", out)
    page = Page(out.read_text())
    assert (code, err) == (0, "") and not page.images and page.data["dataset"].keys() == {
        "vectors_sha256", "queries_sha256", "truth_sha256",
    }  # fmt: skip


def test_two_evaluations(evaluate, mipp_command, tmp_path):
    a, b, page = tmp_path / "a.html", tmp_path / "b.json", tmp_path / "c.html"
    assert evaluate("--descriptor", "cld", "--out", a)[0] == 0
    _, text, _ = evaluate("--descriptor", "cld+ehd", "--json")
    b.write_text(text)
    code, text, err = mipp_command("evaluate", "--compare", a, b, "--out", page)
    assert (code, err) == (0, "") and "mAP, encrypted" in text and f"wrote {page}" in text
    data = Page(page.read_text()).data
    assert data["paired"] and page.stat().st_mode & 0o777 == 0o600
    code, text, _ = mipp_command("evaluate", "--compare", a, b, "--json")
    found = json.loads(text)
    assert code == 0 and found["measures"] == data["measures"]
    # also the JSON of a folder
    evaluate("--descriptor", "cld", "--out", tmp_path / "r", "--no-plots")
    assert (tmp_path / "r" / "evaluation.json").stat().st_mode & 0o777 == 0o600
    code, text, _ = mipp_command("evaluate", "--compare", a, tmp_path / "r" / "evaluation.json")
    assert code == 0 and "no difference shown" in text and "better" not in text and "worse" not in text
    assert mipp_command("evaluate", "--compare", a, tmp_path / "r")[:2] == (0, text), "a folder of --out, too"
    code, out, err = mipp_command("evaluate", "--compare", a, tmp_path)
    assert code == 1 and not out and "a folder without evaluation.json" in err
    code, text, _ = mipp_command("evaluate", "--compare", page, b)
    assert code == 1, "a comparison is no evaluation"


def test_a_report_is_not_mixed_with_other_files(evaluate, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"a cat")
    code, out, err = evaluate("--descriptor", "cld", "--out", folder, "--no-plots")
    assert code == 1 and not out and "holds cat.png, which is no file of a report" in err
    assert [path.name for path in folder.iterdir()] == ["cat.png"]
    (folder / "cat.png").unlink()
    for _ in range(2):  # the second replaces the first
        assert evaluate("--descriptor", "cld", "--out", folder, "--no-plots")[0] == 0


def test_incomparable_ones_are_shown_and_said(evaluate, mipp_command, labels, tmp_path):
    a, b = tmp_path / "a.html", tmp_path / "b.html"
    evaluate("--descriptor", "cld", "--out", a)
    labels.write_text(labels.read_text().replace("1<b>", "2"))
    evaluate("--descriptor", "cld", "--out", b)
    code, text, err = mipp_command("evaluate", "--compare", a, b)
    assert code == 1 and "not comparable: other labels" in text and "mAP, encrypted" in text and err == ""
    code, text, _ = mipp_command("evaluate", "--compare", a, b, "--json")
    assert code == 1 and json.loads(text)["comparable"] is False


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--compare", "a.html", "a.html", "--descriptor", "cld"], 2, "--compare goes with"),
        (["--compare", "a.html", "a.html", "--labels", "labels.csv"], 2, "--compare goes with"),
        (["--compare", "a.html", "a.html", "--out", "folder"], 2, "--out FILE.html"),
        (["--compare", "a.html", "a.html", "--out", "a.html"], 1, "overwrite"),
        (["--compare", "a.html", "a.html", "--out", "link.html"], 1, "overwrite"),
        (["--compare", "a.html", "a.html", "--out", "none/b.html"], 1, "no folder none"),
        (["--compare", "a.html", "labels.csv"], 1, "neither a page of mipp"),
        (["--compare", "a.html", "bad.json"], 1, "no evaluation of mipp"),
        (["--compare", "a.html", "pipe"], 2, "not a regular file"),
        (["--compare", "a.html", "none.html"], 2, "none.html"),
        (["--labels", "labels.csv", "--out", "none/b.html"], 1, "no folder none"),
        (["--labels", "labels.html", "--out", "labels.html"], 1, "would overwrite"),
        (["--labels", "labels.csv", "--out", "b.html", "--plots"], 2, "a page has its own plots"),
    ],
)
def test_wrong_use_is_said_before_anything_is_written(
    evaluate, mipp_command, tmp_path, monkeypatch, args, code, text
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    evaluate("--descriptor", "cld", "--out", "a.html", "--queries", 2)
    (tmp_path / "link.html").symlink_to("a.html")
    (tmp_path / "labels.html").write_text((tmp_path / "labels.csv").read_text())
    (tmp_path / "bad.json").write_text('{"images": 3, "\\u001b[31m": 1}')
    os.mkfifo("pipe")
    before = {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()}
    got, _, err = mipp_command("evaluate", *args)
    assert got == code and text in err and "Traceback" not in err and "\x1b" not in err
    assert {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_an_interrupted_page_leaves_the_earlier_one(evaluate, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    evaluate("--descriptor", "cld", "--out", out, "--queries", 2)
    before, listing = out.read_bytes(), sorted(os.listdir(tmp_path))

    def interrupted(*_):
        raise KeyboardInterrupt

    for where, name in ((pages, "load_image"), (files.os, "replace")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, lambda *_, **__: interrupted())
            code, _, err = evaluate("--descriptor", "ehd", "--out", out, "--queries", 2)
        assert code == 130 and "interrupted" in err
        assert out.read_bytes() == before and sorted(os.listdir(tmp_path)) == listing
    folder = tmp_path / "folder.html"
    folder.mkdir()
    code, _, _ = evaluate("--descriptor", "cld", "--out", folder, "--queries", 2, "--no-plots")
    assert code == 0 and os.listdir(folder) == ["evaluation.json"], "a folder that is there stays one"
