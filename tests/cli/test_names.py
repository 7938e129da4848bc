"""Names and kinds of files: bytes that are not UTF-8, control characters, links, pipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import picture

RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]
HARD = [
    b"\xff\xfe.png",
    b"a\nb.png",
    b"\x1b[31mred.png",
    b"[red]x[bold].png",
    b"-x.png",
    b" .png",
    "ñ\u202e.png".encode(),
]


@pytest.fixture
def index(mipp_command, tmp_path):
    mipp_command("init", "--descriptor", "cld")
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    mipp_command("owner", "grant", "o", "u")
    return tmp_path / "d"


def hard_folder(path: Path) -> Path:
    folder = Path(os.fsdecode(os.fsencode(path) + b"/\xf0 folder"))
    folder.mkdir()
    for seed, name in enumerate(HARD):
        picture(path / "x.png", seed).rename(folder / os.fsdecode(name))
    return folder


def test_names_of_any_bytes(index, mipp_command, tmp_path):
    folder = hard_folder(tmp_path)
    broken = folder / os.fsdecode(b"broken\xfe\x1b[2J\n.png")
    broken.write_bytes(b"no image")
    code, out, err = mipp_command("owner", "add", "o", folder)
    assert code == 1 and f"{len(HARD)} added" in out and not err
    assert r"broken\xfe\x1b[2J\n.png" in out and "\x1b" not in out and len(out.splitlines()) == 2
    report = json.loads(mipp_command("owner", "add", "o", folder, "--json")[1])
    assert report["skipped"] == len(HARD) and report["errors"][0]["file"] == str(broken)
    query = folder / os.fsdecode(HARD[0])
    found = Path(os.fsdecode(os.fsencode(tmp_path) + b"/found\xf1"))
    sheet = found.with_suffix(".png")
    code, out, err = mipp_command("search", "u", query, "-k", 7, "--fetch", found, "--sheet", sheet, "--json")
    assert not err, err
    assert code == 0
    hits = json.loads(out)["hits"]
    assert code == 0 and len(hits) == len(HARD) and all(Path(h["file"]).name.isprintable() for h in hits)
    assert sheet.is_file()


@pytest.mark.parametrize("more", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_a_terminal_that_knows_ascii_alone(index, tmp_path, more):
    folder = hard_folder(tmp_path)
    (folder / "ñ\ud7a3.png").write_bytes(b"no image")
    done = subprocess.run(
        [*RUN, "owner", "add", "o", folder], capture_output=True, env={**os.environ, **more}, check=False
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr and b"%d added" % len(HARD) in done.stdout


def test_an_index_in_a_folder_of_any_name(mipp_command, monkeypatch, pictures, tmp_path):
    monkeypatch.setenv("MIPP_DEPLOYMENT", os.fsdecode(os.fsencode(tmp_path) + b"/in\xffdex"))
    for args in (
        ["init", "--descriptor", "cld"],
        ["owner", "create", "o"],
        ["owner", "add", "o", *pictures],
        ["status"],
    ):
        code, out, err = mipp_command(*args)
        assert (code, err) == (0, ""), args
        assert out.isascii()


def test_evaluation_and_demo_of_names_of_any_bytes(mipp_command, tmp_path):
    folder = hard_folder(tmp_path)
    lines = [b"path,label"] + [
        b'"%s",%d' % (os.fsencode(p.name), i % 2) for i, p in enumerate(sorted(folder.iterdir()))
    ]
    labels = folder / "labels.csv"
    labels.write_bytes(b"\n".join(lines) + b"\n")
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    args = "--descriptor", "cld", "--json"
    code, out, _ = mipp_command("evaluate", "--labels", labels, "--images", folder, "--out", tmp_path / "r", *args)
    # " .png" is stripped by the label file and is no image
    assert code in (0, 1) and "Traceback" not in out
    code, out, _ = mipp_command("demo", "--images", folder, "--owners", 2, "--k", 2, "--out", tmp_path / "o", *args)
    assert code == 0 and json.loads(out)["images"] == len(HARD)


def links(tmp_path, pictures):
    """A folder of links: to files and to a folder outside, to a loop, to nothing; and other special files."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for p in pictures[:4]:
        (tree / p.name).symlink_to(p)
    (tmp_path / "far").mkdir()
    picture(tmp_path / "far" / "far.png", 50)
    (tree / "sub").symlink_to(tmp_path / "far")
    (tree / "loop").symlink_to(tree)
    (tree / "self.png").symlink_to(tree / "self.png")
    (tree / "nothing.png").symlink_to(tmp_path / "nothing")
    (tree / "folder.png").mkdir()
    picture(tree / "folder.png" / "inner.png", 51)
    (tree / "inner.png").symlink_to("folder.png/inner.png")
    os.mkfifo(tree / "pipe.png")
    return tree


