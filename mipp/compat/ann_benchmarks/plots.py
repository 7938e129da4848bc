"""Recall against throughput, as a plot (extra ``plot``)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import ParameterError
from ...evaluation.report import check_plots
from ...io.files import as_path, replace_whole, shown

__all__ = ["check_plot_file", "plot_recall"]


def check_plot_file(path: str | os.PathLike[str]) -> Path:
    """Check that a plot can be made and written. Call it before long work.

    Parameters
    ----------
    path : str or path
        The file, .png or .svg.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        Another suffix; a file that cannot be written.

    Examples
    --------
    >>> from mipp.compat.ann_benchmarks.plots import check_plot_file
    >>> check_plot_file("plot.txt")
    Traceback (most recent call last):
    ...
    mipp.errors.ParameterError: plot.txt: a plot is a .png or .svg file
    """
    file = as_path(path)
    if file.suffix.lower() not in (".png", ".svg"):
        raise ParameterError(f"{shown(file)}: a plot is a .png or .svg file")
    folder = file.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ParameterError(f"{shown(file)}: cannot be written (no folder {shown(folder)} to write to)")
    if file.exists() and not file.is_file():
        raise ParameterError(f"{shown(file)}: cannot be written (not a regular file)")
    check_plots()
    return file


def plot_recall(
    path: str | os.PathLike[str], points: Sequence[tuple[str, float, float]], *, k: int, title: str = ""
) -> None:
    """Draw recall against queries per second, one mark a measurement, as benchmarks of nearest neighbours do.

    Parameters
    ----------
    path : str or path
        .png or .svg file, written whole or not at all.
    points : sequence of (str, float, float)
        Name of the series, recall, queries per second. Points of one name are joined.
    k : int
        Neighbours, for the label.
    title : str
        Title; drawn as it is, not as a formula.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    ParameterError
        The file cannot be written; no points.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.compat.ann_benchmarks.plots import plot_recall
    >>> from mipp.evaluation.report import has_plots
    >>> if has_plots():
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         plot_recall(pathlib.Path(folder, "plot.png"), [("32, user", 1.0, 420.0)], k=10)
    """
    file = check_plot_file(path)
    if not points:
        raise ParameterError("a plot needs a measurement")
    # the object interface: no global state of pyplot, no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, name in enumerate(dict.fromkeys(point[0] for point in points)):
        some = sorted((recall, rate) for series, recall, rate in points if series == name)
        axes.plot([r for r, _ in some], [q for _, q in some], "osv^D*PX"[number % 8] + "-", label=_plain(name))
    least = min(recall for _, recall, _ in points)
    axes.set(xlabel=f"recall@{k}", ylabel="queries per second", yscale="log", xlim=(min(least, 0.9) - 0.02, 1.01))
    axes.set_title(_plain(title), fontsize="medium")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format=file.suffix[1:].lower())
    replace_whole(file, content.getvalue())


def _plain(text: str) -> str:
    """A text that matplotlib draws as it is: names of files may hold formulas and control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[-100:]).replace("$", r"\$")
