"""The class of big-ann-benchmarks, called as its runner does, on data sets by formula; and the command."""

import importlib
import importlib.resources
import json
import sys
import types

import numpy as np
import pytest
from click.testing import CliRunner

import mipp.client.streaming as streaming
from mipp.compat.ann_benchmarks.plots import plot_recall
from mipp.compat.big_ann_benchmarks import METRICS, FileDataset, MippFlat, measure_files
from mipp.compat.big_ann_benchmarks.__main__ import main
from mipp.compat.big_ann_benchmarks.measure import recall_with_ties
from mipp.errors import (
    DeploymentError,
    DTypeError,
    EncodingError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
)
from mipp.io.benchmark import Truth

ROWS, QUERIES, DIM, K = 3000, 12, 24, 10
SUFFIX = {"float32": ".fbin", "uint8": ".u8bin", "int8": ".i8bin"}


def write_bin(path, data):
    path.write_bytes(np.array(data.shape, "<u4").tobytes() + np.ascontiguousarray(data).tobytes())
    return path


def vectors(dtype, rows, seed):
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(size=(rows, DIM)).astype(np.float32)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(least, most + 1, (rows, DIM)).astype(dtype)


def distances(x, q, metric):
    """(queries, rows), smaller is nearer; euclidean is squared, as in the project."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "angular":
        x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
    return ((q[:, None] - x) ** 2).sum(axis=2) if metric == "euclidean" else -(q @ x.T)


class Files:
    """Files of a data set, and their content."""

    def __init__(self, folder, dtype="uint8", metric="euclidean", rows=ROWS):
        self.x, self.q, self.metric = vectors(dtype, rows, 1), vectors(dtype, QUERIES, 2), metric
        self.far = distances(self.x, self.q, metric)
        near = np.argsort(self.far, axis=1, kind="stable")[:, : 2 * K]
        self.base = write_bin(folder / f"base{SUFFIX[dtype]}", self.x)
        self.queries = write_bin(folder / f"query{SUFFIX[dtype]}", self.q)
        self.truth = folder / "gt.ibin"
        self.truth.write_bytes(
            np.array(near.shape, "<u4").tobytes()
            + near.astype("<u4").tobytes()
            + np.take_along_axis(self.far, near, axis=1).astype("<f4").tobytes()
        )

    def dataset(self, name="made-by-formula"):
        return FileDataset(self.base, self.queries, self.truth, metric=self.metric, name=name)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def project(monkeypatch):
    """Modules of big-ann-benchmarks with a table of data sets, to which tests add theirs."""
    datasets = types.ModuleType("benchmark.datasets")
    datasets.DATASETS = {}
    monkeypatch.setitem(sys.modules, "benchmark", types.ModuleType("benchmark"))
    monkeypatch.setitem(sys.modules, "benchmark.datasets", datasets)
    return datasets.DATASETS


def runner(algorithm, name, queries, count, groups, search="knn", rebuild=False):
    """The calls of the project's runner, in its order; what it stores of each group."""
    assert algorithm.track() == "T1"
    stored = []
    try:
        before = algorithm.get_memory_usage()
        if rebuild or not algorithm.load_index(name):
            algorithm.fit(name)
        assert np.isfinite(algorithm.get_memory_usage() - before)
        for group in groups or [[]]:
            if group:
                algorithm.set_query_arguments(*group)
            if search == "knn":
                algorithm.query(queries, count)
                results = algorithm.get_results()
                assert results.shape == (len(queries), count)
            else:
                algorithm.range_query(queries, count)
                results = algorithm.get_range_results()
            stored.append((str(algorithm), results, algorithm.get_additional()))
    finally:
        algorithm.done()
    return stored


