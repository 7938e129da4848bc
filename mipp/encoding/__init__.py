"""Features to ring integers: encodings, projections, fitting them to a public sample; clusters of rows."""

from .clusters import Clusters
from .encoding import Encoding
from .finest import finest
from .parameters import METRICS
from .projection import Projection, pca, rotation
from .tuning import Tuning, recall, tune

__all__ = [
    "METRICS",
    "Clusters",
    "Encoding",
    "Projection",
    "Tuning",
    "finest",
    "fit",
    "pca",
    "recall",
    "rotation",
    "tune",
]

fit = Encoding.fit
