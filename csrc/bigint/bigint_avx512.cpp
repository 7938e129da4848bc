#include "algorithms.h"
#include "radix52.h"

namespace mipp {

const BigintKernels* bigint_kernels_avx512() { return kernels_of<Radix52>(); }

}  // namespace mipp
