"""The whole comparison on a project of one Python file, with real processes; figures are not looked at."""

import json
import shutil

import pytest

from benchmarks import compare, history
from benchmarks.tracking import builds, instructions, sampling, stats, storage
from tests.benchmarks.test_stats import RUN, recorded

TINY = ["--launches", "2", "--pairs", "2", "--sample-ms", "0.1", "--threshold", "10000"]


@pytest.fixture
def run(project, tmp_path):
    """Exit code of a comparison of two installed folders; its options."""

    def call(*options, base=1_000, head=1_000):
        where = ["--workloads", str(project.workloads), "--package", "tiny", "--storage", str(tmp_path / "stored")]
        return compare.main([str(project.installed(base)), str(project.installed(head)), *where, *TINY, *options])

    return call


def test_two_folders(run, project, tmp_path, capsys):
    assert run("-k", "work", "-k", "cleaned") == 0
    shown = capsys.readouterr().out
    assert "work" in shown and "machine " in shown and "broken" not in shown
    assert project.marker.read_text() == "cleaned"
    (path,) = (tmp_path / "stored").rglob("*.json")
    assert path.name.startswith("0001_compare_")
    benchmarks = json.loads(path.read_text())["benchmarks"]
    assert [b["name"] for b in benchmarks] == ["cleaned", "work"]
    info = benchmarks[1]["extra_info"]
    assert info["low"] <= info["ratio"] <= info["high"] and info["machine"]["fingerprint"]
    assert benchmarks[1]["stats"]["rounds"] == 4 and min(benchmarks[1]["stats"]["data"]) > 0


def test_a_workload_that_fails_is_said(run, capsys):
    assert run("-k", "work", "-k", "broken") == 0  # fails on the base, too
    shown = capsys.readouterr().out
    assert "broken" in shown and "KeyError" in shown and "left out: base" in shown


def test_a_head_that_cannot_do_it_is_no_success(run, project, capsys):
    (project.installed(5) / "tiny.py").write_text("def work():\n    raise OSError('lost')\n")
    made = builds.Build("x", "x", "x", project.folder.parent / "installed5")
    good = builds.Build("y", "y", "y", project.installed(6))
    results = sampling.measure([good, made], ["work"], sampling.Plan(2, 2, 2, 0.1), workloads=project.workloads,
                               package="tiny")  # fmt: skip
    assert results[0].error == "head: OSError: lost" and results[0].verdict == "error"


def test_only_the_build_is_imported(project):
    """A package that lies elsewhere is no build."""
    (project.folder.parent / "empty").mkdir()
    wrong = builds.Build("x", "x", "x", project.folder.parent / "empty")
    with pytest.raises(sampling.WorkerError, match="ended with code 1"):
        sampling.names_of([wrong], project.workloads, "json")


def test_names(project):
    made = builds.Build("x", "x", "x", project.installed(1))
    known = sampling.names_of([made], project.workloads, "tiny")
    assert known["names"] == ["work", "broken", "cleaned"] and known["counted"] == ["work", "cleaned"]


@pytest.fixture
def measured(monkeypatch):
    """Comparisons find these launches instead of measuring."""

    def plant(first, again=None):
        def measure(pair, names, plan, **_):
            made = sampling.Result(names[0], recorded(first)["ring_u32"][:RUN], plan=plan)
            if again:
                made.confirmed = recorded(again)["ring_u32"][RUN : 2 * RUN]
            return [made]

        monkeypatch.setattr(sampling, "measure", measure)

    return plant


@pytest.mark.parametrize(
    ("first", "again", "code"), [("equal", None, 0), ("slower", "slower", 1), ("slower", "equal", 0)]
)
def test_exit_code(run, measured, capsys, first, again, code):
    measured(first, again)
    assert run("-k", "work", "--threshold", "5", "--no-save") == code
    assert ("SLOWER by more than 5 %: work" in capsys.readouterr().out) == bool(code)


def test_unclear_workloads_are_measured_again_and_alarms_confirmed(project, monkeypatch):
    """How launches are asked for: counted with planted ones."""
    asked = []
    noisy = [[(1.0, 1.0)], [(1.0, 1.2)]]

    def launch(pair, names, plan, *_):
        asked.append(list(names))
        turn = len(asked)
        planted = {"same": [(1.0, 1.0)], "noisy": noisy[turn % 2], "slow": [(1.0, 1.3)], "gone": "head: KeyError"}
        return {name: planted[name] for name in names}

    monkeypatch.setattr(sampling, "launch", launch)
    plan = sampling.Plan(launches=4, most_launches=6)
    found = sampling.measure([None, None], ["same", "noisy", "slow", "gone"], plan)
    assert asked == [
        ["same", "noisy", "slow", "gone"], *[["same", "noisy", "slow"]] * 3, *[["noisy"]] * 2, *[["slow"]] * 4
    ]  # fmt: skip
    assert [r.verdict for r in found] == [stats.SAME, stats.UNCLEAR, stats.SLOWER, "error"]


