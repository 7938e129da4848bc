"""faiss's flat index with encrypted rows: `import mipp.compat.faiss as faiss` instead of `import faiss`."""

import tempfile
from pathlib import Path

import numpy as np

import mipp.compat.faiss as faiss

rng = np.random.default_rng(0)
rows = rng.integers(0, 256, (1000, 32)).astype("float32")
queries = rows[:5] + rng.integers(-3, 4, (5, 32)).astype("float32")

index = faiss.IndexFlatL2(32)
index.train(rows[:200])  # a public sample; without it the first add fits the encoding to private rows
index.add(rows[:600], owner="anna")  # `owner` is beyond faiss: each owner has keys of its own
index.add(rows[600:], owner="berta")
assert index.ntotal == 1000

D, I = index.search(queries, 10)
distances = ((queries[:, None] - rows) ** 2).sum(axis=2)
assert np.array_equal(D, np.sort(distances, axis=1)[:, :10])  # whole numbers: exact
assert (I[:, 0] == np.arange(5)).all()

index.remove_ids(np.array([0, 1]))
assert index.search(queries[2:3], 1)[1][0, 0] == 0  # later rows move up, as in faiss

with tempfile.TemporaryDirectory() as folder:
    path = str(Path(folder) / "index.mipp")
    faiss.write_index(index, path)  # this file holds all secret keys; its mode is 0600
    assert faiss.read_index(path).ntotal == 998

# The servers rank: the caller learns the ten nearest and no other score.
private = faiss.IndexFlatL2(32, ranking="server")
private.train(rows[:200])
private.add(rows)
assert (private.search(queries, 10)[0] == D).all()
print("nearest:", I[:, 0].tolist())
