"""Oracle of sums of squares over shares, in plain integers: rows are lists, hints (carry, msb, delta) per place."""

MASK = 2**64 - 1


def mask_of(k, r1, r2):
    """r, and the hints of one place."""
    r = (r1 + r2) % 2**k
    return r, (int(r1 + r2 >= 2**k), r >> k - 1, r - 2 ** (k - 1) if r >> k - 1 else 0)


def masked(k, x, r):
    """What both clouds know of x."""
    return (x + 2 ** (k - 2) + r) % 2**k


def deal(k, r1, r2, weights):
    """One row: its sum, and the hints of every place."""
    places = [mask_of(k, a, b) for a, b in zip(r1, r2, strict=True)]
    total = sum(w * r * r for w, (r, _) in zip(weights, places, strict=True))
    return total & MASK, [hints for _, hints in places]


def share(k, m, r, weights, first, hints):
    """One row of a cloud that holds r1 (first) or r2 and shares of the hints, or None."""
    total = 0
    for j, (mj, rj, w) in enumerate(zip(m, r, weights, strict=True)):
        top, mu = mj >> k - 1, mj - 2 ** (k - 2)
        term = first * mu * mu - 2 * mu * rj
        if hints is not None:
            c, h, d = hints[j]
            term += (mu * (c + (1 - top) * h) - (1 - top) * d) * 2 ** (k + 1)
        total += w * term
    return total & MASK


def total(x, weights):
    """What the three sums add up to."""
    return sum(w * v * v for v, w in zip(x, weights, strict=True))