@pytest.mark.parametrize(
    "metric, dtype",
    [("euclidean", "uint8"), ("euclidean", "int8"), ("euclidean", "float32"), ("ip", "float32"), ("ip", "int8"),
     ("angular", "float32")],
)  # fmt: skip
def test_the_runners_calls(tmp_path, project, metric, dtype):
    files = Files(tmp_path, dtype, metric)
    project["tiny-3K"] = files.dataset
    params = {"ring_bits": 32, "rankings": ["user", "server"], "folder": str(tmp_path / "indices"), "threads": 1}
    groups = [[{"ranking": "user"}], [{"batch": 5}], ['{"ranking": "server"}']]
    stored = runner(MippFlat(metric, params), "tiny-3K", files.q, K, groups)
    assert len({name for name, _, _ in stored}) == 3 and all(more["ring_bits"] == 32 for _, _, more in stored)

    algorithm = MippFlat(metric, params)
    assert algorithm.load_index("tiny-3K")
    try:
        encoding = algorithm._opened.config.encoding
        asked, _ = algorithm._asked(files.q)
        rows = files.x if metric != "angular" else files.x / np.linalg.norm(files.x, axis=1, keepdims=True)
        scores = encoding.encode_queries(asked).astype(np.int64) @ encoding.encode_rows(rows).astype(np.int64).T
    finally:
        algorithm.done()
    tenth = np.sort(scores, axis=1)[:, -K]
    truth = files.dataset().get_groundtruth(K)
    plain = recall_with_ties(np.argsort(-scores, axis=1, kind="stable")[:, :K], truth, K)
    for _, found, _ in stored:
        # exactly the nearest of the same integers, and so the same recall
        assert (np.take_along_axis(scores, found, axis=1).min(axis=1) == tenth).all()
        assert recall_with_ties(found, truth, K) == plain
    if dtype != "float32":  # whole numbers are kept as they are
        assert encoding.scale == (1.0,) and plain == 1
    assert plain >= 0.99


@pytest.mark.parametrize("metric, radius", [("euclidean", 160_000), ("ip", 450_000)])
def test_range_queries(tmp_path, project, metric, radius):
    files = Files(tmp_path, "uint8", metric)
    project["tiny"] = files.dataset
    params = {"folder": str(tmp_path / "indices"), "threads": 1}
    ((_, (lims, far, near), _), (_, (again, _, _), _)) = runner(
        MippFlat(metric, params), "tiny", files.q, radius, [[{}], [{"batch": 1}]], search="range"
    )
    expected = files.far < (radius if metric == "euclidean" else -radius)
    assert lims.tolist() == [0, *np.cumsum(expected.sum(axis=1))] == again.tolist() and lims[-1] > 20
    assert not expected.all()
    for i, row in enumerate(expected):
        part = slice(lims[i], lims[i + 1])
        assert near[part].tolist() == np.flatnonzero(row).tolist()
        np.testing.assert_array_equal(far[part], abs(files.far[i][row]))

    algorithm = MippFlat(metric, params)
    assert algorithm.load_index("tiny")
    for wrong in (float("nan"), "9", True):
        with pytest.raises(ParameterError, match="radius"):
            algorithm.range_query(files.q, wrong)
    algorithm.range_query(files.q[:0], radius)
    assert algorithm.get_range_results()[0].tolist() == [0]
    algorithm.cleanup()
    assert not (tmp_path / "indices" / algorithm.index_name("tiny")).exists()
    algorithm.cleanup()  # twice is harmless


def test_servers_ranking_has_no_range_queries(tmp_path, files):
    algorithm = MippFlat("euclidean", {"folder": str(tmp_path / "i"), "rankings": ["server"], "threads": 1})
    algorithm.fit(files.dataset())
    with pytest.raises(ParameterError, match="range queries"):
        algorithm.range_query(files.q, 9)
    with pytest.raises(ParameterError, match="ranking"):
        algorithm.set_query_arguments({"ranking": "user"})
    algorithm.done()


