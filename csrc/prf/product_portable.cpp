// Keystream rows times columns, in vectors of 16 bytes.
#include "aes_bitsliced.h"

namespace {

template <class Word>
struct Arithmetic {
    typedef Word Vector __attribute__((vector_size(16)));
    static constexpr size_t width = 16 / sizeof(Word);
    static constexpr int tile_rows = 2, tile_columns = 2;
    static inline Vector zero() { return Vector{}; }
    static inline Vector load(const Word* p) {
        Vector v;
        memcpy(&v, p, sizeof v);
        return v;
    }
    // Wraps modulo 2^bits, lane by lane.
    static inline Vector multiply_add(Vector sum, Vector x, Vector y) { return sum + x * y; }
    static inline Word total(Vector v) {
        Word sum = 0;
        for (size_t i = 0; i < width; ++i) sum = static_cast<Word>(sum + v[i]);
        return sum;
    }
    static inline void totals(const Vector (&sum)[2][2], Word (&to)[2][2]) {
        for (int i = 0; i < 4; ++i) to[i / 2][i % 2] = total(sum[i % 2][i / 2]);
    }
};

}  // namespace

#include "keystream_product.h"

MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u16_portable, 16, keystream_product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u32_portable, 32, keystream_product)
MIPP_DEFINE_KEYSTREAM_MATMUL(keystream_matmul_u64_portable, 64, keystream_product)
