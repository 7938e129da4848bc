// The stream of one key by AES-NI, two blocks a vector. Only for files of the avx2 tier.
#pragma once

#include "../prf/aes_ni.h"
#define MIPP_VECTOR_BYTES 32
#include "../common/vectors.h"

namespace {

class Stream {
  public:
    static constexpr int vectors = 4;  // made together

    explicit Stream(const uint8_t* schedule) : schedule_(schedule) {}

    // Words from the first of a block on.
    inline void next(Words::Type (&m)[vectors], uint64_t block) const {
        __m128i s[8];
        keystream(s, schedule_, block);
        for (int i = 0; i < vectors; ++i) {
            m[i] = reinterpret_cast<Words::Type>(_mm256_set_m128i(s[2 * i + 1], s[2 * i]));
        }
    }

  private:
    const uint8_t* schedule_;
};

}  // namespace
