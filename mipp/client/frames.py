"""Data frames of results; pandas is optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import missing_extra

__all__ = ["frame"]


def frame(data: Any, columns: Sequence[str]) -> Any:
    """A pandas data frame with these columns, of dictionaries or of a dictionary of columns; MissingExtraError."""
    try:
        import pandas
    except ImportError:
        raise missing_extra("a data frame needs pandas", "notebook") from None
    return pandas.DataFrame(data, columns=list(columns))
