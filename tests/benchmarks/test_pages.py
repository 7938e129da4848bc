"""Pages of the benchmarks: they show the data, and compare earlier runs only where that means something."""

import argparse
import copy
import json
import math

import pytest

from benchmarks import limits, machine, pages, peers, scale
from tests.pages import SVG, Page

BAD = "<script>alert(1)</script>\x1b[31m"


def content(schema, results, **more):
    return machine.head(schema, quick=False, busy=None) | {"results": results} | more


def peers_run():
    rows = [
        {"work": f"inner products {i}", "peer": "numpy float32", "threads": 1, "sizes": {"rows": 500000, "queries": i},
         "ms": 15.25 * i, "peer_ms": 16.5 * i, "ratio": ratio, "rounds": 15, "notes": {"path": "blas", "paths_ms": {}}}
        for i, ratio in enumerate((0.924, 2.5, 0.004), 1)
    ]  # fmt: skip
    return content(peers.SCHEMA, rows, versions={"numpy": "2"}, left_out={"spu": "not installed"})


def limits_run():
    lines = [limits.Line("product", "numpy", 0.9, 1.0, ms=3.5), limits.Line("batch", "numpy", 1.1, 1.2, True, ms=9)]
    rows = [vars(line) | {"kept": line.kept, "applies": True} for line in lines]
    return content(limits.SCHEMA, rows, left_out={})


def scale_run():
    rows = [
        {"kind": kind, "threads": threads, "rows": rows, "queries": queries, "block_rows": 64,
         "seconds": 3e-9 * rows, "rounds": 5, "ns_per_row": 3.0 * queries, "gb_per_s": 20.5, "g_products_per_s": 8.25,
         "limit_s": 1e-9 * rows,
         "over_limit": 3.0, "peak_mib": 100.0 + rows / 1e4, "expected_mib": 101.0 + rows / 1e4}
        for kind in ("u32", "u16") for threads in (1, 2) for rows in (10_000, 1_000_000) for queries in (1, 16)
    ]  # fmt: skip
    return content(scale.SCHEMA, rows, growth={"u32, 1 threads": 1.05})


RUNS = [(pages.PEERS, peers_run), (pages.LIMITS, limits_run), (pages.SCALE, scale_run)]


@pytest.mark.parametrize(("kind", "run"), RUNS)
def test_every_figure_is_that_of_the_data(kind, run):
    given = run()
    page = Page(pages.make(kind, given, None, "python -m benchmarks.x --html 'a b'"))
    assert page.data == given and given["machine"]["cpu"] in page.text and given["datetime"] in page.text
    assert "python -m benchmarks.x --html 'a b'" in page.text
    (heads,) = [t["rows"][0] for t in page.tables if t["caption"] == "All figures"]
    rows = page.table("All figures")
    assert heads == [name.removeprefix("#") for name, _ in kind.columns] and len(rows) == len(given["results"])
    known = {
        "mipp, ms": "ms", "peer, ms": "peer_ms", "mipp / peer": "ratio", "pairs": "rounds", "ms": "ms",
        "ratio": "ratio", "threads": "threads", "rows": "rows", "queries": "queries", "seconds": "seconds",
        "ns / row": "ns_per_row",
        "GB/s": "gb_per_s", "G products/s": "g_products_per_s", "times the limit": "over_limit", "runs": "rounds",
        "peak MiB": "peak_mib", "expected MiB": "expected_mib",
    }  # fmt: skip
    checked = 0
    for row, data in zip(rows, given["results"], strict=True):
        for name, cell in zip(heads, row, strict=True):
            if name in known:
                digits = len(cell.partition(".")[2])
                assert float(cell.replace(",", "")) == pytest.approx(data[known[name]], abs=0.51 * 10**-digits)
                checked += 1
            elif name == "times as fast":
                assert cell == f"{1 / data['ratio']:.2f}"
    assert checked >= 2 * len(rows) and page.plots


def test_bars_are_as_long_as_the_ratios():
    page = Page(pages.make(pages.PEERS, peers_run()))
    (plot,) = page.plots
    widths = [float(bar.get("width")) for bar in plot.iter(f"{SVG}rect")]
    logs = [abs(math.log(row["ratio"])) for row in peers_run()["results"]]
    assert [w / widths[2] for w in widths] == pytest.approx([log / logs[2] for log in logs], abs=0.005)
    assert [bar.get("class") for bar in plot.iter(f"{SVG}rect")] == ["bar", "bar less", "bar"]
    described = plot.find(f"{SVG}desc").text
    assert all(f"{1 / row['ratio']:.2f}" in described for row in peers_run()["results"])
    (plot,) = Page(pages.make(pages.LIMITS, limits_run())).plots
    assert [bar.get("class") for bar in plot.iter(f"{SVG}rect")] == ["bar", "bar less"], "kept, missed"


