"""Every form of encoding through the roles: hits and thresholds as in numpy, ranked by users and by servers."""

from __future__ import annotations

import numpy as np
import pytest

from mipp import Deployment, Encoding
from mipp.encoding import pca, tune
from mipp.evaluation.evaluate import plain_scores

RNG = np.random.default_rng(0)
X = RNG.gamma(1.0, 9.0, (120, 12))
WHOLE = RNG.integers(0, 32, (120, 12))


def forms():
    for ring in (16, 32):
        yield f"stepped-{ring}", X, tune("l2", X, ring_bits=ring, server_ranking=True).encoding
        yield f"projected-{ring}", X, tune("l2", X, ring_bits=ring, server_ranking=True, out_dim=6).encoding
        yield f"hellinger-{ring}", X, tune("hellinger", X, ring_bits=ring, server_ranking=True).encoding
    yield "weighted", WHOLE, Encoding("l2", 12, bits=7, offset=(16,) * 12, weights=tuple(range(1, 13)))
    yield "cosine-pca", X, Encoding("cosine", 12, projection=pca(X, 5, center=False))


FORMS = list(forms())


@pytest.mark.parametrize(("name", "rows", "encoding"), FORMS, ids=[form[0] for form in FORMS])
def test_search_and_threshold(tmp_path, name, rows, encoding):
    scores = plain_scores(encoding, rows, rows[:3])
    with Deployment.create(tmp_path / "d", encoding) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(rows)
        owner.grant(user.id, rankings=["server", "user", "threshold"])
        for i in range(3):
            want = np.argsort(-scores[i], kind="stable")[:8]
            for ranking in ("user", "server"):
                hits = user.search(rows[i], k=8, ranking=ranking).hits
                assert [hit.row for hit in hits] == want.tolist()
                assert [hit.score for hit in hits] == scores[i][want].tolist()
            value = float(encoding.values(scores[i : i + 1, want[4:5]], rows[i : i + 1])[0, 0])
            found = {hit.row for hit in user.range_search(rows[i], value)}
            assert found == set(np.flatnonzero(scores[i] >= scores[i][want[4]]))


def test_distances_are_in_the_metric_of_the_caller(tmp_path):
    encoding = tune("l2", X, ring_bits=16).encoding
    with Deployment.create(tmp_path / "d", encoding) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(X)
        owner.grant(user.id, rankings=["server", "user", "threshold"])
        hits = user.search(X[0], k=20, ranking="user").hits
        exact = ((X - X[0]) ** 2).sum(axis=1)
        got, want = np.array([h.value for h in hits]), exact[[h.row for h in hits]]
        assert np.abs(got - want).max() < 0.1 * want.max()
