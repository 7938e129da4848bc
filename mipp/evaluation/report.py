"""Evaluations as files: JSON, plots of precision against recall and of hits by rank, and pages."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__, cpu
from ..errors import MissingExtraError, missing_extra
from ..io.files import replace_whole

__all__ = ["REPORT_FILES", "SCHEMA", "check_plots", "described", "has_plots", "save_report"]

SCHEMA = "mipp evaluation 1"
#: files that :func:`save_report` writes
REPORT_FILES = ("evaluation.json", "precision_recall.png", "rank_hits.png")


#: libraries whose versions can change figures
_LIBRARIES = ("numpy", "numba", "pillow")


def described(result: Mapping[str, Any], *, command: str = "") -> dict[str, Any]:
    """Put beside a result what it was measured by and on.

    Parameters
    ----------
    result : mapping
        Of :func:`evaluate_images`, :func:`evaluate_labelled` or :func:`evaluate_neighbours`.
    command : str
        The command line that made it, if one did.

    Returns
    -------
    dict
        ``schema``, ``version`` of mipp, ``machine``, ``versions`` of libraries, ``created``, ``command``, and the
        result.

    Examples
    --------
    >>> from mipp.evaluation.report import described
    >>> found = described({"images": 4}, command="mipp evaluate")
    >>> found["schema"], found["command"], found["images"]
    ('mipp evaluation 1', 'mipp evaluate', 4)
    """
    machine = {"processor": _processor(), "machine": platform.machine(), "level": cpu.level(), "threads": cpu.threads()}
    versions = {"mipp": __version__, "python": platform.python_version()}
    found = {
        "schema": SCHEMA,
        "version": __version__,
        "machine": {"python": versions["python"], **machine},
        "versions": versions | {name: metadata.version(name) for name in _LIBRARIES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return found | ({"command": command} if command else {}) | dict(result)


def _processor() -> str:
    """The processor's model name, as Linux has it."""
    known = Path("/proc/cpuinfo")
    names = [line for line in known.read_text().splitlines() if line.startswith("model name")] if known.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or "unknown"


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
        Of :func:`evaluate_images`, :func:`evaluate_labelled` or :func:`evaluate_neighbours`, or of :func:`described`.
    folder : path
        Gets ``evaluation.json``, as :func:`described`, for this person's eyes alone (mode 0600), as labels and paths
        are in it; and, where there are curves, ``precision_recall.png`` and ``rank_hits.png``.
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
    target = folder / "evaluation.json"
    whole = result if "schema" in result else described(result)
    replace_whole(target, json.dumps(whole, default=str).encode() + b"\n", mode=0o600)
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
