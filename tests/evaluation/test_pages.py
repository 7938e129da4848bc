"""Pages: every figure shown is that of the data, nothing is loaded, no text of a stranger is markup."""

import json

import numpy as np
import pytest
from PIL import Image

from mipp import Encoding
from mipp.demo.render import render_collection
from mipp.errors import NotFoundError, ParameterError
from mipp.evaluation import html, metrics, svg
from mipp.evaluation.details import KINDS, by_class
from mipp.evaluation.evaluate import evaluate_images, evaluate_labelled, evaluate_neighbours
from mipp.evaluation.intervals import intervals
from mipp.evaluation.pages import evaluation_page, measure_names
from mipp.evaluation.report import described
from tests.pages import SVG, Page

HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"'><svg onload=alert(1)>", "a&amp;b<!--",
    "red\x1b[31m\x00!", "x" * 10_000, "\u202ehtml", "]]></title></style>", "=1+1", "山",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    items = []
    for name, label, pixels in render_collection(3, 4, (64, 64)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        items.append((folder / f"{name}.png", label))
    return items


@pytest.fixture(scope="module")
def report(pictures):
    return described(evaluate_images(pictures, "csd32+cld", ring_bits=16), command="mipp evaluate --labels 'a b.csv'")


def shown(value, digits=4):
    return html.number(value, digits)


def test_every_figure_of_the_tables_is_that_of_the_data(report):
    page = Page(evaluation_page(report))
    assert page.data == json.loads(json.dumps(report)), "the data of the page is the report"
    names = measure_names(report)
    rows = page.table("Means over queries")
    assert len(rows) == len(names) == 7
    for name, row in zip(names, rows, strict=True):
        for i, kind in enumerate(KINDS):
            low, high = report["intervals"][kind][name]
            assert row[1 + 2 * i] == f"{report[kind][name]:.4f}"
            assert row[2 + 2 * i] == f"{low:.4f} to {high:.4f}"
            values = [np.nan if v is None else v for v in report["per_query"][kind][name]]
            assert report[kind][name] == metrics.mean(np.array(values))
            assert [low, high] == intervals(report["per_query"][kind])[name][1:]
    for name, row in zip(names, page.table("Means of differences"), strict=True):
        for i, pair in enumerate(("quantised - float", "encrypted - quantised", "encrypted - float")):
            difference, low, high = report["differences"][pair][name]
            second, first = pair.split(" - ")
            assert difference == pytest.approx(report[second][name] - report[first][name], abs=1e-12)
            assert float(row[1 + 2 * i]) == pytest.approx(difference, abs=5.1e-6)
            assert row[2 + 2 * i] == f"{shown(low, 5)} to {shown(high, 5)}"


def test_classes_are_means_of_their_queries(report):
    page = Page(evaluation_page(report))
    labels = np.array(report["per_query"]["labels"])
    rows = page.table("Means over the queries of a class")
    assert [row[0] for row in rows] == [c["label"] for c in by_class(report)] and len(rows) == len(set(labels))
    for row in rows:
        mine = labels == row[0]
        encrypted = {name: np.array(v)[mine].mean() for name, v in report["per_query"]["encrypted"].items()}
        assert row[1] == str(mine.sum()) and row[2] == shown(encrypted["map"]) and row[4] == shown(encrypted["p10"])
        assert row[7] == shown(encrypted["anmrr"])
        assert row[8] == shown(np.array(report["per_query"]["float"]["map"])[mine].mean())
    plot = page.plot("mAP by class")
    bars = [float(bar.get("width")) for bar in plot.iter(f"{SVG}rect")]
    values = [float(row[2]) for row in rows]
    assert bars == pytest.approx([max(0.8, 440 * value) for value in values], abs=0.1)
    assert values == sorted(values, reverse=True)


def test_curves_are_drawn_where_the_data_is_and_listed_under_the_plot(report):
    page = Page(evaluation_page(report))
    for title, name in (("Precision at recall (interpolated)", "precision"), ("Precision among the first k", "p_at_k")):
        lines = [line for line in page.plot(title).iter(f"{SVG}polyline") if len(line.get("points").split()) > 2]
        for line, kind in zip(lines, ("float", "encrypted"), strict=True):
            heights = [float(point.split(",")[1]) for point in line.get("points").split()]
            bottom, top = 276, 12
            values = report["curves"][kind][name]
            assert [(bottom - y) / (bottom - top) for y in heights] == pytest.approx(values, abs=1e-4)
    tables = [t["rows"] for t in page.tables if t["rows"][0] == ["recall", "float", "encrypted"]]
    assert [[float(c) for c in row[1:]] for row in tables[0][1:]] == [
        pytest.approx(pair, abs=5.1e-5)
        for pair in zip(*(report["curves"][kind]["precision"] for kind in ("float", "encrypted")), strict=True)
    ]
    # three curves and the classes; the last has its table on the page
    assert len(page.plots) == 4 and sum("The numbers as a table" in part for part in page.text) == 3


def test_pictures_show_what_was_found(report, pictures):
    page = Page(evaluation_page(report))
    groups = report["examples"]["best"] + report["examples"]["worst"]
    assert len(groups) == 12 and len({query["row"] for query in groups}) == 12
    assert len(page.images) == len(page.items) == sum(1 + len(query["hits"]) for query in groups)
    names = [path.name for path, _ in pictures]
    items = iter(zip(page.items, page.images, strict=True))
    for query in groups:
        item, image = next(items)
        assert names[query["row"]] in item and f"AP {query['map']:.3f}" in item and names[query["row"]] in image["alt"]
        assert query["map"] == report["per_query"]["encrypted"]["map"][query["row"]]
        for rank, hit in enumerate(query["hits"], 1):
            item, _ = next(items)
            right = pictures[hit["row"]][1] == pictures[query["row"]][1]
            assert hit["row"] != query["row"] and hit["right"] == right
            assert item.startswith(f"{rank} ✓ right" if right else f"{rank} ✗ wrong") and names[hit["row"]] in item
    best, worst = ([q["map"] for q in report["examples"][name]] for name in ("best", "worst"))
    ordered = sorted(report["per_query"]["encrypted"]["map"])
    assert sorted(best + worst) == ordered[:6] + ordered[-6:] and min(best) >= max(worst)


def test_an_image_that_is_gone_or_broken_leaves_a_gap(pictures, tmp_path):
    items = []
    for i, (path, label) in enumerate(pictures[:6]):
        (tmp_path / f"{i}.png").write_bytes(path.read_bytes())
        items.append((tmp_path / f"{i}.png", label))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    result = evaluate_images([*items, (tmp_path / "broken.png", "<b>")], "cld")
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"no image")
    page = Page(evaluation_page(described(result)))
    assert sum("cannot be read any more" in item for item in page.items) == 12
    rows = [t["rows"] for t in page.tables if t["rows"][0] == ["file", "reason"]]
    assert rows[0][1][0] == "broken.png" and str(tmp_path) not in rows[0][1][1]


