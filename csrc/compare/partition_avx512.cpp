#include <immintrin.h>

#include "compare_kernels.h"

namespace {

// The words of eight whose bit is set in m; returns how many.
inline size_t compress(uint64_t* to, __m512i words, unsigned m) {
    const auto count = static_cast<unsigned>(__builtin_popcount(m));
    const auto kept = static_cast<__mmask8>((1u << count) - 1);
    // not vpcompressq to memory, which takes several times as long
    _mm512_mask_storeu_epi64(to, kept, _mm512_maskz_compress_epi64(static_cast<__mmask8>(m), words));
    return count;
}

}  // namespace

MIPP_WORDS_PARTITION(words_partition_u64_avx512) {
    for (size_t i = 0; i < count; i += 8) {
        const unsigned all = count - i >= 8 ? 0xff : (1u << (count - i)) - 1;
        const unsigned m = static_cast<unsigned>(bits[i / 64] >> i % 64) & all;
        const __m512i eight = _mm512_maskz_loadu_epi64(static_cast<__mmask8>(all), words + i);
        set += compress(set, eight, m);
        clear += compress(clear, eight, ~m & all);
    }
}
