"""Builds of git revisions, each in a folder of its own, kept by content: equal sources are built once.

A revision's files are exported (``git archive``; for the working tree, what git would commit of it now), and installed
by ``pip install --target``. Objects of an earlier build are taken over where sources are the same, so a small change
compiles little.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

#: the repository that these benchmarks belong to
ROOT = Path(__file__).resolve().parents[2]
#: not part of what is built
UNBUILT = (".ci/", ".github/", "benchmarks/", "tests/")
WORKING_TREE = "working tree"
#: builds in the cache, those used last
KEPT = 20
# what the build needs, where it is installed already; else pip makes an environment for it
BUILD_NEEDS = {"setuptools": 77, "pybind11": 2, "cython": 3, "gmpy2": 2}


class BuildError(RuntimeError):
    """A revision is unknown, or could not be built."""


@dataclass(frozen=True)
class Build:
    """An installed build: ``path`` goes to the front of ``sys.path``."""

    name: str
    commit: str
    key: str
    path: Path


def git(repository: Path, *arguments: str, **environment: str) -> bytes:
    """Output of git; BuildError with its message."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, env={**os.environ, **environment}
    )
    if done.returncode:
        raise BuildError(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def tree_of(repository: Path, revision: str) -> tuple[str, str]:
    """Hash of a revision's tree and of its commit (``working tree``: as git would commit it now, all but ignored)."""
    if revision != WORKING_TREE:
        commit = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        name = commit.decode().strip()
        return git(repository, "rev-parse", f"{name}^{{tree}}").decode().strip(), name
    commit = git(repository, "rev-parse", "HEAD").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder, "index"))
        git(repository, "read-tree", "HEAD", GIT_INDEX_FILE=index)
        git(repository, "add", "--all", GIT_INDEX_FILE=index)
        tree = git(repository, "write-tree", GIT_INDEX_FILE=index).decode().strip()
    clean = tree == git(repository, "rev-parse", "HEAD^{tree}").decode().strip()
    return tree, commit if clean else f"{commit}+"


def export(repository: Path, tree: str, target: Path) -> None:
    """The files of a tree, those that are built."""
    archive = git(repository, "archive", "--format=tar", tree)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [m for m in tar.getmembers() if not f"{m.name}/".startswith(UNBUILT)]
        if sys.version_info >= (3, 12):
            tar.extractall(target, members, filter="data")
        else:
            tar.extractall(target, members)


def key_of(source: Path) -> str:
    """Hash of all files, of interpreter, compiler and flags."""
    digest = hashlib.sha256(toolchain().encode())
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        if name.endswith(".md") or name == ".gitignore":
            continue
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def toolchain() -> str:
    """Facts that a build depends on: interpreter, compiler, flags of the environment."""
    command = os.environ.get("CXX", "c++")
    try:
        compiler = subprocess.run([command, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    except OSError:
        compiler = "none"
    flags = [f"{n}={os.environ.get(n, '')}" for n in ("CC", "CXX", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")]
    return "\n".join([sys.version, str(sysconfig.get_config_var("CC")), compiler, *flags])


def build(
    repository: Path,
    revision: str,
    cache: Path,
    edit: Callable[[Path], None] | None = None,
    *,
    objects: Path | None = None,
    say: Callable[[str], None] = print,
) -> Build:
    """The build of a revision, or of an installed folder as it is; made if the cache has none.

    Parameters
    ----------
    revision : what git knows, ``working tree``, or a folder that ``pip install --target`` filled
    cache : folder of builds
    edit : changes the exported files before they are built
    objects : a checkout that the same compiler and flags have built: its objects are used if the cache has none

    Raises
    ------
    BuildError
        No such revision; or it does not build (pip's output is in the message).
    """
    folder = Path(revision)
    if os.sep in revision and folder.is_dir():
        return Build(revision, revision, f"folder {folder.resolve()}", folder.resolve())
    tree, commit = tree_of(repository, revision)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as temporary:
        source = Path(temporary, "source")
        export(repository, tree, source)
        if edit:
            edit(source)
        key = key_of(source)
        kept = cache / key
        if kept.is_dir():
            say(f"{revision} ({short(commit)}): already built")
            os.utime(kept)
            return Build(revision, commit, key, kept / "installed")
        say(f"{revision} ({short(commit)}): building")
        earlier = [p / "source" for p in _kept(cache) if (p / "toolchain").read_text() == toolchain()]
        if old := (earlier or [objects])[-1]:
            take_over(old, source)
        install(source, Path(temporary, "installed"))
        Path(temporary, "toolchain").write_text(toolchain())
        made = Path(temporary, key)
        made.mkdir()
        for part in ("source", "installed", "toolchain"):
            os.replace(Path(temporary, part), made / part)
        try:
            os.replace(made, kept)
        except OSError:  # another process made the same
            if not kept.is_dir():
                raise
    for old in _kept(cache)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return Build(revision, commit, key, kept / "installed")


def short(commit: str) -> str:
    """Twelve digits, and ``+`` where the working tree differs from its commit."""
    return commit[:12] + "+" * commit.endswith("+")


def _kept(cache: Path) -> list[Path]:
    """Builds in the cache, that used last at the end."""
    found = [p.parent for p in cache.glob("*/toolchain") if not p.parent.name.startswith("new-")]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def take_over(old: Path, new: Path) -> None:
    """Objects of another build by the same toolchain, and the times of equal files: only what differs is compiled."""
    found = [p for p in (old / "build").glob("temp.*") if p.is_dir() and not p.name.endswith("-sanitize")]
    if not found:
        return
    for folder in [*found, *(p for p in [old / "build" / "cython"] if p.is_dir())]:
        shutil.copytree(folder, new / "build" / folder.name, dirs_exist_ok=True)
    for path in new.rglob("*"):
        same = old / path.relative_to(new)
        if path.is_file() and "build" not in path.relative_to(new).parts[:1] and same.is_file():
            if same.read_bytes() == path.read_bytes():
                shutil.copystat(same, path)
            else:
                path.touch()
        elif path.is_file() and "build" not in path.relative_to(new).parts[:1]:
            path.touch()


def _built_here() -> bool:
    """Whether this environment has what a build needs."""
    for name, least in BUILD_NEEDS.items():
        try:
            if int(metadata.version(name).split(".")[0]) < least:
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def install(source: Path, target: Path) -> None:
    """``pip install --target`` without dependencies: both builds run on those of this environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--no-build-isolation"] * _built_here() + ["--target", str(target), str(source)]
    environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "MIPP_SANITIZE")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise BuildError(f"pip could not build {source}:\n{done.stdout}{done.stderr}")


def default_cache() -> Path:
    """``MIPP_BENCH_BUILDS``, else a folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MIPP_BENCH_BUILDS") or Path(base, "mipp-benchmarks"))