def test_texts_of_strangers_are_texts(pictures, tmp_path):
    items = []
    for i, text in enumerate(HOSTILE):
        name = "".join(c for c in text[:60] if c not in "/\x00") + f"{i}.png"
        for j in range(2):
            path = tmp_path / f"{j}{name}"
            path.write_bytes(pictures[(i + j) % len(pictures)][0].read_bytes())
            items.append((path, text))
    result = evaluate_images(items, "cld")
    source = evaluation_page(described(result, command="mipp evaluate --labels '</script><script>alert(1)</script>'"))
    page = Page(source)  # fails on any element or attribute that they would make
    assert source.count("<script") == 1 and "".join(source.split("\n")).isprintable()
    assert "\x1b" not in source and "\u202e" not in source and "\x00" not in source
    classes = [row[0] for row in page.table("Means over the queries of a class")]
    assert HOSTILE[0] in classes and HOSTILE[1] in classes and "x" * 299 + "…" in classes
    assert "red\\x1b[31m\\x00!" in classes and "\\u202ehtml" in classes
    assert set(page.data["per_query"]["labels"]) == set(HOSTILE), "the data has them whole"
    assert len(source) < 2_000_000


def test_vectors(tmp_path):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 6)), np.arange(40) % 2
    page = Page(evaluation_page(described(evaluate_labelled(rows, labels, Encoding("cosine", 6), queries=9))))
    assert not page.images and any("row " in item for item in page.items)
    assert len(page.table("Means over queries")) == 7
    result = described(evaluate_neighbours(rows, rows[:15] + 0.1, Encoding("cosine", 6)))
    page = Page(evaluation_page(result))
    assert [row[0] for row in page.table("Means over queries")] == ["recall@1", "recall@10"]
    lowest = page.table("Encrypted; lowest recall@10 first")
    values = result["per_query"]["encrypted"]["recall10"]
    assert [float(row[2]) for row in lowest] == pytest.approx(sorted(values)[:10])
    assert all(float(row[2]) == pytest.approx(values[int(row[0])]) for row in lowest)
    assert "SHA-256 of the vectors" in page.text and result["dataset"]["truth_sha256"] in page.text


