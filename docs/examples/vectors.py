"""Vectors from a model: two owners, ranking by the servers and by the user."""

import tempfile

import numpy as np

import mipp

rng = np.random.default_rng(0)
vectors = rng.normal(size=(2000, 128)).astype(np.float32)  # one row an image, for example from CLIP
queries = vectors[[700, 1500]] + rng.normal(scale=0.1, size=(2, 128)).astype(np.float32)

# Scales come from a public sample: every party sees the encoding.
encoding = mipp.Encoding.fit("cosine", vectors[:200])

with tempfile.TemporaryDirectory() as folder, mipp.Deployment.create(folder + "/index", encoding) as deployment:
    anna, berta = deployment.create_owner("anna"), deployment.create_owner("berta")
    anna.add_vectors(vectors[:1200])
    berta.add_vectors(vectors[1200:])
    ulla = deployment.create_user("ulla")
    for owner in (anna, berta):
        owner.grant(ulla, rankings=["server", "user"])

    # The servers find the ten nearest. No server learns a score, and the user learns these ten only.
    by_servers = ulla.search(queries[0], k=10)
    assert by_servers.hits[0].owner_name == "anna" and by_servers.hits[0].row == 700

    # The user gets all scores and ranks them. This is faster, and tells the user more.
    by_user = ulla.search(queries[0], k=10, ranking="user")
    assert [hit.id for hit in by_user.hits] == [hit.id for hit in by_servers.hits]

    # Many queries at once, as arrays: row numbers of the index, exact integer scores, cosines.
    found = ulla.nearest(queries, k=10, ranking="user")
    assert found.rows.shape == (2, 10) and found.values[0, 0] > 0.98

    # The encrypted ranking equals the ranking of the quantised vectors, row for row.
    rows = encoding.encode_rows(vectors).astype(np.int64)
    scores = encoding.encode_queries(queries).astype(np.int64) @ rows.T
    number = {id: i for i, id in enumerate(found.index.ids())}
    order = [number[batch.id, row] for owner in (anna, berta) for batch in owner.batches() for row in range(batch.rows)]
    for q in range(2):
        best = np.sort(scores[q])[::-1][:10]
        assert (found.scores[q] == best).all()
        assert (scores[q][np.argsort(order)][found.rows[q]] == best).all()
    print("ten nearest:", [f"{hit.owner_name}:{hit.row}" for hit in by_servers.hits])
