// What all derivations under one key share: the SHA-256 states behind the padded pseudo-random key.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/wipe.h"

namespace mipp {

struct HkdfKey {
    std::uint32_t states[16];  // inner hash, outer hash

    explicit HkdfKey(const std::uint8_t* key);  // HKDF-Extract of 32 bytes without salt
    ~HkdfKey() { wipe(states, sizeof states); }
    HkdfKey(const HkdfKey&) = delete;
    HkdfKey& operator=(const HkdfKey&) = delete;
};

}  // namespace mipp
