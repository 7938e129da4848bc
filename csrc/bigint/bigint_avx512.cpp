#include "algorithms.h"
#include "radix52.h"

MIPP_DEFINE_BIGINT(bigint_kernels_avx512, Radix52)
