"""Learning weights of fused descriptors from public labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import ParameterError
from ..features import Descriptor, fuse
from ..features.base import squared
from . import metrics

__all__ = ["learn_weights"]

_STEPS = (2.0, 1.4, 1.2)
_LOW, _HIGH = 0.05, 20.0


def learn_weights(
    parts: Sequence[Descriptor], values: Sequence[npt.ArrayLike], labels: npt.ArrayLike
) -> tuple[Descriptor, float]:
    """Learn the weights of a fused descriptor with the best leave-one-out mAP on a **public** labelled sample.

    One weight after the other is raised and lowered, in ever smaller steps, from 1 each, for as long as it helps: a
    local optimum, the same for the same sample. The figure on the sample itself is in-sample; measure on other images.

    Parameters
    ----------
    parts : sequence of Descriptor
        As for :func:`mipp.features.fuse`, two or more.
    values : sequence of array_like
        (N, dim) values of each part, of the same images.
    labels : array_like
        (N,).

    Returns
    -------
    descriptor : Descriptor
        Its name holds the weights, which are public.
    score : float
        Its mAP on the sample.

    Raises
    ------
    ParameterError, DTypeError, ShapeError
        Fewer than two parts, values that do not fit them, no two images of one label.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import features
    >>> from mipp.evaluation.learning import learn_weights
    >>> parts = [features.get("cld"), features.get("ehd")]
    >>> shown = np.repeat([[0], [7]], 3, axis=0)  # the first part tells the labels apart, the second is noise
    >>> values = [np.tile(shown, 12), np.random.default_rng(0).integers(0, 8, (6, 80))]
    >>> descriptor, score = learn_weights(parts, values, ["a"] * 3 + ["b"] * 3)
    >>> score
    1.0
    """
    names = np.asarray(labels)
    if len(parts) < 2 or len(values) != len(parts):
        raise ParameterError("weights are learnt for two parts or more, with values for each")
    if names.ndim != 1 or len(np.unique(names)) == len(names):
        raise ParameterError("weights are learnt from labels that some images share")
    distances = []
    for part, sample in zip(parts, values, strict=True):
        # a fused descriptor of one part with weight 1 is the part itself, so take its l2 code by name
        single = part.with_code(part.fuse) if part.fuse else part
        if single.metric != "l2":
            raise ParameterError(f"{part.name} cannot be part of a fused descriptor: it has no l2 code for that")
        roots = np.sqrt(np.array(single.code.weights)) if single.code.weights else 1.0
        vectors = single.embed(sample) * roots
        if len(vectors) != len(names):
            raise ParameterError(f"{len(vectors)} values of {part.name} and {len(names)} labels do not fit")
        distances.append(squared(vectors, vectors) / single.code.unit)
    own = np.arange(len(names))
    relevant = names[:, None] == names[None]

    def score(weights: list[float]) -> float:
        total = -sum(w * d for w, d in zip(weights, distances, strict=True))
        ranking = metrics.ranking_from_scores(total, own)
        return float(np.nanmean(metrics.average_precision(np.take_along_axis(relevant, ranking, axis=1))))

    weights = [1.0] * len(parts)
    best = score(weights)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for i in range(len(weights)):
                for factor in (step, 1 / step):
                    trial = list(weights)
                    trial[i] = float(f"{trial[i] * factor:.3g}")
                    if not _LOW <= trial[i] <= _HIGH:
                        continue
                    found = score(trial)
                    if found > best + 1e-6:
                        weights, best, improved = trial, found, True
    return fuse(parts, weights), best
