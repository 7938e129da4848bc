// The stream of one key, eight bit-sliced blocks at a time. Only for files of the portable tier.
#pragma once

#include "../common/wipe.h"
#include "../prf/aes_bitsliced.h"
#define MIPP_VECTOR_BYTES 16
#include "../common/vectors.h"

namespace {

class Stream {
  public:
    static constexpr int vectors = 8;  // made together

    explicit Stream(const uint8_t* schedule) { slice_keys(keys_, schedule); }
    ~Stream() { mipp::wipe(&keys_, sizeof keys_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Words from the first of a block on.
    inline void next(Words::Type (&m)[vectors], uint64_t block) const {
        Planes s;
        for (uint64_t j = 0; j < 8; ++j) s.p[j] = number(block + j);
        encrypt(s, keys_);
        memcpy(m, &s, sizeof s);
    }

  private:
    static inline Plane number(uint64_t n) { return reinterpret_cast<Plane>(Pair{0, __builtin_bswap64(n)}); }

    SlicedKeys keys_;
};

}  // namespace
