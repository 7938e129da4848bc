// AES-256-CTR by the circuit. Only for files of the portable tier.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../common/wipe.h"
#include "aes_circuit.h"
#include "prf_kernels.h"

namespace {

struct SlicedKeys {
    Planes round[15];
};

inline void slice_keys(SlicedKeys& keys, const uint8_t* schedule) {
    for (int r = 0; r < 15; ++r) slice_key(keys.round[r], schedule + 16 * r);
}

inline void encrypt(Planes& s, const SlicedKeys& keys) { encrypt_blocks<14>(s, keys.round); }

inline void fill(const uint8_t* schedule, uint64_t first_block, size_t blocks, uint8_t* out) {
    SlicedKeys keys;
    Planes s;
    slice_keys(keys, schedule);
    for (size_t b = 0; b < blocks; b += 8) {
        for (unsigned j = 0; j < 8; ++j) {
            const uint64_t number = first_block + b + j;
            Plane block{};
            for (unsigned i = 0; i < 8; ++i) block[15 - i] = static_cast<uint8_t>(number >> 8 * i);
            s.p[j] = block;
        }
        encrypt(s, keys);
        memcpy(out + 16 * b, &s, blocks - b < 8 ? 16 * (blocks - b) : sizeof s);
    }
    mipp::wipe(&keys, sizeof keys);
    mipp::wipe(&s, sizeof s);
}

// Key expansion of up to 32 keys: one evaluation of the circuit substitutes a word of each. FIPS 197, 5.2.
inline void expand_some(const uint8_t* keys, size_t count, uint8_t* schedules) {
    uint32_t words[8][32] = {};  // the last eight words of each key's expansion, byte 0 lowest
    Planes s;
    const auto word_at = [](const uint8_t* p) {
        return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
               static_cast<uint32_t>(p[3]) << 24;
    };
    for (size_t n = 0; n < count; ++n) {
        for (int i = 0; i < 8; ++i) words[i][n] = word_at(keys + 32 * n + 4 * i);
        memcpy(schedules + MIPP_SCHEDULE_BYTES * n, keys + 32 * n, 32);
    }
    uint32_t rcon = 1;
    for (int i = 8; i < 60; ++i) {
        uint32_t fresh[32];
        memcpy(fresh, words[(i - 1) & 7], sizeof fresh);
        if (i % 4 == 0) {
            for (auto& w : fresh) w = i % 8 == 0 ? w >> 8 | w << 24 : w;
            memcpy(&s, fresh, sizeof s);
            transpose(s);
            substitute(s);
            transpose(s);
            memcpy(fresh, &s, sizeof s);
            if (i % 8 == 0) {
                for (auto& w : fresh) w ^= rcon;
                rcon <<= 1;
            }
        }
        for (int n = 0; n < 32; ++n) words[i & 7][n] ^= fresh[n];
        for (size_t n = 0; n < count; ++n) {
            for (int b = 0; b < 4; ++b) {
                schedules[MIPP_SCHEDULE_BYTES * n + 4 * i + b] = static_cast<uint8_t>(words[i & 7][n] >> 8 * b);
            }
        }
        mipp::wipe(fresh, sizeof fresh);
    }
    mipp::wipe(words, sizeof words);
    mipp::wipe(&s, sizeof s);
}

inline void expand(const uint8_t* keys, size_t count, uint8_t* schedules) {
    for (size_t n = 0; n < count; n += 32) {
        expand_some(keys + 32 * n, count - n < 32 ? count - n : 32, schedules + MIPP_SCHEDULE_BYTES * n);
    }
}

}  // namespace
