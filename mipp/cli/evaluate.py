"""Commands that measure: accuracy of a descriptor or of vectors, and weights learnt from labels."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from ..encoding import METRICS
from ..errors import ParameterError, missing_extra
from ..features import DEFAULT
from ..io.vectors import SUFFIXES as VECTOR_SUFFIXES
from .common import (
    json_option,
    key_bits_option,
    labelled,
    own_text,
    progress,
    scheme_option,
    show,
    walked,
    warn_of_key_bits,
    window_option,
)  # fmt: skip
from .outputs import RegularFile, check_output_file, check_output_folder, warn
from .tables import print_table

__all__ = ["evaluate_command", "weights_command"]

_FILE = RegularFile()
_SAMPLE = 10000


@click.command("evaluate")
@click.option("--labels", type=_FILE, help="CSV file with columns path,label; with --vectors label alone, row by row.")
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Only images in this folder."
)
@click.option("--descriptor", default=DEFAULT, show_default=True, help="Features of images, parts joined by +.")
@click.option("--vectors", type=_FILE, help=f"Instead of images: rows ({', '.join(VECTOR_SUFFIXES)}).")
@click.option("--query-vectors", type=_FILE, help="With --vectors: queries; an .hdf5 file may hold them itself.")
@click.option(
    "--truth", type=_FILE, help="True neighbours of --query-vectors (.ivecs, .npy, .ibin); default: measured in float."
)
@click.option("--metric", type=click.Choice(METRICS), help="With --vectors; default l2, or what an .hdf5 file says.")
@click.option("--project", type=click.IntRange(1), help="With --vectors: to so many principal directions.")
@click.option(
    "--fit", "sample", type=_FILE, help="With --vectors: public vectors to fit on; default: some of the rows."
)
@click.option(
    "--clusters",
    type=click.IntRange(2),
    help="With --query-vectors: also what searches of so many clusters find. "
    "Centroids are made of --fit, else of some of the rows, which flatters a little.",
)
@click.option("--groups", type=click.IntRange(1), help="With --clusters: a query looks at one cluster in each.")
@click.option("--ring", type=click.Choice(["16", "32", "64"]), default="32", show_default=True)
@click.option("--bits", type=int, default=8, show_default=True, help="Bits of a stored feature of images.")
@click.option("--query-bits", type=int, default=8, show_default=True, help="Bits of a query feature of images.")
@click.option("--queries", type=click.IntRange(1), help="Only so many queries, evenly spread; default: every image.")
@window_option
@scheme_option
@key_bits_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="FILE.html: one page with figures, plots, classes, the best and worst queries; else a folder for "
    "evaluation.json and two plots (PNG).",
)
@click.option(
    "--plots/--no-plots",
    default=None,
    help="With --out FOLDER: draw plots; default: where matplotlib (extra plot) is installed.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path, exists=True),
    nargs=2,
    metavar="A B",
    help="Instead of all else: compare two evaluations (pages or folders of --out, evaluation.json, or files of "
    "--json).",
)
@json_option
@click.pass_context
def evaluate_command(
    context: click.Context,
    labels: Path | None,
    images: Path | None,
    descriptor: str,
    vectors: Path | None,
    query_vectors: Path | None,
    truth: Path | None,
    metric: str | None,
    project: int | None,
    sample: Path | None,
    clusters: int | None,
    groups: int | None,
    ring: str,
    bits: int,
    query_bits: int,
    queries: int | None,
    window: tuple[float, float] | None,
    scheme: str,
    key_bits: str,
    out: Path | None,
    plots: bool | None,
    compare: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Accuracy in float, quantised and encrypted: leave-one-out by labels, or recall of true neighbours.

    With --labels every image, or vector, is a query and is left out of its own ranking. With --vectors and queries, the
    share of true nearest neighbours that are found. Encodings are those of an index that users rank (``mipp init
    --ranking user``): where servers rank, scores have half the range.

    With --compare, differences of two evaluations, second less first, with 95 % intervals where both asked the same
    queries. Exit code 1 where they are not comparable.
    """
    from ..evaluation.evaluate import evaluate_images
    from ..evaluation.html import is_page, write_page
    from ..evaluation.pages import evaluation_page
    from ..evaluation.report import REPORT_FILES, check_plots, described, has_plots, save_report

    to_page = out is not None and is_page(out) and not out.is_dir()
    if compare is not None:
        others = [
            name for name in context.params
            if name not in ("compare", "out", "as_json")
            and context.get_parameter_source(name) is not ParameterSource.DEFAULT
        ]  # fmt: skip
        if others:
            raise click.UsageError("--compare goes with --out FILE.html and --json alone")
        if out is not None and not to_page:
            raise click.UsageError("--compare writes a page: --out FILE.html")
        _compare(_evaluation_file(compare[0]), _evaluation_file(compare[1]), out, as_json)
        return
    if vectors is None:
        if labels is None:
            raise click.UsageError("give --labels FILE, or --vectors FILE")
        if query_vectors or truth or metric or project or sample:
            raise click.UsageError("--query-vectors, --truth, --metric, --project and --fit go with --vectors")
    if (clusters is None) != (groups is None) or (clusters is not None and (vectors is None or labels is not None)):
        raise click.UsageError("--clusters and --groups go together, with --vectors and --query-vectors")
    if vectors is not None and (window is not None or images is not None):
        raise click.UsageError("--window and --images are for images")
    if out is not None and to_page:
        if plots is not None:
            raise click.UsageError("--plots and --no-plots are for a folder; a page has its own plots")
        _check_page(out, labels, vectors, query_vectors, truth, sample)
    elif out is not None:
        check_output_folder(out)
        if out.is_dir() and (others := sorted({path.name for path in out.iterdir()} - set(REPORT_FILES))):
            raise ParameterError(f"{out} holds {others[0][:100]}, which is no file of a report; name a new folder")
        for name in REPORT_FILES:
            if os.path.lexists(out / name):
                check_output_file(out / name)
    if out is not None and plots and labels is not None:
        check_plots()  # said before the work, not after it
    warn_of_key_bits(scheme)
    options: dict[str, Any] = {"scheme": scheme, "key_bits": int(key_bits)}
    if vectors is not None:
        result = _evaluate_vectors(
            vectors, query_vectors, truth, labels, metric, project, sample, int(ring), queries or 0, options,
            None if clusters is None or groups is None else (clusters, groups), as_json,
        )  # fmt: skip
    else:
        items = labelled(labels or Path(), images)
        with progress("evaluate", len(items) + (queries or len(items)), as_json) as advance:
            result = evaluate_images(
                items, descriptor, ring_bits=int(ring), bits=bits, query_bits=query_bits, queries=queries or 0,
                window=window, progress=advance, **options,
            )  # fmt: skip
    whole = described(result, command=shlex.join(["mipp", *sys.argv[1:]]))
    files: list[Path] = []
    if out is not None and to_page:
        write_page(out, evaluation_page(whole, window=window))
        files = [out]
    elif out is not None:
        files = save_report(whole, out, plots=has_plots() if plots is None else plots)
    if files and not to_page and plots is None and "curves" in result and not has_plots():
        warn(str(missing_extra("no plots were drawn; they need matplotlib", "plot")))
    # the same for each run of one evaluation; --out has the rest
    shown = {name: value for name, value in whole.items() if name not in ("curves", "created", "command")}
    show(shown | ({"files": [str(f) for f in files]} if files else {}), as_json, lambda: _lines(result, files))


