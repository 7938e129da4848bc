"""The class of ann-benchmarks, its files, and the command that measures."""

import importlib.resources
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from mipp.compat import ann_benchmarks
from mipp.compat.ann_benchmarks import METRICS, MippFlat, measure, recall_at_k
from mipp.compat.ann_benchmarks.__main__ import main
from mipp.compat.ann_benchmarks.measure import _distances
from mipp.errors import ParameterError
from mipp.io.benchmark import Benchmark


def data(metric, rows=300, queries=20, d=16):
    """Train and test vectors, and true distances (queries, rows)."""
    rng = np.random.default_rng(3)
    x, q = rng.normal(size=(rows, d)).astype(np.float32), rng.normal(size=(queries, d)).astype(np.float32)
    if metric == "hamming":
        x, q = x > 0, q > 0
        return x, q, (q[:, None] != x[None]).mean(axis=2)
    if metric == "euclidean":
        return x, q, np.sqrt(((q[:, None].astype(float) - x[None]) ** 2).sum(axis=2))
    products = q.astype(float) @ x.T
    if metric == "angular":
        return x, q, 1 - products / np.linalg.norm(x, axis=1) / np.linalg.norm(q, axis=1)[:, None]
    return x, q, -products


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ranking", ["user", "server"])
def test_the_interface(metric, ranking):
    x, q, true = data(metric)
    algorithm = MippFlat(metric, 32, ranking, 1)
    assert str(algorithm) == algorithm.name and "32" in str(algorithm)
    before = algorithm.get_memory_usage()
    assert before > 1000
    algorithm.fit(x)
    algorithm.set_query_arguments()
    algorithm.batch_query(q, 10)
    batch = algorithm.get_batch_results()
    assert batch is algorithm.get_results() and batch.shape == (20, 10)
    kth = np.sort(true)[:, 9]
    assert recall_at_k(np.take_along_axis(true, batch, axis=1), kth) >= (1 if metric == "hamming" else 0.99)
    for v, row in zip(q[:3], batch, strict=False):
        np.testing.assert_array_equal(algorithm.query(v, 10), row)
    assert algorithm.query(q[0], 400).shape == (300,)  # no more than there are
    assert algorithm.get_additional()["ring_bits"] == 32 and algorithm.get_additional()["bytes_sent"] > 0
    algorithm.fit(x[:50])  # again, on other rows
    assert algorithm.query(q[0], 400).shape == (50,)
    algorithm.done()
    algorithm.done()
    with pytest.raises(ParameterError, match="fit"):
        algorithm.query(q[0], 1)


def test_bad_input():
    for bad in (lambda: MippFlat("jaccard"), lambda: MippFlat("euclidean", 8).fit(np.eye(3))):
        with pytest.raises(ParameterError):
            bad()
    with pytest.raises(ParameterError, match="bits"):
        MippFlat("hamming").fit(np.full((3, 4), 2))


def test_recall_counts_ties_and_can_fail():
    kth = np.array([1.0, 2.0])
    assert recall_at_k(np.array([[0.5, 1.0], [2.0, 2.0]]), kth) == 1
    assert recall_at_k(np.array([[0.5, 1.1], [2.0, 3.0]]), kth) == 0.5


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "hamming"])
def test_missing_neighbours_count_as_not_found(metric):
    x = np.eye(4, dtype=bool if metric == "hamming" else np.float32)
    truth = Benchmark(x, x, None, metric)
    found = _distances(truth, x, np.array([[0, -1], [1, -1], [2, 3], [3, -1]]))
    assert np.isinf(found).tolist() == [[False, True], [False, True], [False, False], [False, True]]


