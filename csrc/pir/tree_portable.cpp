// Nodes and leaves by the bit-sliced circuit, eight blocks at once.
#include <string.h>

#include "../common/wipe.h"
#include "../prf/aes_circuit.h"
#include "fixed_keys.h"
#include "pir_kernels.h"

namespace {

constexpr size_t together = 8;

struct SlicedKey {
    Planes round[fixed_rounds + 1];
    explicit SlicedKey(const FixedKey& key) {
        for (int r = 0; r <= fixed_rounds; ++r) slice_key(round[r], key.round[r]);
    }
};

// AES(seed) ^ seed, and `correction` where the control bit is set, for eight nodes.
inline void hash(const uint8_t* in, const SlicedKey& key, const uint8_t* correction, Planes& out) {
    Planes seeds;
    Plane masks[together], by;
    memcpy(&seeds, in, sizeof seeds);
    memcpy(&by, correction, sizeof by);
    for (size_t i = 0; i < together; ++i) {
        const Plane control = Plane{} + static_cast<uint8_t>(seeds.p[i][0] & 1);
        masks[i] = Plane{} - control;
        seeds.p[i][0] &= 0xfe;
    }
    out = seeds;
    encrypt_blocks<fixed_rounds>(out, key.round);
    for (size_t i = 0; i < together; ++i) out.p[i] ^= seeds.p[i] ^ (masks[i] & by);
    mipp::wipe(&seeds, sizeof seeds);
}

}  // namespace

MIPP_NODES_EXPAND(nodes_expand_u8_portable) {
    const SlicedKey to_left(left_key), to_right(right_key);
    Planes left, right;
    for (size_t i = 0; i < nodes; i += together) {
        hash(in + 16 * i, to_left, corrections, left);
        hash(in + 16 * i, to_right, corrections + 16, right);
        for (size_t j = 0; j < together; ++j) {
            memcpy(out + 32 * (i + j), &left.p[j], 16);
            memcpy(out + 32 * (i + j) + 16, &right.p[j], 16);
        }
    }
    mipp::wipe(&left, sizeof left);
    mipp::wipe(&right, sizeof right);
}

MIPP_LEAVES_CONVERT(leaves_convert_u8_portable) {
    const SlicedKey to_leaf(leaf_key);
    Planes rows;
    for (size_t i = 0; i < leaves; i += together) {
        hash(in + 16 * i, to_leaf, correction, rows);
        memcpy(out + 16 * i, &rows, leaves - i < together ? 16 * (leaves - i) : sizeof rows);
    }
    mipp::wipe(&rows, sizeof rows);
}