def test_one_query_has_no_interval_and_many_classes_are_cut():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 4))
    page = Page(evaluation_page(described(evaluate_labelled(rows, np.arange(500) % 2, Encoding("l2", 4), queries=1))))
    assert page.table("Means over queries")[0][2] == "no interval"
    page = Page(evaluation_page(described(evaluate_labelled(rows, np.arange(500), Encoding("l2", 4)))))
    assert len(page.table("Means over the queries of a class")) == 400, "of 500 classes"
    assert {row[2] for row in page.table("Means over the queries of a class")} == {"–"}, "nothing is right"
    assert page.data["examples"] == {"best": [], "worst": []}


def test_a_fault_is_said(report):
    page = Page(evaluation_page(report | {"identical": False}))
    assert any("This is a fault" in part for part in page.text)
    assert not any("This is a fault" in part for part in Page(evaluation_page(report)).text)


def test_pages_are_written_whole_and_read_again(report, tmp_path):
    path = tmp_path / "r.html"
    html.write_page(path, evaluation_page(report))
    assert path.stat().st_mode & 0o777 == 0o600 and html.read_page(path) == json.loads(json.dumps(report))
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ParameterError):
        html.write_page(tmp_path / "folder.html", "x")
    for content in (b"", b"<html></html>", b"[1]", b'{"a": NaN}', b"\xff\xfe", b"<script id='mipp-data'>{</script>"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ParameterError, match="neither a page"):
            html.read_page(tmp_path / "bad")
    with pytest.raises(NotFoundError):
        html.read_page(tmp_path / "none")
    with pytest.raises(ValueError):
        html.page("a", "b", [], {"a": float("nan")})


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (-3.7, 12, False), (0, 3e-7, False), (0.9, 1.1, True), (1e-3, 1e6, True)]
)
def test_ticks_are_few_round_and_inside(low, high, log):
    found = svg.ticks(low, high, log=log)
    assert 1 <= len(found) <= 8 and sorted(set(found)) == found
    assert all(low * 0.99 - 1e-12 <= tick <= high * 1.01 for tick in found)
    assert all(len(f"{tick:g}") <= 7 for tick in found)


def test_a_plot_needs_points():
    with pytest.raises(ParameterError):
        svg.lines("t", "d", [], name="a", across="x", up="y")
    with pytest.raises(ParameterError):
        svg.bars("t", "d", [], name="a", across="x")
    with pytest.raises(ParameterError):
        svg.lines("t", "d", [svg.Series("a", [1], [1])] * 7, name="a", across="x", up="y")


def test_bars_on_a_logarithmic_axis_begin_at_one():
    plot = svg.bars("t", "d", [svg.Bar("a", 10.0), svg.Bar("<b>", 0.1)], name="a", across="x", base=1.0, log=True)
    assert plot.count('class="bar less"') == 1 and "&lt;b&gt;" in plot and "<b>" not in plot
    flat = svg.lines("t", "d", [svg.Series("a", [1], [0.5])], name="a", across="x", up="y")
    assert "nan" not in flat and "inf" not in flat
    assert svg.bars("t", "d", [svg.Bar("same", 0.0, 0.0, 0.0)], name="a", across="B - A").count("<rect") == 1
