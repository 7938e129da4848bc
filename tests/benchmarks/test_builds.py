"""Builds of revisions: kept by content, of what git would commit, objects taken over where sources are the same."""

import os
import subprocess
import sys

import pytest

from benchmarks.tracking import builds


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def installs(monkeypatch):
    """Sources that were installed, by a copy instead of pip."""
    made = []

    def install(source, target):
        made.append((source / "tiny.py").read_text())
        target.mkdir()
        (target / "tiny.py").write_text(made[-1])

    monkeypatch.setattr(builds, "install", install)
    return made


def test_revisions_are_built_once(project, cache, installs):
    said = []
    one = builds.build(project.folder, "one", cache, say=said.append)
    again = builds.build(project.folder, "one", cache, say=said.append)
    two = builds.build(project.folder, "two", cache, say=said.append)
    assert one.key == again.key != two.key
    assert len(installs) == 2 and "already built" in said[1]
    assert (one.path / "tiny.py").read_text() != (two.path / "tiny.py").read_text()
    assert not [p for p in cache.iterdir() if p.name.startswith("new-")]


def test_a_commit_that_changes_no_code_shares_the_build(project, cache, installs):
    two, docs = (builds.build(project.folder, name, cache) for name in ("two", "docs"))
    assert two.key == docs.key and two.commit != docs.commit and len(installs) == 1


def test_the_cache_keeps_what_was_used_last(project, cache, installs, monkeypatch):
    monkeypatch.setattr(builds, "KEPT", 2)
    one, two = (builds.build(project.folder, name, cache) for name in ("one", "two"))
    for age, made in ((2000, one), (1000, two)):
        os.utime(made.path.parent, (age, age))
    builds.build(project.folder, "two", cache)  # used again
    project.write(7)
    new = builds.build(project.folder, builds.WORKING_TREE, cache)
    assert {p.name for p in cache.iterdir()} == {two.key, new.key}


def test_the_working_tree_is_what_git_would_commit(project, cache, installs):
    clean = builds.build(project.folder, builds.WORKING_TREE, cache)
    assert clean.key == builds.build(project.folder, "docs", cache).key and not clean.commit.endswith("+")
    project.write(7)
    (project.folder / "new.py").write_text("")
    (project.folder / ".gitignore").write_text("ignored.py\n")
    (project.folder / "ignored.py").write_text("")
    index = (project.folder / ".git" / "index").read_bytes()
    dirty = builds.build(project.folder, builds.WORKING_TREE, cache)
    assert dirty.commit.endswith("+") and "range(7)" in installs[-1]
    source = dirty.path.parent / "source"
    assert (source / "new.py").exists() and not (source / "ignored.py").exists()
    assert (project.folder / ".git" / "index").read_bytes() == index


def test_objects_of_another_toolchain_are_left(project, cache, installs, monkeypatch):
    taken = []
    monkeypatch.setattr(builds, "take_over", lambda old, new: taken.append(old.parent.name))
    one = builds.build(project.folder, "one", cache)
    builds.build(project.folder, "two", cache)
    assert taken == [one.key]
    monkeypatch.setenv("CFLAGS", "-O0")
    again = builds.build(project.folder, "one", cache)
    assert again.key != one.key and taken == [one.key]
    monkeypatch.setenv("CFLAGS", "-O1")
    builds.build(project.folder, "one", cache, objects=project.folder)
    assert taken == [one.key, project.folder.parent.name]


def test_an_edit_makes_another_build(project, cache, installs):
    plain = builds.build(project.folder, "one", cache)
    edited = builds.build(
        project.folder, "one", cache, lambda source: (source / "tiny.py").write_text("def work(): pass\n")
    )  # fmt: skip
    assert edited.key != plain.key and installs[-1] == "def work(): pass\n"


@pytest.mark.parametrize("revision", ["nowhere", "--all", "one~5", "HEAD:tiny.py"])
def test_unknown_revisions(project, cache, revision):
    with pytest.raises(builds.BuildError):
        builds.build(project.folder, revision, cache)


def test_no_repository(tmp_path, cache):
    with pytest.raises(builds.BuildError, match="git"):
        builds.build(tmp_path, "HEAD", cache)


def test_a_folder_is_taken_as_it_is(project, cache):
    made = builds.build(project.folder, str(project.installed(3)), cache)
    assert made.path == project.installed(3).resolve() and not cache.exists()


def test_pip_installs_the_revision(project, cache):
    made = builds.build(project.folder, "one", cache)
    code = f"import sys; sys.path.insert(0, {str(made.path)!r}); import tiny; print(tiny.work())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(i * i for i in range(1_000))


def test_a_build_that_fails_leaves_nothing(project, cache):
    def broken(source):
        (source / "pyproject.toml").write_text("[build-system\n")

    with pytest.raises(builds.BuildError, match="pip could not build"):
        builds.build(project.folder, "one", cache, broken)
    assert list(cache.iterdir()) == []


def test_objects_of_equal_sources_are_taken_over(tmp_path):
    """An object stays newer than its source only where the source is the same."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, other in ((old, "int b = 1;"), (new, "int b = 2;")):
        folder.mkdir()
        (folder / "a.cpp").write_text("int a;")
        (folder / "b.cpp").write_text(other)
        os.utime(folder / "a.cpp", (1000, 1000))
        os.utime(folder / "b.cpp", (1000, 1000))
    (new / "c.cpp").write_text("int c;")
    objects = old / "build" / "temp.here"
    objects.mkdir(parents=True)
    for name in ("a.o", "b.o"):
        (objects / name).write_text("")
        os.utime(objects / name, (2000, 2000))
    (old / "build" / "temp.here-sanitize").mkdir()
    builds.take_over(old, new)
    made = new / "build" / "temp.here"
    times = {p.name: p.stat().st_mtime for p in [*new.glob("*.cpp"), *made.iterdir()]}
    assert times["a.cpp"] < times["a.o"] == times["b.o"] == 2000 < min(times["b.cpp"], times["c.cpp"])
    assert not (new / "build" / "temp.here-sanitize").exists()
