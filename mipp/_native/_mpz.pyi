from collections.abc import Sequence

import gmpy2
import numpy as np
import numpy.typing as npt

def to_limbs(values: Sequence[int | gmpy2.mpz], limbs: int) -> npt.NDArray[np.uint64]: ...
def from_limbs(array: npt.NDArray[np.uint64]) -> list[gmpy2.mpz]: ...