def test_a_build_that_was_cut_off_adds_nothing_twice(tmp_path, files, monkeypatch):
    monkeypatch.setattr(streaming, "batch_rows", lambda config: 700)

    class Stopped(FileDataset):
        def get_dataset_iterator(self, bs=512, split=(1, 0)):
            yield files.x[:1000]
            yield files.x[1000:2500]
            if self.passes:
                raise KeyboardInterrupt
            yield files.x[2500:]

    params = {"folder": str(tmp_path / "indices"), "threads": 1}
    data = Stopped(files.base, files.queries, files.truth, name="cut")
    algorithm = MippFlat("euclidean", params)
    data.passes = 1
    with pytest.raises(KeyboardInterrupt):
        algorithm.fit(data)
    with pytest.raises(ParameterError, match="fit or load_index"):
        algorithm.query(files.q, 1)
    assert not algorithm.load_index(data)  # not complete
    data.passes = 0
    for _ in range(2):  # to the end; and once more, complete
        algorithm.fit(data)
        owner = algorithm._opened.owner("owner")
        assert [batch.rows for batch in owner.batches()] == [700, 700, 700, 700, 200]
        algorithm.query(files.q, K)
        assert recall_with_ties(algorithm.get_results(), data.get_groundtruth(K), K) == 1
    with pytest.raises(DeploymentError, match="open elsewhere"):
        MippFlat("euclidean", params).fit(data)
    algorithm.done()
    # other rows under the same name
    write_bin(files.base, files.x[::-1])
    with pytest.raises(DeploymentError, match="other rows"):
        MippFlat("euclidean", params).fit(files.dataset("cut"))
    write_bin(files.base, files.x[:-1])
    with pytest.raises(DeploymentError, match="another rows"):
        MippFlat("euclidean", params).load_index(FileDataset(files.base, files.queries, name="cut"))
    facts = tmp_path / "indices" / algorithm.index_name(data) / "index.json"
    facts.write_text("[]")
    with pytest.raises(DeploymentError, match="damaged"):
        MippFlat("euclidean", params).load_index(data)


def test_a_build_that_was_cut_off_before_its_first_row(tmp_path, files):
    algorithm = MippFlat("euclidean", {"folder": str(tmp_path / "i"), "threads": 1})
    algorithm.fit(files.dataset())
    algorithm.done()
    place = tmp_path / "i" / algorithm.index_name(files.dataset())
    assert place.stat().st_mode & 0o777 == 0o700
    (place / "deployment" / "deployment.json").unlink()  # as if the folder were being made
    algorithm.fit(files.dataset())
    algorithm.query(files.x[:3], 1)
    assert algorithm.get_results()[:, 0].tolist() == [0, 1, 2]
    algorithm.done()
    other = MippFlat("euclidean", {"folder": str(tmp_path)})
    (tmp_path / other.index_name("x")).mkdir()
    (tmp_path / other.index_name("x") / "mine.txt").write_text("kept")
    with pytest.raises(DeploymentError, match="other files"):
        other.fit(files.dataset("x"))


def test_wrong_data_sets(tmp_path, project, files):
    algorithm = MippFlat("ip", {"folder": str(tmp_path / "indices")})
    project["tiny"] = files.dataset
    with pytest.raises(ParameterError, match="euclidean"):
        algorithm.fit("tiny")
    with pytest.raises(NotFoundError, match="no data set"):
        algorithm.load_index("other")
    with pytest.raises(DTypeError, match="data set"):
        algorithm.fit(3)
    project["../up"] = files.dataset
    with pytest.raises(ParameterError, match="letters"):
        algorithm.fit("../up")
    algorithm = MippFlat("euclidean", {"folder": str(tmp_path / "indices")})

    broken_ones = []

    def broken(error=None, blocks=(), **facts):
        made = files.dataset(f"broken-{len(broken_ones)}")
        broken_ones.append(made)

        def iterator(bs):
            yield from blocks
            if error is not None:
                raise error

        made.get_dataset_iterator, made.get_dataset_fn = iterator, lambda: str(tmp_path / "base.u8bin")
        vars(made).update(facts)
        return made

    for kind, error, made in [
        (NotFoundError, "cannot be read", broken(RuntimeError("file not found"))),
        (ParameterError, "cannot be read", broken(AssertionError())),
        (ShapeError, "3000 rows are declared, and 5 come", broken(blocks=[files.x[:5]])),
        (ShapeError, "more come", broken(blocks=[files.x, files.x[:1]])),
        (ShapeError, "a block of shape", broken(blocks=[files.x[:, :3]])),
        (DTypeError, "real numbers", broken(blocks=[files.x.astype(str)])),
        (ShapeError, "has 3001", broken(nb=3001)),
        (ParameterError, "one or more", broken(nb=0)),
        (NotFoundError, "none.u8bin", broken()),
    ]:
        if error == "none.u8bin":
            made.get_dataset_fn = lambda: str(tmp_path / "none.u8bin")
        with pytest.raises(kind, match=error):
            algorithm.fit(made)
    bad = files.x.astype(np.float32)
    bad[2000, 3] = np.nan
    made = broken(blocks=[bad[:1500], bad[1500:]])
    with pytest.raises(EncodingError, match="row 2000"):
        algorithm.fit(made)
    left = [path.name for path in (tmp_path / "indices" / algorithm.index_name(made)).iterdir()]
    assert "deployment" not in left and "index.json" not in left  # found before anything was written


