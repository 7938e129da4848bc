// The kernels of the tier in force.
#pragma once

#include "pir_kernels.h"

namespace mipp {

struct PirKernels {
    decltype(&nodes_expand_u8_portable) expand;
    decltype(&leaves_convert_u8_portable) convert;
    decltype(&records_xor_u64_portable) add_records;
};

const PirKernels& pir_kernels();  // defined in pir.cpp

}  // namespace mipp
