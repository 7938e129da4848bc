// Words of 16, 32 or 64 bits, named by their bits.
#pragma once

#include <cstdint>

#include "status.h"

namespace mipp {

// Calls f with a zero of the word type; any other number of bits is a bad argument.
template <class F>
Status with_word(int bits, F&& f) {
    switch (bits) {
        case 16:
            return f(std::uint16_t{});
        case 32:
            return f(std::uint32_t{});
        case 64:
            return f(std::uint64_t{});
        default:
            return Status::bad_argument;
    }
}

}  // namespace mipp
