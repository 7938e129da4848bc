"""What commands write: checked before the work, told apart, readable by its person alone."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipp.client.user import User
from mipp.errors import ParameterError
from mipp.io.sheet import contact_sheet, distinct_names


@pytest.fixture
def search(mipp_command, pictures):
    mipp_command("init", "--descriptor", "cld")
    mipp_command("owner", "create", "anna")
    mipp_command("user", "create", "ulla")
    mipp_command("owner", "grant", "anna", "ulla")
    mipp_command("owner", "add", "anna", *pictures)
    return lambda *args: mipp_command("search", "ulla", pictures[0], "-k", 3, *args)


def test_outputs_that_cannot_be_written_are_refused_before_the_search(search, tmp_path, monkeypatch):
    def searched(*args, **options):
        raise AssertionError("the search began")

    for name in ("search", "match", "fetch"):
        monkeypatch.setattr(User, name, searched)
    used = tmp_path / "used"
    used.mkdir()
    (used / "001-old.png").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for args, text in [
        (["--sheet", tmp_path / "none" / "s.png"], "no folder"),
        (["--sheet", tmp_path / "s.xyz"], "suffix"),
        (["--sheet", tmp_path / "s"], "suffix"),
        (["--fetch", used], "not empty"),
        (["--fetch", used / "001-old.png" / "x"], "not a folder"),
        (["--fetch", tmp_path / "dangling" / "x"], "leads nowhere"),
    ]:
        code, _, err = search(*args)
        assert code == 1 and text in err, args
    assert [p.name for p in used.iterdir()] == ["001-old.png"]
    assert search("--sheet", used)[0] == 2


def test_what_is_fetched_is_for_this_person_alone(search, tmp_path):
    found, sheet = tmp_path / "a" / "found", tmp_path / "sheet.png"
    assert search("--fetch", found, "--sheet", sheet)[0] == 0
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (*found.iterdir(), sheet)} == {0o600}
    assert len(list(found.iterdir())) == 3
    assert search("--fetch", found)[0] == 1, "results of two searches do not mix"


@pytest.mark.parametrize(("suffix", "form"), [(".png", "PNG"), (".JPG", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")])
def test_the_suffix_gives_the_sheets_format(search, tmp_path, suffix, form):
    sheet = tmp_path / f"sheet{suffix}"
    assert search("--sheet", sheet)[0] == 0
    with Image.open(sheet) as image:
        assert image.format == form


def test_a_sheet_needs_a_query_image(search, mipp_command, tmp_path):
    np.save(tmp_path / "v.npy", np.zeros(3))
    code, _, err = mipp_command("search", "ulla", "--vector", tmp_path / "v.npy", "--sheet", tmp_path / "s.png")
    assert code == 1 and "query image" in err


def cells(count, name="anna"):
    return [(np.zeros((20, 20, 3), np.uint8), [f"{i}", name, "l2 3.5", f"score {i}"], None) for i in range(count)]


def size(path, rows):
    contact_sheet(rows, path)
    with Image.open(path) as image:
        return image.size


def test_hits_go_on_in_the_next_line(tmp_path):
    query = np.zeros((20, 20, 3), np.uint8)
    ten, sixty = (size(tmp_path / "s.png", [(query, cells(k))]) for k in (10, 60))
    assert sixty[0] == ten[0] and sixty[1] > 4 * ten[1]
    many = size(tmp_path / "s.png", [(query, cells(900))])
    assert max(many) < 12000, "near a square"
    assert size(tmp_path / "s.png", [(query, cells(12)), (query, []), (query, cells(1))])[0] == ten[0]
    with pytest.raises(ParameterError, match="too large"):
        contact_sheet([(query, cells(1))] * 200, tmp_path / "s.webp")
    assert not (tmp_path / "s.webp").exists()


def test_long_names_are_told_apart(tmp_path):
    query = np.zeros((20, 20, 3), np.uint8)
    drawn = set()
    for number, name in enumerate(("a" * 60 + "1", "a" * 60 + "2", "a" * 61)):
        contact_sheet([(query, cells(1, name))], tmp_path / f"{number}.png")
        drawn.add((tmp_path / f"{number}.png").read_bytes())
    assert len(drawn) == 3
    names = distinct_names({b"\1" * 16: "山", b"\2" * 16: "川", b"\3" * 16: "anna"})
    assert len(set(names.values())) == 3 and names[b"\3" * 16] == "anna"


def test_other_outputs_are_checked_first(mipp_command, pictures, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(pictures)))
    for args in (
        ["evaluate", "--labels", labels, "--out", file / "report"],
        ["demo", "--out", file / "out"],
    ):
        code, _, err = mipp_command(*args)
        assert code == 1 and "not a folder" in err and len(err.splitlines()) == 1
    code, out, _ = mipp_command(
        "evaluate", "--labels", labels, "--descriptor", "cld", "--out", tmp_path / "r", "--json"
    )
    assert code == 0 and all(Path(f).is_file() for f in json.loads(out)["files"])


def test_a_sheet_never_overwrites_its_query_and_follows_links(search, pictures, tmp_path):
    before = Path(pictures[0]).read_bytes()
    code, _, err = search("--sheet", pictures[0])
    assert code == 1 and "overwrite the query" in err and Path(pictures[0]).read_bytes() == before
    (tmp_path / "link.png").symlink_to(tmp_path / "target.png")
    assert search("--sheet", tmp_path / "link.png")[0] == 0
    assert (tmp_path / "link.png").is_symlink() and Image.open(tmp_path / "target.png").format == "PNG"


def test_a_report_waits_for_no_pipe(mipp_command, pictures, tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    os.mkfifo(report / "evaluation.json")
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{p},{i % 2}\n" for i, p in enumerate(pictures)))
    code, _, err = mipp_command("evaluate", "--labels", labels, "--descriptor", "cld", "--out", report)
    assert code == 1 and "not a regular file" in err


def test_a_grant_says_what_it_allows(mipp_command):
    mipp_command("init", "--descriptor", "cld")
    mipp_command("owner", "create", "anna")
    mipp_command("user", "create", "ulla")
    _, out, _ = mipp_command("owner", "grant", "anna", "ulla", "--quota", 5, "--max-k", 3, "--no-scores")
    assert "ranking: server, quota 5, largest k 3, no scores" in out
