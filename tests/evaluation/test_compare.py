"""Two evaluations compared: differences, intervals of pairs, and what makes two of them incomparable."""

import copy
import json

import numpy as np
import pytest

from mipp import Encoding
from mipp.errors import ParameterError
from mipp.evaluation import html
from mipp.evaluation.compare import compare, comparison_page, load_evaluation, verdict
from mipp.evaluation.evaluate import evaluate_labelled, evaluate_neighbours
from mipp.evaluation.intervals import differences
from mipp.evaluation.pages import MEASURES
from mipp.evaluation.report import described
from tests.pages import Page


def labelled(bits, *, queries=0, labels=None, count=60):
    rng = np.random.default_rng(0)
    names = np.arange(count) % 4
    vectors = rng.normal(size=(4, 8))[names] + rng.normal(size=(count, 8))
    chosen = names if labels is None else labels
    return described(
        evaluate_labelled(vectors, chosen, Encoding("cosine", 8, bits=bits, query_bits=bits), queries=queries)
    )


def neighbours(seed=0, truth=None, queries=12):
    rows = np.random.default_rng(seed).normal(size=(50, 8))
    return described(evaluate_neighbours(rows, rows[:queries] + 0.2, Encoding("cosine", 8), truth=truth))


@pytest.fixture(scope="module")
def sides():
    return labelled(8), labelled(2)


def test_differences_are_those_of_the_queries(sides):
    found = compare(*sides)
    assert found["comparable"] and found["paired"] and not found["reasons"]
    assert [row["kind"] for row in found["measures"]] == ["float"] * 7 + ["encrypted"] * 7
    for row in found["measures"]:
        kind, name = row["kind"], row["measure"]
        spread = differences(*(side["per_query"][kind] for side in sides))[name]
        assert [row["difference"], row["low"], row["high"]] == spread
        assert row["difference"] == pytest.approx(sides[1][kind][name] - sides[0][kind][name], abs=1e-12)
        if kind == "float":
            assert row["difference"] == row["low"] == row["high"] == 0.0 and verdict(row) == "no difference shown"
    (precision,) = [r for r in found["measures"] if (r["kind"], r["measure"]) == ("encrypted", "recall10")]
    assert verdict(precision) == "worse", "two bits instead of eight"
    back = compare(*sides[::-1])
    assert [r["difference"] for r in back["measures"]] == [-r["difference"] or 0.0 for r in found["measures"]]


@pytest.mark.parametrize("name", MEASURES)
def test_verdicts_know_what_is_better(name):
    row = {"measure": name, "difference": 0.2, "low": 0.1, "high": 0.3}
    assert verdict(row) == ("better" if MEASURES[name][1] else "worse")
    assert verdict(row | {"low": -0.1}) == "no difference shown" and verdict(row | {"low": None}) == ""


def test_what_is_not_comparable_is_said(sides):
    first = sides[0]
    for other, text in (
        (labelled(8, labels=np.arange(60) % 3), "other labels"),
        (labelled(8, count=64), "60 images, and 64"),
        (neighbours(), "by labels, the other by true neighbours"),
        (first | {"dataset": first["dataset"] | {"labels_sha256": "x"}}, "other labels"),
    ):
        found = compare(first, other)
        assert not found["comparable"] and not found["paired"] and text in "; ".join(found["reasons"])
        assert not any("difference" in row for row in found["measures"])
        page = Page(comparison_page(found, first, other, ("a", "b")))
        assert any("Not comparable" in part and text in part for part in page.text)
    bare = {name: value for name, value in first.items() if name != "dataset"}
    assert "do not say" in compare(bare, bare)["reasons"][0]
    found = compare(first | {"dataset": {"labels_sha256": "a", "names_sha256": "b"}},
                    first | {"dataset": {"labels_sha256": "a", "names_sha256": "c"}})  # fmt: skip
    assert found["reasons"] == ["other images"]


def test_neighbours_with_another_depth_or_other_vectors():
    first = neighbours()
    assert compare(first, neighbours())["paired"]
    assert "other vectors" in "; ".join(compare(first, neighbours(1))["reasons"])
    assert "other queries" in "; ".join(compare(first, neighbours(queries=11))["reasons"])
    shallow = neighbours(truth=np.zeros((12, 1), int))
    assert shallow["float"].keys() == {"recall1"}
    found = compare(first, shallow)
    assert not found["comparable"] and "another depth" in found["reasons"][0]
    assert "only one of both has recall@10" in found["reasons"]


def test_vectors_of_two_networks_with_the_same_labels_are_comparable(sides):
    other = copy.deepcopy(sides[1])
    other["dataset"]["vectors_sha256"] = "of another network"
    assert compare(sides[0], other)["paired"]