def _evaluation_file(path: Path) -> Path:
    """The file of an evaluation: ``path`` itself, or what --out wrote into that folder."""
    if path.is_dir():
        path /= "evaluation.json"
        if not path.is_file():
            raise ParameterError(f"{path.parent} is a folder without evaluation.json, which mipp evaluate --out writes")
    found: Path = _FILE.convert(str(path), None, click.get_current_context())
    return found


def _check_page(out: Path, *inputs: Path | None) -> None:
    """ParameterError for a page that cannot be written, or that would take the place of an input."""
    check_output_file(out)
    if out.exists() and any(path is not None and out.samefile(path) for path in inputs):
        raise ParameterError(f"{out} would overwrite a file that is read")


def _compare(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    from ..evaluation.compare import COLUMNS, compare, comparison_page, comparison_rows, load_evaluation
    from ..evaluation.html import write_page

    if out is not None:
        _check_page(out, first, second)
    sides = load_evaluation(first), load_evaluation(second)
    found = compare(*sides)
    if out is not None:
        write_page(out, comparison_page(found, *sides, (str(first), str(second))))
    if not as_json:
        print_table(COLUMNS, comparison_rows(found))
    said = "; ".join(found["reasons"])
    show(found | ({"files": [str(out)]} if out is not None else {}), as_json, lambda: [
        f"A: {first}; B: {second}",
        *([f"note: {said}"] if found["comparable"] and said else []),
        *([f"not comparable: {said}"] if not found["comparable"] else []),
        *([f"wrote {out}"] if out is not None else []),
    ])  # fmt: skip
    if not found["comparable"]:
        sys.exit(1)


def _evaluate_vectors(
    path: Path,
    query_path: Path | None,
    truth_path: Path | None,
    labels: Path | None,
    metric: str | None,
    project: int | None,
    sample_path: Path | None,
    ring: int,
    queries: int,
    options: dict[str, Any],
    clusters: tuple[int, int] | None,
    as_json: bool,
) -> dict[str, Any]:
    from ..encoding import Encoding, tune
    from ..encoding.clusters import Clusters
    from ..evaluation.clusters import evaluate_clusters
    from ..evaluation.evaluate import evaluate_labelled, evaluate_neighbours
    from ..io.benchmark import load_benchmark, load_truth
    from ..io.hdf5 import SUFFIXES as HDF5_SUFFIXES
    from ..io.labels import load_row_labels
    from ..io.vectors import load_vectors

    asked = truth = None
    if path.suffix.lower() in HDF5_SUFFIXES and labels is None and query_path is None:
        benchmark = load_benchmark(path)
        rows, asked, truth = benchmark.train, benchmark.test, benchmark.neighbours
        metric = metric or benchmark.metric
    else:
        rows = load_vectors(path)
        asked = None if query_path is None else load_vectors(query_path)
        truth = None if truth_path is None else load_truth(truth_path).neighbours
    if (asked is None) == (labels is None):
        raise click.UsageError("--vectors needs either --labels or --query-vectors")
    metric = metric or "l2"
    if sample_path is not None:
        sample = np.asarray(load_vectors(sample_path))
    else:
        sample = np.asarray(rows[:: max(1, len(rows) // _SAMPLE)])
    if metric in ("l1", "hamming"):
        levels = int(max(np.max(part) for part in (rows, asked) if part is not None)) + 1
        encoding = Encoding(metric, rows.shape[1], ring_bits=ring, levels=levels if metric == "l1" else 0)
    else:
        encoding = tune(metric, sample, ring_bits=ring, out_dim=project or 0, k=min(10, len(sample) // 2)).encoding
    data = np.asarray(rows)
    if labels is not None:
        of_rows = np.array(load_row_labels(labels))
        with progress("search", queries or len(data), as_json) as advance:
            return evaluate_labelled(data, of_rows, encoding, queries=queries, progress=advance, **options)
    found = np.asarray(asked)
    if queries:
        if queries > len(found):
            raise ParameterError(f"there are {len(found)} queries, not {queries}")
        chosen = np.arange(queries) * len(found) // queries
        found, truth = found[chosen], None if truth is None else truth[chosen]
    # before the work: public rows may be too few
    dealt = None if clusters is None else Clusters.fit(encoding, sample, *clusters)
    with progress("search", len(found), as_json) as advance:
        result = evaluate_neighbours(data, found, encoding, truth=truth, progress=advance, **options)
    if dealt is not None:
        result["clusters"] = evaluate_clusters(data, found, encoding, dealt, min(10, len(data)))
    return result


def _lines(result: dict[str, Any], files: list[Path]) -> list[str]:
    from ..evaluation.details import KINDS
    from ..evaluation.pages import MEASURES, measure_names

    columns = measure_names(result)
    intervals = [
        (end, [result["intervals"]["encrypted"][name][i] for name in columns]) for i, end in enumerate(("from", "to"))
    ]
    what = result.get("descriptor") or f"{result['metric']} vectors"
    return [
        f"{what}: {result['images']} images, {result['dim']} stored words of {result['ring']} bits each "
        f"({result['bytes']:,} bytes a cloud), {result['queries']} queries, {result['scheme']} scheme",
        *(f"left out {path}: {own_text(path, text)}" for path, text in result.get("errors", ())),
        f"{'':10}" + "".join(f"{MEASURES[name][0]:>12}" for name in columns),
        *(f"{kind:10}" + "".join(f"{result[kind][name]:12.4f}" for name in columns) for kind in KINDS),
        # 95 % intervals; of one query there are none
        *(f"95 % {end:5}" + "".join(f"{value:12.4f}" for value in ends) for end, ends in intervals if None not in ends),
        *(
            f"clusters: {c['clusters']} in {c['groups']} groups find {c['recall']:.4f} of the {c['k']} nearest (worst "
            f"query {c['least']:.2f}); servers rank {c['ranked']:.3f} of the rows"
            for c in ([result["clusters"]] if "clusters" in result else [])
        ),
        f"quantised and encrypted scores identical: {'yes' if result['identical'] else 'NO'}",
        *(f"wrote {path}" for path in files),
    ]


@click.command("learn-weights")
@click.option("--labels", type=_FILE, help="CSV file with columns path,label: public images.")
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Or: public images without labels."
)
@click.option("--descriptor", default=DEFAULT, show_default=True, help="Parts joined by +; their weights are learnt.")
@json_option
def weights_command(labels: Path | None, images: Path | None, descriptor: str, as_json: bool) -> None:
    """Weights of a fused descriptor, from public images.

    With --labels, those with the best accuracy; the figure on these images is in-sample: measure on others. With
    --images, those under which all parts have an equal say. Prints the spec to make an index with.
    """
    from .. import features
    from ..evaluation.learning import learn_weights

    if (labels is None) == (images is None):
        raise click.UsageError("give either --labels FILE or --images FOLDER")
    items = labelled(labels, None) if labels is not None else [(path, "") for path in walked(images or Path())[0]]
    parts = [features.get(part.rpartition("*")[2]) for part in features.get(descriptor).name.split("+")]
    values: list[np.ndarray] = []
    kept: list[int] = []
    with progress("extract", len(items) * len(parts), as_json) as advance:
        for part in parts:
            got = features.extract([path for path, _ in items], part, progress=advance)
            if values and got.kept.tolist() != kept:
                raise ParameterError("some images can be read for one part and not for another; leave them out")
            values.append(got.values)
            kept = got.kept.tolist()
    data: dict[str, Any] = {"images": len(kept)}
    if labels is None:
        data["descriptor"] = features.fuse(parts, features.scale_weights(parts, values)).name
    else:
        fused, data["map"] = learn_weights(parts, values, [items[i][1] for i in kept])
        data["descriptor"] = fused.name
    show(data, as_json, lambda: [
        data["descriptor"],
        f"mAP {data['map']:.4f} on these {len(kept)} images, in-sample" if "map" in data
        else f"an equal say for all parts on these {len(kept)} images",
    ])  # fmt: skip
