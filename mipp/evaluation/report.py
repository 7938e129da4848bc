"""Evaluations as files: JSON, and plots of precision against recall and of hits by rank."""

from __future__ import annotations

import io
import json
import platform
from pathlib import Path
from typing import Any

from .. import __version__, cpu
from ..errors import MissingExtraError, missing_extra
from ..io.files import replace_whole

__all__ = ["REPORT_FILES", "SCHEMA", "check_plots", "has_plots", "save_report"]

SCHEMA = "mipp evaluation 1"
#: files that :func:`save_report` writes
REPORT_FILES = ("evaluation.json", "precision_recall.png", "rank_hits.png")


def check_plots() -> None:
    """Check that plots can be made. Call it before long work.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.

    Examples
    --------
    >>> from mipp.evaluation.report import check_plots, has_plots
    >>> if has_plots():
    ...     check_plots()
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing_extra("plots need matplotlib", "plot") from None


def has_plots() -> bool:
    """Tell whether plots can be made: whether matplotlib is installed.

    Returns
    -------
    bool

    Examples
    --------
    >>> from mipp.evaluation.report import has_plots
    >>> has_plots() in (True, False)
    True
    """
    try:
        check_plots()
    except MissingExtraError:
        return False
    return True


def save_report(result: dict[str, Any], folder: Path, *, plots: bool = True) -> list[Path]:
    """Write an evaluation into a folder, made if missing; files of an earlier one are replaced.

    Parameters
    ----------
    result : dict
        Of :func:`evaluate_images`, :func:`evaluate_labelled` or :func:`evaluate_neighbours`.
    folder : path
        Gets ``evaluation.json``: the result with ``schema``, ``version`` and ``machine``; and, where there are curves,
        ``precision_recall.png`` and ``rank_hits.png``.
    plots : bool
        Whether to draw them.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    MissingExtraError
        ``plots`` without matplotlib, before anything is written.
    ParameterError
        A file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.evaluation.report import save_report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_report({"images": 4, "queries": 2}, pathlib.Path(folder))]
    ['evaluation.json']
    """
    if plots and "curves" in result:
        check_plots()
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "level": cpu.level()}
    target = folder / "evaluation.json"
    whole = {"schema": SCHEMA, "version": __version__, "machine": machine} | result
    replace_whole(target, json.dumps(whole, indent=1, default=str).encode() + b"\n")
    written = [target]
    if plots and "curves" in result:
        title = f"{result.get('descriptor') or 'vectors'}, {result['images']} images, {result['queries']} queries"
        curves: dict[str, dict[str, list[float]]] = result["curves"]
        count = len(next(iter(curves.values()))["precision"])
        recalls = [i / (count - 1) for i in range(count)]
        figures = {kind: f"{kind}, mAP {result[kind]['map']:.3f}, P@10 {result[kind]['p10']:.3f}" for kind in curves}
        written.append(folder / "precision_recall.png")
        lines = [(figures[kind], recalls, curve["precision"]) for kind, curve in curves.items()]
        _plot(written[-1], title, "recall", "precision", lines)
        written.append(folder / "rank_hits.png")
        lines = [(kind, list(range(1, len(c["hits"]) + 1)), c["hits"]) for kind, c in curves.items()]
        _plot(written[-1], title, "rank k", "queries with a hit among the first k", lines)
    return written


def _plot(path: Path, title: str, x: str, y: str, lines: list[tuple[str, list[float], list[float]]]) -> None:
    # the object interface: no global state of pyplot, no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, xs, ys), style in zip(lines, ("-", "--"), strict=False):
        axes.plot(xs, ys, style, label=name)
    axes.set(title=title, xlabel=x, ylabel=y, ylim=(0, 1.02), xlim=(min(lines[0][1]), max(lines[0][1])))
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format="png")
    replace_whole(path, content.getvalue())