def test_what_an_upload_leaves_out_is_named_with_the_reason(index, mipp_command, pictures, tmp_path):
    tree = links(tmp_path, pictures)
    report = json.loads(mipp_command("owner", "add", "o", tree, "--json")[1])
    reasons = {Path(e["file"]).name: e["error"] for e in report["errors"]}
    assert (report["added"], report["skipped"]) == (1, 1), "a file, and the link to it"
    assert set(reasons) == {"p0.png", "p1.png", "p2.png", "p3.png", "sub", "self.png", "nothing.png", "pipe.png"}
    assert all("link out of" in reasons[n] for n in ("p0.png", "sub")) and "pipe" in reasons["pipe.png"]
    assert all("nowhere" in reasons[n] for n in ("self.png", "nothing.png"))
    report = json.loads(mipp_command("owner", "add", "o", tree, "--follow-links", "--json")[1])
    assert report["added"] == 5 and {Path(e["file"]).name for e in report["errors"]} == {
        "self.png", "nothing.png", "pipe.png",
    }  # fmt: skip
    for bad, text in (("pipe.png", "a pipe"), ("nothing.png", "")):
        code, _, err = mipp_command("owner", "add", "o", tree / bad)
        assert code in (1, 2) and text in err
        assert mipp_command("search", "u", tree / bad)[0] == 2


def test_evaluation_follows_links(mipp_command, pictures, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    other = tmp_path / "far"
    other.mkdir()
    (tree / "sub" / "folder").symlink_to(other)
    lines = ["path,label"]
    for i, p in enumerate(pictures):
        if i % 2:
            (tree / p.name).symlink_to(p)
            lines.append(f"tree/{p.name},{i % 3}")
        else:
            p.rename(other / p.name)
            lines.append(f"tree/sub/folder/{p.name},{i % 3}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    args = "--labels", labels, "--descriptor", "cld", "--json"
    for folder in (tree, tmp_path / "alias"):
        if not folder.exists():
            folder.symlink_to(tree)
        code, out, err = mipp_command("evaluate", "--images", folder, *args)
        assert (code, err, json.loads(out)["images"]) == (0, "", 8)
    code, out, err = mipp_command("evaluate", "--images", tree / "sub", *args)
    assert json.loads(out)["images"] == 4 and "left out 4 of the 8 images" in err and "p1.png" in err
    code, _, err = mipp_command("evaluate", "--images", tmp_path / "pictures", *args)
    assert code == 1 and "no image of" in err and "tree/sub/folder/p0.png" in err


def test_files_that_vanish_are_reported(index, mipp_command, pictures, monkeypatch):
    from mipp.io import walk

    found = walk.walk_images

    def vanish(*args, **options):
        out = found(*args, **options)
        pictures[0].unlink()
        return out

    monkeypatch.setattr(walk, "walk_images", vanish)
    report = json.loads(mipp_command("owner", "add", "o", pictures[0].parent, "--json")[1])
    assert report["added"] == 7 and report["errors"] == [{"file": str(pictures[0]), "error": "no such file"}]


def test_what_a_person_typed_wrongly_is_printed_with_escapes(index, mipp_command):
    code, _, err = mipp_command("owner", "add", "o", "\x1b[31mno.png")
    assert code == 2 and "\x1b" not in err and "x1b" in err
    code, _, err = mipp_command("owner", "create", "\x1b]0;x\x07")
    assert code == 1 and "\x1b" not in err and len(err.splitlines()) == 1


def test_names_that_begin_with_a_dash(index, mipp_command, pictures, monkeypatch):
    monkeypatch.chdir(pictures[0].parent)
    pictures[0].rename("-k.png")
    code, out, _ = mipp_command("owner", "add", "o", "--", "-k.png")
    assert code == 0 and "1 added" in out
    assert mipp_command("search", "u", "-k", 1, "--", "-k.png")[0] == 0
