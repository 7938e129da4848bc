"""Machine facts, timing in turns, and the tools at tiny sizes: what they write, not what they measure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, larger, limits, machine, peers, ranking, scale
from mipp import cpu, ring
from tests.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FACTS = ("architecture", "cpu", "cores", "level", "memory_gib", "kernel", "python", "numpy", "blas")


def test_facts():
    found = machine.facts()
    assert set(found) == set(FACTS)
    assert found["level"] == cpu.level() and found["cores"] == len(os.sched_getaffinity(0))
    assert all(found[name] for name in machine.COMPARED)
    assert machine.fingerprint() == machine.fingerprint(found) in machine.line(found)


@pytest.mark.parametrize("name", FACTS)
def test_fingerprint_changes_with_what_matters(name):
    found = machine.facts()
    same = machine.fingerprint(found | {name: "another"}) == machine.fingerprint(found)
    assert same == (name in ("kernel", "blas"))


def test_a_forced_level_is_another_machine():
    before = machine.fingerprint()
    with cpu.force("portable"):
        assert (machine.fingerprint() == before) == (cpu.levels() == ("portable",))


def test_turns():
    order, values = [], iter(range(1, 100))

    def side(name):
        order.append(name)
        return next(values)

    pairs = common.in_turns(lambda: side("a"), lambda: side("b"), 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert pairs.ours == [1, 4, 5] and pairs.theirs == [2, 3, 6]
    assert pairs.ratio == round(5 / 6, 3) and pairs.times == 1.2
    assert pairs.medians(1e3) == (4000, 3000)


@pytest.mark.parametrize("queries", [1, 3])
def test_numpy_products_are_the_same_work(queries):
    rows = np.random.default_rng(0).random((50, 8), np.float32)
    ways = common.numpy_products(rows, queries)
    expected = rows @ np.random.default_rng(6).random((queries, 8), np.float32).T
    assert len(ways) == 2
    for way in ways:
        found = np.asarray(way())
        assert np.allclose(found.reshape(expected.shape) if found.shape[0] == 50 else found.T, expected)


def test_quick_peers(tmp_path, capsys):
    out = tmp_path / "p.html"
    assert peers.main(["--quick", "--only", "products", "--json", str(tmp_path / "p.json"), "--html", str(out)]) == 0
    content = json.loads((tmp_path / "p.json").read_text())
    page = Page(out.read_text())
    assert page.data == content and len(page.table("All figures")) == len(content["results"])
    assert content["schema"] == peers.SCHEMA and content["quick"] is True and content["versions"]["mipp"]
    assert content["machine"]["fingerprint"] == machine.fingerprint()
    by_numpy = [r for r in content["results"] if r["peer"] == "numpy float32"]
    assert [(r["sizes"]["queries"], r["sizes"]["ring_bits"]) for r in by_numpy] == [
        (q, bits) for bits in (32, 16) for q in (1, 16, 256)
    ]
    assert all(r["threads"] == 1 and r["ms"] > 0 and r["peer_ms"] > 0 and r["ratio"] > 0 for r in content["results"])
    assert "numpy float32" in capsys.readouterr().out


def test_a_missing_peer_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    monkeypatch.delenv("MIPP_SPU_PYTHON", raising=False)
    assert peers.main(["--quick", "--only", "ckks", "spu", "--json", str(tmp_path / "p.json")]) == 0
    content = json.loads((tmp_path / "p.json").read_text())
    assert set(content["left_out"]) == {"ckks", "spu"} and content["results"] == []
    assert "pip install tenseal" in capsys.readouterr().out


def test_quick_scale(tmp_path, capsys):
    out = [str(tmp_path / name) for name in ("s.json", "s.png", "s.html")]
    assert scale.main(["--quick", "--json", out[0], "--plot", out[1], "--html", out[2]]) == 0
    content = json.loads(Path(out[0]).read_text())
    assert Page(Path(out[2]).read_text()).data == content
    assert content["schema"] == scale.SCHEMA
    sizes = {(r["kind"], r["threads"], r["rows"], r["queries"]) for r in content["results"]}
    assert sizes == {
        (kind, threads, rows, queries)
        for kind in scale.DTYPES for threads in {1, machine.cores()}
        for rows in scale.QUICK_ROWS for queries in scale.QUICK_QUERIES
    }  # fmt: skip
    for r in content["results"]:
        assert r["g_products_per_s"] == pytest.approx(r["rows"] * 128 * r["queries"] / r["seconds"] / 1e9)
        assert r["limit_s"] > 0 and r["peak_mib"] > 0
    assert Path(out[1]).read_bytes().startswith(b"\x89PNG")


def test_quick_ranking(tmp_path, capsys):
    out = tmp_path / "r.json"
    assert ranking.main(["--quick", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["schema"] == ranking.SCHEMA and [r["rows"] for r in content["results"]] == list(ranking.QUICK_ROWS)
    for r in content["results"]:
        assert r["ns_per_row"] == pytest.approx(r["seconds"] / r["rows"] * 1e9) and 10 < r["bytes_per_row"] < 40
        assert r["memory_mib"] < r["stated_mib"] + 20


def test_quick_larger(tmp_path, capsys, monkeypatch):
    def none(limit):
        raise PermissionError(1, "not permitted")

    out = tmp_path / "l.json"
    assert larger.main(["--quick", "--folder", str(tmp_path), "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["schema"] == larger.SCHEMA and content["rows"] == 65_536 and list(tmp_path.iterdir()) == [out]
    assert [(r["queries"], r["rule"]) for r in content["results"]] == [
        (count, rule) for count in (1, 64) for rule in ("ours", "kernel")
    ]  # fmt: skip
    for r in content["results"]:
        assert r["over_disk"] == pytest.approx(r["gb_per_s"] / r["disk_gb_per_s"]) and r["own_mib"] > 0
        assert 2 * 65_536 * 512 < r["bytes"] < 2 * 66_000 * 512
    assert larger.main(["--quick", "--folder", str(tmp_path), "--json", str(out), "--ranking", "server"]) == 0
    assert [r["queries"] for r in json.loads(out.read_text())["results"]] == [1, 1]
    monkeypatch.setattr(larger, "Group", none)
    monkeypatch.setattr(larger, "available_bytes", lambda: 1 << 50)
    capsys.readouterr()
    assert larger.main(["--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert "no control group limits the memory (not permitted)" in said and "GB of disk" in said
    for wrong in (
        ["--limit-mib", "100"],
        ["--times", "nan"],
        ["--queries", "0"],
        ["--json", str(tmp_path / "a" / "b")],
    ):
        with pytest.raises(SystemExit) as ended:
            larger.main(wrong)
        assert ended.value.code == 2


def test_quick_limits(tmp_path, capsys):
    out = tmp_path / "l.html"
    assert limits.main(["--quick", "--only", "growth", "--html", str(out)]) == 0
    page, printed = Page(out.read_text()), capsys.readouterr().out
    (row,) = page.table("All figures")
    (line,) = page.data["results"]
    assert page.data["schema"] == limits.SCHEMA and line["applies"] is False
    assert row[0] == line["work"] and row[0] in printed
    assert row[3] == f"{line['ratio']:.3f}" and row[3] in printed and row[4] == "at most 1.1"


@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_blocks_give_the_whole_product(monkeypatch, rows):
    stored = common.random_words((rows, 16), np.uint16)
    columns = common.random_words((3, 16), np.uint16, 1)
    out, found, matmul = np.zeros((3, 64), np.uint16), [], ring.matmul
    # answers of a block are overwritten by the next
    monkeypatch.setattr(scale.ring, "matmul", lambda *given, **more: found.append(matmul(*given, **more).copy()))
    scale.blocks(stored, columns, out, 1)
    assert np.array_equal(np.concatenate(found, axis=1), matmul(stored, columns))


@pytest.mark.parametrize(
    ("rows", "queries", "size", "mib", "expected"),
    [(8_000_000, 1024, 4, 64, 16_384), (10_000, 1, 2, 64, 9_984), (10, 1, 4, 64, 64), (10**6, 10**6, 4, 1, 64)],
)
def test_answers_of_a_block_are_bounded(rows, queries, size, mib, expected):
    assert scale.block_of(rows, queries, size, mib) == expected


@pytest.mark.parametrize("tool", [scale])
@pytest.mark.parametrize("arguments", [["--rows", "0"], ["--queries", "-1"], ["--budget", "0"], ["--kinds", "u8"]])
def test_bad_arguments(tool, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2 and capsys.readouterr().err


def test_every_benchmark_carries_its_facts(tmp_path):
    """Also one that says nothing itself."""
    out = tmp_path / "b.json"
    # pytest-benchmark measures nothing in a worker of xdist
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["MIPP_BENCH_ROWS"] = "500"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/kernels/bench_galois.py",
        "-k",
        "reconstruct",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--benchmark-only", f"--benchmark-json={out}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    run = json.loads(out.read_text())
    assert run["machine_info"]["mipp"]["fingerprint"] == machine.fingerprint()
    assert len(run["benchmarks"]) >= 6
    for bench in run["benchmarks"]:
        info = bench["extra_info"]
        assert info["machine"]["fingerprint"] == machine.fingerprint() and info["machine"]["cpu"]
        assert info["tier"] in ("portable", "avx2", "avx512")
        assert info["sizes"]["rows"] == 500 and info["sizes"]["dim"] == 128
        assert info["baseline"]["ms"] > 0 and info["baseline"]["ratio"] > 0
    assert "machine " + machine.fingerprint() in done.stdout
