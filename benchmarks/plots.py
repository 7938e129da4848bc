"""PNG figures of the tools; matplotlib is needed for these alone."""

from __future__ import annotations

from pathlib import Path


def figure(columns: int = 1, rows: int = 1, **options):
    """A figure and its axes, drawn without a display; SystemExit in words where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("a plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, squeeze=False, layout="constrained", **options)


def save(made, path: Path) -> None:
    """Write and close it."""
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, dpi=120)
    pyplot.close(made)
    print("plot:", path)