def test_a_missing_project(tmp_path):
    with pytest.raises(NotFoundError, match="cannot be imported"):
        MippFlat("ip", {"folder": str(tmp_path)}).fit("bigann-10M")


@pytest.mark.parametrize(
    "params",
    [{"ring": 32}, {"ring_bits": 8}, {"ring_bits": True}, {"rankings": "user"}, {"rankings": ["threshold"]},
     {"rankings": []}, {"rankings": ["user", "user"]}, {"rankings": [[]]}, {"threads": 0}, {"sample": -1},
     {"folder": 3}, "{", [3]],
)  # fmt: skip
def test_wrong_index_parameters(params):
    with pytest.raises(ParameterError):
        MippFlat("ip", params)


def test_wrong_arguments():
    for metric in ("hamming", None, ["ip"], "x" * 1000):
        with pytest.raises(ParameterError, match="metric"):
            MippFlat(metric)
    algorithm = MippFlat("ip")
    for wrong in ({"nprobe": 3}, {"batch": -1}, {"batch": 1.5}, {"ranking": "server"}, {"ranking": []}, "x", [1]):
        with pytest.raises(ParameterError):
            algorithm.set_query_arguments(wrong)
    algorithm.set_query_arguments()
    assert algorithm.get_additional() == {}
    with pytest.raises(ParameterError, match="secret keys"):
        algorithm.index_files_to_store("x")
    algorithm.cleanup()


def test_base_class_where_the_project_is(project, monkeypatch):
    base = types.ModuleType("benchmark.algorithms.base")
    base.BaseANN = type("BaseANN", (), {})
    monkeypatch.setitem(sys.modules, "benchmark.algorithms", types.ModuleType("benchmark.algorithms"))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    name = "mipp.compat.big_ann_benchmarks.module"
    monkeypatch.delitem(sys.modules, name)
    assert issubclass(importlib.import_module(name).MippFlat, base.BaseANN)
    monkeypatch.undo()
    importlib.import_module("mipp.compat.big_ann_benchmarks").module = sys.modules[name]


def test_the_configuration_names_what_is_there():
    yaml = pytest.importorskip("yaml")
    folder = importlib.resources.files("mipp.compat.big_ann_benchmarks")
    (entry,) = yaml.safe_load((folder / "algos.yaml").read_text())["bigann-10M"].values()
    assert getattr(importlib.import_module(entry["module"]), entry["constructor"]) is MippFlat
    assert entry["base-args"] == ["@metric"] and entry["docker-tag"].startswith("billion-scale-benchmark")
    for group in entry["run-groups"].values():
        for params in json.loads(group["args"]):
            algorithm = MippFlat("euclidean", params)
            for arguments in json.loads(group["query-args"]):
                algorithm.set_query_arguments(arguments)
    assert "mipp.compat.big_ann_benchmarks" in (folder / "Dockerfile").read_text()


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command(tmp_path, files):
    pytest.importorskip("matplotlib")
    given = files.base, files.queries, files.truth, "--index", tmp_path / "indices", "--threads", 1
    plot = tmp_path / "plot.png"
    several = "--ranking", "user", "--ranking", "server", "--batch", 0, "--batch", 4
    first = run(*given, *several, "--plot", plot, "--json")
    assert first.exit_code == 0, first.output
    found = [json.loads(line) for line in first.stdout.splitlines()]
    assert [(f["ranking"], f["batch"], f["recall"]) for f in found] == [
        ("user", 0, 1.0), ("user", 4, 1.0), ("server", 0, 1.0), ("server", 4, 1.0),
    ]  # fmt: skip
    assert all(f["build_seconds"] > 0 < f["queries_per_second"] for f in found)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "searching an encoding" in first.stderr and first.stderr.endswith(f"{plot} written\n")
    again = run(*given, *several[:4], "-k", 5)  # the index is used again
    assert (
        again.exit_code == 0
        and "recall@5 1.0000" in again.output
        and "index opened" in again.output
        and "built in" not in again.output
        and not again.stderr
    )


