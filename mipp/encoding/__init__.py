"""Features to ring integers: encodings, projections, and fitting them to a public sample."""

from .encoding import Encoding
from .finest import finest
from .parameters import METRICS
from .projection import Projection, pca, rotation
from .tuning import Tuning, recall, tune

__all__ = ["METRICS", "Encoding", "Projection", "Tuning", "finest", "fit", "pca", "recall", "rotation", "tune"]

fit = Encoding.fit
