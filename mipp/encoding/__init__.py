"""Features to ring integers: encodings, projections, and what fits them to a public sample."""

from .encoding import METRICS, Encoding
from .finest import finest
from .fit import Tuning, fit, recall, tune
from .projection import Projection, pca, rotation

__all__ = ["METRICS", "Encoding", "Projection", "Tuning", "finest", "fit", "pca", "recall", "rotation", "tune"]
