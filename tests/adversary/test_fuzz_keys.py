"""Keys of private retrieval from strangers: refused with the error that is promised, or answered; never more memory."""

import numpy as np
from hypothesis import strategies as st

from mipp import pir
from mipp.errors import MessageError, ParameterError
from tests.adversary.fuzz import Reading, changed, fuzz, modes


@modes
def test_keys(times):
    rows = 1000
    database = pir.Database(np.arange(rows * 8, dtype=np.uint64).view(np.uint8).reshape(rows, 64), threads=1)
    seeds = [key for n in (1, 128, 129, rows, 2**20) for key in pir.generate_keys(n - 1, n)]
    reading = Reading(MessageError, ParameterError)

    def check(key):
        answer = reading(database.answer, key)
        assert answer is None or len(answer) == database.record_bytes

    fuzz(changed(seeds) | st.binary(max_size=600), check, 3000 * times)
    assert 0 < reading.refused < reading.calls
