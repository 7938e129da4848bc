#include "algorithms.h"
#include "radix64.h"

MIPP_DEFINE_BIGINT(bigint_kernels_portable, Radix64)
