"""Oracles of the sharing kernels, in plain integers."""

import numpy as np


def combine(inputs, matrices, bits):
    """inputs: lists of integers, one each; matrices[i][a]: m x m. Returns one list per i."""
    m = len(matrices[0][0])
    outs = []
    for row in matrices:
        out = []
        for j in range(0, len(inputs[0]), m):
            for b in range(m):
                total = sum(
                    int(matrix[b][c]) * int(x[j + c]) for matrix, x in zip(row, inputs, strict=True) for c in range(m)
                )
                out.append(total % 2**bits)
        outs.append(out)
    return outs


def reconstruct(answers, bits):
    """Sums, read as signed."""
    scores = []
    for parts in zip(*answers, strict=True):
        total = sum(int(p) for p in parts) % 2**bits
        scores.append(total - 2**bits if total >> (bits - 1) else total)
    return scores


def top_k(scores, k):
    """Row numbers of the k largest, best first, ties by smaller row."""
    return sorted(range(len(scores)), key=lambda row: (-int(scores[row]), row))[:k]


def top_k_in_range(scores, k, low, high):
    """(row, score) of the k largest within [low, high], then of the others, which get score -2^63, by row."""
    inside = [row for row in range(len(scores)) if low <= int(scores[row]) <= high]
    outside = [(row, -(2**63)) for row in range(len(scores)) if not low <= int(scores[row]) <= high]
    best = sorted(inside, key=lambda row: (-int(scores[row]), row))
    return ([(row, int(scores[row])) for row in best] + outside)[:k]


def combine_wide(inputs, matrices):
    """The same map in wrapping 64-bit numpy, for larger arrays: 2^k divides 2^64."""
    m = matrices.shape[-1]
    stacked = np.stack([x.astype(np.uint64).reshape(-1, m) for x in inputs])
    wide = np.einsum("iabc,ajc->ijb", matrices.astype(np.uint64), stacked)
    return [w.reshape(inputs[0].shape).astype(inputs[0].dtype) for w in wide]


def pack(row, width, bits):
    """Words of ``bits`` bits that hold the low ``width`` bits of a query's score shares, a list of integers.

    Blocks of 512: as many lanes as words of a 64-byte line, in each every so-many-th word, low bits first. The rest
    has one lane.
    """
    lanes, out = 512 // bits, []
    whole = len(row) // 512 * 512
    for at in range(0, whole, 512):
        columns = [_joined(row[at + lane : at + 512 : lanes], width, bits) for lane in range(lanes)]
        out += [column[line] for line in range(width) for column in columns]
    return out + _joined(row[whole:], width, bits)


def _joined(values, width, bits):
    """The low bits of all values in one number, cut into words."""
    number = sum(int(value) % 2**width << i * width for i, value in enumerate(values))
    return [number >> at & 2**bits - 1 for at in range(0, len(values) * width, bits)]
