#include "algorithms.h"
#include "radix64.h"

namespace mipp {

const BigintKernels* bigint_kernels_portable() { return kernels_of<Radix64>(); }

}  // namespace mipp