@pytest.mark.parametrize(
    "arguments",
    [[], *(["HEAD", *wrong.split()] for wrong in ("--launches 1", "--pairs 0", "--threshold 0", "--confidence 100"))],
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare.main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err


def test_unknown_revision(project, tmp_path, capsys):
    assert compare.main(["nowhere", "--repository", str(project.folder), "--builds", str(tmp_path / "c")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_no_such_workload(run, capsys):
    assert run("-k", "nothing") == 2
    assert "no workload" in capsys.readouterr().err


# --- instructions --------------------------------------------------------------------------------------------------


needs_valgrind = pytest.mark.skipif(instructions.missing() is not None, reason=str(instructions.missing()))


@pytest.mark.slow
@needs_valgrind
def test_more_instructions_alarm(run, capsys, monkeypatch):
    """A fifth more loops, counted by valgrind."""
    monkeypatch.setattr(instructions, "TIERS", ("portable",))
    assert run("-k", "work", "--instructions", "--no-save", head=1_200) == 1
    assert "MORE INSTRUCTIONS by more than 3 %: work (portable)\n" in capsys.readouterr().out


@pytest.mark.parametrize(("head", "code"), [(1020, 0), (1040, 1)])
def test_instructions_of_every_tier_are_compared(run, capsys, monkeypatch, head, code):
    """The tiers that the builds' own mipp has here, portable if they have none."""
    counted = []

    def count(build, tier, names, **_):
        counted.append((build.path.name, tier))
        return dict.fromkeys(names, 1000 if build.path.name == "installed1000" else head)

    monkeypatch.setattr(instructions, "count", count)
    assert run("-k", "work", "--instructions", "--no-save", head=1_001) == code
    tiers = list(dict.fromkeys(tier for _, tier in counted))
    assert "portable" in tiers and counted == [(f"installed{loops}", t) for t in tiers for loops in (1000, 1001)]
    shown = capsys.readouterr().out
    assert all(f"work, {tier}: {head:,} instructions" in shown for tier in tiers)
    alarm = f"MORE INSTRUCTIONS by more than 3 %: {', '.join(f'work ({tier})' for tier in tiers)}\n"
    assert (alarm in shown) == bool(code)


@pytest.mark.slow
@needs_valgrind
def test_instructions_of_two_runs_agree(project):
    made = builds.Build("x", "x", "x", project.installed(1_000))
    counts = [
        instructions.count(made, "portable", ["work"], workloads=project.workloads, package="tiny") for _ in range(2)
    ]
    assert counts[0]["work"] > 10_000
    assert abs(counts[0]["work"] / counts[1]["work"] - 1) < 0.002


def test_without_valgrind_it_is_said(run, monkeypatch, capsys):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "valgrind" else which(name))
    assert run("-k", "work", "--instructions") == 2
    assert "valgrind is not installed" in capsys.readouterr().err


def test_dumps_are_parsed(tmp_path):
    (tmp_path / "out.1").write_text("desc: Trigger: Client Request: ring_u32\n\nfn=(1)\n1 2\ntotals: 12345\n")
    (tmp_path / "out.2").write_text("desc: Trigger: Program termination\n\ntotals: 7\n")
    (tmp_path / "other").write_text("desc: Trigger: Client Request: wrong\ntotals: 1\n")
    assert instructions.parse(tmp_path) == {"ring_u32": 12345}


# --- history -------------------------------------------------------------------------------------------------------


FACTS = {"cpu": "a", "cores": 2, "level": "avx2", "memory_gib": 8, "kernel": "6", "python": "3.11", "numpy": "2.4",
         "architecture": "x86_64", "blas": None}  # fmt: skip


def stored(project, folder, facts, name="equal"):
    pair = [builds.Build(n, n, n, project.folder) for n in ("base", "head")]
    results = [sampling.Result("ring", recorded(name)["ring_u32"][:RUN])]
    counts = {"ring": {"portable": (100, 110)}}
    return storage.save(folder, results, pair, counts, facts, project.folder)


def test_pytest_benchmarks_own_storage_reads_it(project, tmp_path):
    from pytest_benchmark.storage.file import FileStorage

    stored(project, tmp_path / "s", FACTS)
    second = stored(project, tmp_path / "s", FACTS)
    assert second.name.startswith("0002_")
    runs = list(FileStorage(tmp_path / "s", None).load())
    assert len(runs) == 2
    bench = runs[0][1]["benchmarks"][0]
    assert bench["name"] == "ring" and bench["stats"]["rounds"] == 8 * RUN


def test_a_changed_machine_starts_a_new_line(project, tmp_path, capsys):
    stored(project, tmp_path, FACTS)
    stored(project, tmp_path, FACTS)
    stored(project, tmp_path, FACTS | {"kernel": "7"})  # moves no kernel of ours
    stored(project, tmp_path, FACTS | {"cpu": "another"}, "slower")
    points = storage.read(tmp_path)
    assert [len(line) for line in storage.lines(points).values()] == [3, 1]
    assert history.main([str(tmp_path), "--plot", str(tmp_path / "h.png")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("first on this machine") == 2 and shown.count("since last") == 2
    assert "portable 110" in shown
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_pytest_alone_have_a_line_too(tmp_path):
    bench = {"group": None, "name": "b", "fullname": "x.py::b", "stats": {"median": 0.5}, "extra_info": {}}
    run = {"machine_info": {"machine": "x86_64", "cpu": {"brand_raw": "z"}}, "commit_info": {"id": "c"},
           "benchmarks": [bench], "datetime": "2026-01-01"}  # fmt: skip
    (tmp_path / "0001_x.json").write_text(json.dumps(run))
    (point,) = storage.read(tmp_path)
    assert point.name == "x.py::b" and point.seconds == 0.5 and len(point.fingerprint) == 8


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"machine_info": {}}'])
def test_files_that_are_no_runs(tmp_path, capsys, text):
    (tmp_path / "0001_x.json").write_text(text)
    assert history.main([str(tmp_path)]) == 2
    assert "0001_x.json" in capsys.readouterr().err


def a_run(folder, number, *, median=0.5, when="2026-01-01T00:00:00+00:00", **extra):
    bench = {"group": None, "name": "b", "fullname": "x.py::b", "stats": {"median": median}, "extra_info": extra}
    run = {"machine_info": {"machine": "x86_64"}, "commit_info": {"id": f"c{number}"}, "benchmarks": [bench],
           "datetime": when}  # fmt: skip
    path = folder / f"{number:04}_x.json"
    path.write_text(json.dumps(run))
    return path


@pytest.mark.parametrize(
    "other", [{"sizes": {"rows": 640}}, {"threads": 2}, {"tier": "avx2"}, {"device": "gpu"}, {"clock": "wall"}]
)
def test_runs_of_other_settings_are_not_compared(tmp_path, capsys, other):
    same = {"sizes": {"rows": 20}, "threads": 1, "tier": "portable"}
    a_run(tmp_path, 1, median=0.01, **same)
    a_run(tmp_path, 2, median=0.32, when="2026-01-02", **(same | other))
    a_run(tmp_path, 3, median=0.01, when="2026-01-03", **same)
    assert sorted(len(line) for line in storage.lines(storage.read(tmp_path)).values()) == [1, 2]
    assert history.main([str(tmp_path), "--plot", str(tmp_path / "h.png")]) == 0
    shown = capsys.readouterr().out
    assert "32.000" not in shown and shown.count("since last  1.000") == 1 and "rows=20" in shown


def test_a_median_of_zero_is_a_figure(tmp_path, capsys):
    for number, median in enumerate((0.0, 0.5, 0)):
        a_run(tmp_path, number, median=median, when=f"2026-01-0{number + 1}")
    assert history.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("first on this machine") == 1 and shown.count("since last unknown") == 1
    assert "since last  0.000" in shown


def test_runs_are_in_the_order_of_instants(tmp_path):
    times = [
        "2026-01-01T23:30:00-05:00",
        "2026-01-02T01:00:00+00:00",
        "2026-01-02T12:00:00+14:00",
        "2026-01-02T04:00:00",
    ]
    for number, when in enumerate(times):
        a_run(tmp_path, number, when=when)
    assert [p.commit for p in storage.read(tmp_path)] == ["c2", "c1", "c3", "c0"]


def test_a_run_that_is_stored_twice_counts_once(tmp_path):
    path = a_run(tmp_path, 1)
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored" / "0007_x.json").write_text(path.read_text())
    a_run(tmp_path, 2, when="2026-01-02")
    assert [p.commit for p in storage.read(tmp_path)] == ["c1", "c2"]


@pytest.mark.parametrize("median", [None, "fast", float("nan"), -1.0, [1]])
def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path, capsys, median):
    a_run(tmp_path, 1, median=median)
    (tmp_path / "0002_x.json").write_bytes(b"\xff[")
    a_run(tmp_path, 3, when="yesterday")
    a_run(tmp_path, 4)
    assert history.main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "c4" in out and [line[line.index("000") :][:4] for line in err.splitlines()] == ["0001", "0002", "0003"]
    with pytest.raises(ValueError, match="0001_x"):
        storage.read(tmp_path)


def test_no_history(tmp_path, capsys):
    assert history.main([str(tmp_path)]) == 2
    assert "no runs" in capsys.readouterr().err