def test_the_command_refuses(tmp_path, files, monkeypatch):
    def refused(*arguments):
        result = run(*arguments, "--index", tmp_path / "indices")
        assert result.exit_code == 1 and result.output.count("\n") == 1 and result.output.startswith("mipp: ")
        assert not (tmp_path / "indices").exists()
        return result.output

    given = files.base, files.queries, files.truth
    assert "no such file" in refused(tmp_path / "none.fbin", *given[1:])
    assert ".png or .svg" in refused(*given, "--plot", tmp_path / "plot.txt")
    assert "cannot be written" in refused(*given, "--plot", tmp_path / "none" / "plot.png")
    assert "fewer than 21" in refused(*given, "-k", 21)
    assert "once" in refused(*given, "--ranking", "user", "--ranking", "user")
    wide = write_bin(tmp_path / "wide.u8bin", np.zeros((3, 5), np.uint8))
    assert "queries of 5 numbers" in refused(files.base, wide, files.truth)
    short = tmp_path / "short.ibin"
    short.write_bytes(np.array([1, 1, 0], "<u4").tobytes())
    assert "neighbours of 1 queries" in refused(files.base, files.queries, short)
    short.write_bytes(np.array([QUERIES, 1, *[ROWS] * QUERIES], "<u4").tobytes())
    assert "below 3000" in refused(files.base, files.queries, short)
    short.write_bytes(np.array([QUERIES + 1, 1, *[0] * (QUERIES + 1)], "<u4").tobytes())
    assert f"neighbours of {QUERIES + 1} queries" in refused(files.base, files.queries, short)
    assert "holds vectors, not true neighbours" in refused(files.base, files.queries, files.queries)
    short.write_bytes(files.queries.read_bytes())  # under the right name, with the wrong size
    assert "bytes of ids" in refused(files.base, files.queries, short)
    files.base.write_bytes(files.base.read_bytes()[:-1])
    assert "truncated" in refused(*given)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib" in refused(*given, "--plot", tmp_path / "plot.png")


def test_measurements_can_fail(tmp_path, files, monkeypatch):
    monkeypatch.setattr(MippFlat, "get_results", lambda self: np.tile(np.arange(K), (QUERIES, 1)))
    (found,) = measure_files(files.dataset(), folder=str(tmp_path / "i"), threads=1)
    assert found["recall"] < 0.2
    with pytest.raises(ParameterError, match="true neighbours"):
        measure_files(FileDataset(files.base, files.queries))
    for options in ({"k": 0}, {"runs": 0}):
        with pytest.raises(ParameterError):
            measure_files(files.dataset(), **options)


def test_recall_counts_ties_that_are_listed():
    near = np.array([[4, 7, 9]], np.uint32)
    assert recall_with_ties(np.array([[9, 4]]), Truth(near, None), 2) == 0.5
    for far in ([1.0, 2.0, 2.0], [3.0, 2.0, 2.0], [-3.0, -2.0, -2.0]):
        truth = Truth(near, np.array([far], np.float32))
        assert recall_with_ties(np.array([[9, 4]]), truth, 2) == 1.0
        assert recall_with_ties(np.array([[-1, 4]]), truth, 2) == 0.5


def test_hostile_names_in_plots(tmp_path):
    pytest.importorskip("matplotlib")
    plot_recall(tmp_path / "a.svg", [("$\\frac{$\x1b<script>", 0.5, 2.0)], k=1, title="$\\bad{" + "x" * 10_000)
    assert b"<script>" not in (tmp_path / "a.svg").read_bytes()
    with pytest.raises(MippError, match="a measurement"):
        plot_recall(tmp_path / "a.svg", [], k=1)


def test_metrics_are_those_of_the_project():
    assert set(METRICS) == {"euclidean", "ip", "angular"}