def test_other_queries_or_none_have_no_intervals(sides):
    for other, text in (
        (labelled(8, queries=20), "other queries of the same collection"),
        ({k: v for k, v in sides[1].items() if k != "per_query"}, "no figures of each query"),
    ):
        found = compare(sides[0], other)
        assert found["comparable"] and not found["paired"] and text in found["reasons"][0]
        row = found["measures"][-1]
        assert row["difference"] == other["encrypted"][row["measure"]] - sides[0]["encrypted"][row["measure"]]
        assert row["low"] is None


def test_one_query_has_no_interval():
    found = compare(labelled(8, queries=1), labelled(2, queries=1))
    assert found["paired"] and found["reasons"] == ["one query, so there are no intervals"]
    assert {row["low"] for row in found["measures"]} == {None}
    side = labelled(8, queries=1)
    Page(comparison_page(compare(side, side), side, side, ("a", "b")))


def test_a_fault_shows_quantised_figures(sides):
    found = compare(sides[0], sides[1] | {"identical": False})
    assert {row["kind"] for row in found["measures"]} == {"float", "quantised", "encrypted"}


def test_the_page_shows_the_data(sides, tmp_path):
    found = compare(*sides)
    page = Page(comparison_page(found, *sides, ("<b>a</b>", "b")))
    assert page.data == json.loads(json.dumps(found | {"names": ["<b>a</b>", "b"]}))
    rows = page.table("A: <b>a</b>; B: b")
    assert len(rows) == len(found["measures"]) and len(page.plots) == 1
    for row, data in zip(rows, found["measures"], strict=True):
        assert row[1:3] == [f"{data['first']:.4f}", f"{data['second']:.4f}"] and row[5] == verdict(data)
        assert float(row[3]) == pytest.approx(data["difference"], abs=5.1e-6)
        low, high = row[4].split(" to ")
        assert [float(low), float(high)] == pytest.approx([data["low"], data["high"]], abs=5.1e-6)
    same = compare(sides[0], sides[0])
    Page(comparison_page(same, sides[0], sides[0], ("a", "a")))


GOOD = labelled(8, queries=3)


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0}, {"images": "4"}, {"images": True}, {"queries": 10**400}, {"float": None}, {"float": {}},
        {"float": {"map": "x"}}, {"encrypted": {"map": 1e300}}, {"encrypted": {"map": 10**400}}, {"identical": 1},
        {"float": {"x": 1.0}, "quantised": {"x": 1.0}, "encrypted": {"x": 1.0}}, {"dataset": []}, {"machine": 3},
        {"per_query": []}, {"per_query": {"rows": [0, 1, 2], "float": 1, "quantised": {}, "encrypted": {}}},
        {"per_query": GOOD["per_query"] | {"rows": [0, 1]}}, {"per_query": GOOD["per_query"] | {"rows": ["a", 1, 2]}},
        {"per_query": GOOD["per_query"] | {"float": {"map": [0.5, "x", 0.5]}}},
        {"per_query": GOOD["per_query"] | {"float": {"map": [0.5, 0.5]}}},
    ],
)  # fmt: skip
def test_files_that_hold_no_evaluation(change, tmp_path):
    path = tmp_path / "e.json"
    path.write_text(json.dumps(GOOD))
    assert load_evaluation(path)["images"] == 60
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ParameterError, match="no evaluation of mipp"):
        load_evaluation(path)
    html.write_page(path, html.page("t", "l", [], GOOD | change) if "queries" not in change else "<p>")
    with pytest.raises(ParameterError):
        load_evaluation(path)


def test_large_files_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "strict_loads", lambda text: pytest.fail("it was parsed"))
    path = tmp_path / "e.json"
    for text in ('{"images":[' + "[]," * 1_000_001 + "0]}", '{"images":' * 1_000_001):
        path.write_text(text)
        with pytest.raises(ParameterError, match="neither a page"):
            load_evaluation(path)
    with path.open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ParameterError, match="more than"):
        load_evaluation(path)


def test_what_a_stranger_writes_into_a_file_is_text(sides):
    bad = "<script>alert(1)</script>"
    other = sides[1] | {
        "descriptor": bad, "command": bad, "created": [bad], "ring": {bad: bad}, "machine": {bad: bad, "level": [bad]},
        "versions": {bad: {bad: 1}}, "scheme": bad, "metric": bad, "dataset": sides[1]["dataset"] | {bad: bad},
    }  # fmt: skip
    page = Page(comparison_page(compare(sides[0], other), sides[0], other, (bad, bad)))
    assert sum(bad in part for part in page.text) > 8
