// The kernels of the tier in force, and key schedules for one call.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/wipe.h"
#include "../prf/prf_kernels.h"
#include "compare.h"
#include "compare_kernels.h"

namespace mipp {

struct CompareKernels {
    decltype(&bits_slice_u16_portable) slice_u16;
    decltype(&bits_slice_u32_portable) slice_u32;
    decltype(&bits_slice_u64_portable) slice_u64;
    decltype(&gates_and_u64_portable) gates_and;
    decltype(&words_mask_u64_portable) mask;
    decltype(&words_gather_u64_portable) gather;
    decltype(&schedule_expand_u8_portable) schedule_expand;
    decltype(&keystream_fill_u8_portable) fill;
};

const CompareKernels& compare_kernels();  // in compare.cpp

// Schedules of one or two keys, wiped when they go.
class Schedules {
  public:
    explicit Schedules(const std::uint8_t* first, const std::uint8_t* second = nullptr) {
        std::uint8_t keys[64];
        std::memcpy(keys, first, 32);
        if (second != nullptr) std::memcpy(keys + 32, second, 32);
        compare_kernels().schedule_expand(keys, second == nullptr ? 1 : 2, data_);
        wipe(keys, sizeof keys);
    }
    ~Schedules() { wipe(data_, sizeof data_); }
    Schedules(const Schedules&) = delete;
    Schedules& operator=(const Schedules&) = delete;
    const std::uint8_t* data() const { return data_; }

  private:
    alignas(64) std::uint8_t data_[2 * MIPP_SCHEDULE_BYTES];
};

}  // namespace mipp
