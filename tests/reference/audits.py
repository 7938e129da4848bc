"""Linear combinations of rows modulo 2^61 - 1 with Python's integers."""

P = 2**61 - 1


def low(factor):
    """What counts of a coefficient or weight."""
    return int(factor) & P


def combined(rows, coefficients):
    return [
        sum(low(c) * int(row[j]) for row, c in zip(rows, coefficients, strict=True)) % P for j in range(rows.shape[1])
    ]


def tagged(rows, weights):
    return [sum(low(w) * int(x) for x, w in zip(row, weights, strict=True)) % P for row in rows]


def half_words(rows):
    """Rows as 32-bit words, from their bytes."""
    return [[int.from_bytes(row.tobytes()[i : i + 4], "little") for i in range(0, row.nbytes, 4)] for row in rows]