def test_points_of_scale_are_in_the_table():
    page = Page(pages.make(pages.SCALE, scale_run()))
    assert len(page.plots) == 4
    plot = page.plot("Time per row over rows")
    drawn = list(plot.iter(f"{SVG}polyline"))
    assert len(drawn) == 2 * 4, "a line and its sample in the legend, for two kinds and two numbers of queries"
    heights = {float(p.split(",")[1]) for line in drawn[::2] for p in line.get("points").split()}
    assert len(heights) == 2, "3 and 48 ns"
    assert page.table("Time per row of the most rows") == [["u32, 1 threads", "1.050"]]


@pytest.mark.parametrize(("kind", "run"), RUNS)
def test_compared_with_an_earlier_run(kind, run):
    now, before = run(), run()
    first = before["results"][0]
    first["over_limit" if kind is pages.SCALE else "ratio"] *= 2
    del before["results"][1]
    page = Page(pages.make(kind, now, before))
    rows = page.table("All figures")
    assert rows[0][-1] == "0.500" and rows[1][-2:] == ["–", "–"] and all(row[-1] == "1.000" for row in rows[2:])
    assert not any("Not compared" in part for part in page.text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"machine": {"fingerprint": "00000000"}}, "another machine"), ({"machine": None}, "another machine"),
        ({"quick": True}, "--quick"), ({"results": [{}]}, "cannot be read"), ({"results": ["x"]}, "cannot be read"),
        ({"results": [{"work": "a", "peer": "b", "threads": 1, "sizes": {}, "ratio": BAD}]}, "cannot be read"),
    ],
)  # fmt: skip
def test_runs_that_mean_nothing_together(change, text):
    now = peers_run()
    page = Page(pages.make(pages.PEERS, now, peers_run() | change))
    assert any("Not compared" in part and text in part for part in page.text)
    assert len(page.table("All figures")[0]) == len(pages.PEERS.columns)


@pytest.mark.parametrize(("kind", "run"), RUNS)
@pytest.mark.parametrize("value", [10**400, -1, 0, True, None, "x", [], {}, [[1]], {"a": 10**400}, {"a": []}])
def test_earlier_rows_of_any_kind_end_no_page(kind, run, value):
    now, before = run(), run()
    for name in (None, *before["results"][0]):
        changed = copy.deepcopy(before)
        changed["results"][0] = value if name is None else changed["results"][0] | {name: value}
        pages.compared(kind, now, changed)
        pages.make(kind, now, changed)


def test_texts_of_files_are_texts():
    now = peers_run()
    for row in now["results"]:
        row |= {"work": BAD, "peer": BAD, "notes": {BAD: BAD}, "sizes": {BAD: 1}}
    now |= {"left_out": {BAD: BAD}, "versions": {BAD: BAD}, "busy": BAD}
    source = pages.make(pages.PEERS, now, None, BAD)
    page = Page(source)
    assert "\x1b" not in source and page.data == now and sum("<script>" in part for part in page.text) > 10
    empty = Page(pages.make(pages.PEERS, peers_run() | {"results": []}))
    assert not empty.plots


def test_options_are_checked_before_the_work(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    pages.add_options(parser)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(peers_run()))
    page = tmp_path / "old.html"
    page.write_text(pages.make(pages.PEERS, peers_run()))
    (tmp_path / "folder.html").mkdir()

    def check(*given):
        return pages.check(parser, parser.parse_args([str(g) for g in given]), peers.SCHEMA)

    out = tmp_path / "new.html"
    assert check() is None and check("--html", out) is None
    assert check("--html", out, "--compare", old) == json.loads(old.read_text())
    assert check("--html", out, "--compare", page)["results"] == peers_run()["results"]
    other = copy.deepcopy(peers_run()) | {"schema": "mipp-scale-1"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    (tmp_path / "bad.json").write_text("{")
    for given, text in (
        (("--compare", old), "goes with --html"),
        (("--html", tmp_path / "new.txt"), "ends in .html"),
        (("--html", tmp_path / "none" / "new.html"), "cannot write"),
        (("--html", tmp_path / "folder.html"), "cannot write"),
        (("--html", out, "--compare", tmp_path / "other.json"), "holds no run of this tool"),
        (("--html", out, "--compare", tmp_path / "bad.json"), "neither a page"),
        (("--html", out, "--compare", tmp_path / "none.json"), "no such file"),
    ):
        with pytest.raises(SystemExit) as stopped:
            check(*given)
        assert stopped.value.code == 2 and text in capsys.readouterr().err
    assert not out.exists()
