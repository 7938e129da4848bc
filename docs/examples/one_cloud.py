"""One cloud and a key centre: queries are encrypted under lattice keys (Ring-LWE, post-quantum), the user ranks."""

import tempfile

import numpy as np

import mipp

rng = np.random.default_rng(0)
vectors = rng.normal(size=(2000, 64)).astype(np.float32)  # one row an image, for example from CLIP
query = vectors[1500] + rng.normal(scale=0.1, size=64).astype(np.float32)

# Up to 128 words a row and 20 bits of score are quick. Scales come from a public sample: every party sees them.
encoding = mipp.Encoding.fit("cosine", vectors[:200])

with (
    tempfile.TemporaryDirectory() as folder,
    mipp.Deployment.create(folder + "/index", encoding, clouds=1) as deployment,
):
    anna, berta = deployment.create_owner("anna"), deployment.create_owner("berta")
    anna.add_vectors(vectors[:1200])
    berta.add_vectors(vectors[1200:])
    ulla = deployment.create_user("ulla")
    for owner in (anna, berta):
        owner.grant(ulla, quota=10)  # ulla may have all scores, ten times; the servers cannot rank

    # What it will take. The servers see ciphertexts; one of them alone has nothing of a row either.
    cost = ulla.cost()["user"]
    result = ulla.search(query, k=10)
    assert result.hits[0].owner_name == "berta" and result.hits[0].row == 300

    # ulla compares with a threshold by herself.
    near = ulla.range_search(query, 0.9)
    assert [hit.id for hit in near] == [result.hits[0].id]

    # The encrypted ranking equals the ranking of the quantised vectors, row for row.
    scores = encoding.encode_queries(query[None]).astype(np.int64) @ encoding.encode_rows(vectors).astype(np.int64).T
    number = {"anna": 0, "berta": 1200}
    assert [hit.score for hit in result.hits] == sorted(scores[0].tolist(), reverse=True)[:10]
    assert all(scores[0, number[hit.owner_name] + hit.row] == hit.score for hit in result.hits)

    # From the next query on a user without a grant gets nothing more.
    berta.revoke(ulla)
    assert {hit.owner_name for hit in ulla.search(query, k=10).hits} == {"anna"}
    print(f"{cost['sent']:,} bytes to and {cost['received']:,} bytes from each of two servers")
    print("ten nearest:", [f"{hit.owner_name}:{hit.row}" for hit in result.hits])
