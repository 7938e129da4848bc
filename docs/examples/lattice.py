"""Rows times an encrypted vector with `mipp.lattice` alone: post-quantum, exact, without a deployment.

A server multiplies its rows with a vector that it cannot read. The key's owner learns the products, and nothing else of
the rows. (In a deployment the rows are shares, and the answers of two servers are added.)
"""

import os

import numpy as np

from mipp.lattice import EncryptedVector, Parameters, SecretKey, decrypt, encrypt, matvec

LARGEST, DIM = 63, 64
rng = np.random.default_rng(0)
rows = rng.integers(-LARGEST, LARGEST + 1, (5000, DIM))  # the server's
vector = rng.integers(-LARGEST, LARGEST + 1, DIM)  # the user's, secret

# Both: parameters that hold every product as a signed number.
score_bits = (DIM * LARGEST**2).bit_length() + 1
parameters = Parameters.choose(coordinates=DIM, score_bits=score_bits, ring_bits=32)
bits, limit = parameters.security()
assert bits <= limit  # 128 bits against quantum computers, by the Homomorphic Encryption Security Standard
print(f"{parameters.name}: {score_bits} bits of score, a modulus of {bits} bits, at most {limit}")

# The user: a key for this vector alone, and what is sent, uint64 words.
key = SecretKey.generate(parameters)
sent = encrypt(key, vector).to_words()

# The server: `noise_key` is its own secret, which hides all but the products. `context` names these rows and this
# vector, and must never come again with others.
received = EncryptedVector.from_words(parameters, DIM, sent)
answer = matvec(rows.astype(np.uint32), received, noise_key=os.urandom(32), context=os.urandom(32))
assert answer.nbytes / len(rows) < 20

# The user: all products, exactly.
products, noise = decrypt(key, answer, rows=len(rows))
assert (products == rows @ vector).all() and noise.bits_left > 0
print(f"{sent.nbytes:,} bytes sent, {answer.nbytes:,} bytes back; largest products: {np.sort(products)[::-1][:3]}")
