"""python-paillier's interface with batches: `import mipp.compat.phe as phe` instead of `import phe`."""

import numpy as np

import mipp.compat.phe as phe

# 1024 bits keep this example short. Use the default, 3072, for real data.
public_key, private_key = phe.generate_paillier_keypair(n_length=1024)

# What a program does with phe today works unchanged.
one = public_key.encrypt(3.5)
assert private_key.decrypt(one * 2 + 1) == 8.0

# A batch goes through native kernels on all cores.
query = public_key.encrypt_batch([3, -1, 0.5, 7])
assert private_key.decrypt_batch(query) == [3, -1, 0.5, 7]

# Encrypted query times plain rows: who computes it learns neither the query nor the scores.
rows = np.array([[2, 7, 1, 0], [0, -1, 4, 2], [4, 4, 0, -3]], dtype=np.int8)
scores = phe.dot(query, rows.T)
assert private_key.decrypt_batch(scores) == (rows @ np.array([3, -1, 0.5, 7])).tolist()

# Results of arithmetic are obfuscated before they are handed on, as with phe.
for score in scores:
    score.obfuscate()
print(private_key.decrypt_batch(scores))
