// The stream of one key by VAES, four blocks a vector. Only for files of the avx512 tier.
#pragma once

#include "../common/wipe.h"
#include "../prf/aes_vaes.h"
#define MIPP_VECTOR_BYTES 64
#include "../common/vectors.h"

namespace {

class Stream {
  public:
    static constexpr int vectors = 8;  // made together

    explicit Stream(const uint8_t* schedule) : keys_(load_keys(schedule)) {}
    ~Stream() { mipp::wipe(&keys_, sizeof keys_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Words from the first of a block on.
    inline void next(Words::Type (&m)[vectors], uint64_t block) const {
        __m512i s[8];
        keystream(s, keys_, block_numbers(block));
        for (int i = 0; i < vectors; ++i) m[i] = reinterpret_cast<Words::Type>(s[i]);
    }

  private:
    RoundKeys keys_;
};

}  // namespace
