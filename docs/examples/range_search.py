"""Range searches, grants with limits, and what a user meets when a limit is reached."""

import tempfile

import numpy as np

import mipp
from mipp.errors import AccessDeniedError

rng = np.random.default_rng(0)
vectors = rng.integers(0, 50, (500, 32)).astype(np.float32)
encoding = mipp.Encoding("l2", 32)  # whole numbers: distances are exact

with tempfile.TemporaryDirectory() as folder, mipp.Deployment.create(folder + "/index", encoding) as deployment:
    anna, berta = deployment.create_owner("anna"), deployment.create_owner("berta")
    anna.add_vectors(vectors[:300])
    berta.add_vectors(vectors[300:])
    ulla = deployment.create_user("ulla")

    # Range searches tell about scores, so an owner names them: a grant allows "server" alone otherwise.
    anna.grant(ulla, rankings=["server", "threshold"], quota=3, expiry="12h")
    berta.grant(ulla, rankings=["server"], max_k=5, scores=False, min_rows=100)

    # All rows within a squared distance. The servers compare; the user learns which rows, and no score.
    query, radius = vectors[7], 5000.0
    hits = ulla.range_search(query, radius, owners="anna")
    squared = ((vectors[:300] - query) ** 2).sum(axis=1)
    assert [hit.row for hit in hits] == np.flatnonzero(squared <= radius).tolist()
    assert all(hit.score is None for hit in hits)

    # Without owners= a search goes on without owners whose grants do not cover it, and says so.
    everywhere = ulla.range_search(query, radius)
    assert [left.owner_name for left in everywhere.left_out] == ["berta"]

    # berta's limits: at most 5 neighbours, and no scores for a search that includes her rows.
    nearest = ulla.search(query, k=5)
    assert len(nearest.hits) == 5 and nearest.hits[0].score is None
    try:
        ulla.search(query, k=6, owners="berta")
    except AccessDeniedError as error:
        print("refused:", error)

    # anna's quota of 3 queries is used up. Every server counts.
    try:
        ulla.search(query, k=5, owners="anna")
        raise AssertionError("the quota was not enforced")
    except AccessDeniedError as error:
        print("refused:", error)
    anna.grant(ulla, quota=10)  # a new grant replaces the old one and counts from zero
    assert ulla.search(query, k=1, owners=anna).hits[0].row == 7

    anna.revoke(ulla)  # from the next query on
    assert {hit.owner_name for hit in ulla.search(query, k=5).hits} == {"berta"}