def test_base_class_where_ann_benchmarks_is_installed(monkeypatch):
    """Its ``instantiate_algorithm`` imports ``<module>.module`` and calls the constructor with the arguments."""
    base = types.ModuleType("ann_benchmarks.algorithms.base.module")
    base.BaseANN = type("BaseANN", (), {})
    for name in ("ann_benchmarks", "ann_benchmarks.algorithms", "ann_benchmarks.algorithms.base"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.delitem(sys.modules, "mipp.compat.ann_benchmarks.module")
    module = importlib.import_module("mipp.compat.ann_benchmarks.module")
    assert issubclass(module.MippFlat, base.BaseANN)
    # what was there before this test is put back; the package must name that again
    monkeypatch.undo()
    ann_benchmarks.module = sys.modules["mipp.compat.ann_benchmarks.module"]
    assert ann_benchmarks.module.MippFlat is MippFlat


@pytest.mark.parametrize("point_type, metric", [("bit", "hamming"), ("float", "euclidean")])
def test_config_names_what_is_there(point_type, metric):
    yaml = pytest.importorskip("yaml")
    folder = importlib.resources.files("mipp.compat.ann_benchmarks")
    config = yaml.safe_load((folder / "config.yml").read_text())
    assert (folder / "Dockerfile").read_text().startswith("FROM ann-benchmarks\n")
    (algorithm,) = config[point_type].get("any", config[point_type].get(metric))
    constructor = getattr(importlib.import_module(f"{algorithm['module']}.module"), algorithm["constructor"])
    assert constructor is MippFlat and algorithm["base_args"] == ["@metric"]
    for group in algorithm["run_groups"].values():
        rings, rankings = group["args"]
        for ring in rings:
            constructed = constructor(metric, ring, rankings[0])
            constructed.fit(data(metric)[0])
            constructed.done()


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")

    def write(metric, neighbours=True):
        x, q, true = data(metric)
        path = tmp_path / f"{metric}.hdf5"
        with h5py.File(path, "w") as file:
            file["train"], file["test"] = x, q
            if neighbours:
                file["neighbors"] = np.argsort(true, axis=1)[:, :20]
            file.attrs["distance"] = metric
        return path

    return write


@pytest.mark.parametrize("metric", ["euclidean", "angular", "hamming", "ip"])
@pytest.mark.parametrize("neighbours", [True, False])
def test_measures_on_data_by_formula(hdf5, metric, neighbours):
    found = measure(hdf5(metric, neighbours), k=10, threads=1)
    assert found["recall"] >= 0.99 and found["recall_batch"] >= 0.99
    assert (found["rows"], found["dim"], found["queries"], found["k"], found["distance"]) == (300, 16, 20, 10, metric)
    for name in ("queries_per_second", "queries_per_second_batch", "build_seconds"):
        assert found[name] > 0
    assert np.isfinite(found["memory_kib"])


def test_recall_is_measured(hdf5, monkeypatch):
    """Wrong rows give a low recall."""
    monkeypatch.setattr(MippFlat, "_search", lambda self, x, n: np.tile(np.arange(n), (len(x), 1)))
    assert measure(hdf5("euclidean"), k=10, threads=1)["recall"] < 0.3


def test_the_command(hdf5, tmp_path):
    path = hdf5("euclidean")
    command = [sys.executable, "-m", "mipp.compat.ann_benchmarks", str(path), "-k", "5", "--queries", "7"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("recall@5", "queries/s", "queries/s, batch", "build, s", "memory, KiB", "300 x 16, 7 queries"):
        assert word in text
    out = subprocess.run([*command, "--json", "--ranking", "server"], capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["k"] == 5 and json.loads(out)["recall"] >= 0.99
    wrong = subprocess.run([*command, str(tmp_path / "none.hdf5")], capture_output=True, text=True)
    assert wrong.returncode == 1 and "recall@5" in wrong.stdout and "no such file" in wrong.stderr
    assert wrong.stderr.count("none.hdf5") == 1, "the line names the file once"


def test_the_command_draws_a_plot(hdf5, tmp_path):
    pytest.importorskip("matplotlib")
    from click.testing import CliRunner

    path, plot = hdf5("euclidean"), tmp_path / "plot.svg"
    options = ["--threads", "1", "--ring", "32", "--ring", "64", "--ranking", "user", "--ranking", "server"]
    done = CliRunner().invoke(main, [str(path), *options, "--json", "--plot", str(plot)])
    assert (
        done.exit_code == 0 and [json.loads(line)["recall"] > 0.99 for line in done.stdout.splitlines()] == [True] * 4
    )
    assert b"<svg" in plot.read_bytes()
    said = done.stderr.splitlines()
    assert len(said) == 5 and "searching an encoding" in said[0] and said[-1] == f"{plot} written"
    for wrong in (tmp_path / "plot.txt", tmp_path / "none" / "plot.png", tmp_path):
        refused = CliRunner().invoke(main, [str(path), "--plot", str(wrong)])
        assert refused.exit_code == 1 and refused.output.startswith("mipp: ") and "recall" not in refused.output
    other = tmp_path / "base.fbin"
    other.write_bytes(b"")
    assert "mipp.compat.big_ann_benchmarks" in CliRunner().invoke(main, [str(other)]).output


def test_bad_measurements(hdf5):
    from click.testing import CliRunner

    path = hdf5("euclidean")
    for options, text in (({"k": 301}, "to 300"), ({"k": 0}, "from 1"), ({"queries": -1}, "negative")):
        with pytest.raises(ParameterError, match=text):
            measure(path, **options)
    for wrong in ("-k", "--queries"):
        assert CliRunner().invoke(main, [str(path), wrong, "0"]).exit_code == 2
    refused = CliRunner().invoke(main, [str(path), "-k", "21"])  # the file lists 20
    assert refused.exit_code == 1 and "20 a query, fewer than 21" in refused.output and "recall" not in refused.output


def test_memory_is_never_negative(hdf5, monkeypatch):
    left = iter([9000.0, 100.0])  # the process gave memory back while the index was built
    monkeypatch.setattr(MippFlat, "get_memory_usage", lambda self: next(left))
    assert measure(hdf5("euclidean"), k=1, queries=1, threads=1)["memory_kib"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, ring_bits, least",
    [
        ("sift10k_ukbench-euclidean", 32, 0.99),
        ("corel5k_csd64-euclidean", 32, 0.99),
        ("sift10k_ukbench-euclidean", 16, 0.94),
    ],
)
def test_recall_on_real_data(datasets, name, ring_bits, least):
    pytest.importorskip("h5py")
    found = measure(datasets / "vectors" / f"{name}.hdf5", ring_bits=ring_bits)
    assert found["recall"] == found["recall_batch"] >= least
