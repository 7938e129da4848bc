// Shares of rows, query shares, and scores from score shares. Formulas: README.md. Words are of 16, 32 or 64 bits
// (`bits`); all sums wrap. Matrices are public; rows, keystream, shares and answers may be secret: only the functions
// that end in _var let time depend on them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/status.h"
#include "../cpu/cpu.h"

namespace mipp {

// Most outputs of a map or answers of a query, and most inputs of a map: at most 7 servers, threshold at most 3.
constexpr std::size_t max_maps = 8, max_inputs = 4;

Level galois_tier();

// A linear map over R: `outs` results from `inputs` arguments, each coefficient an m x m matrix over Z (m 2 or 3).
struct LinearMap {
    const void* matrices;  // outs x inputs x m x m words
    std::size_t outs, inputs;
    int m;
};

// outs[i] = sum_a map[i, a] inputs[a], element by element over `words` words, a multiple of m.
Status words_combine(int bits, const LinearMap& map, const void* const* inputs, void* const* outs, std::size_t words,
                     int threads);

// Shares of rows: the inputs are the rows, padded by zeros from `dim` to `width` words, and a keystream per schedule,
// row r at keystream row first_row + r. width: whole blocks and whole elements. map.inputs = 1 + the schedules.
Status rows_share(int bits, const LinearMap& map, const void* rows, std::size_t row_count, std::size_t dim,
                  std::size_t width, const std::uint8_t* const* schedules, std::uint64_t first_row, void* const* outs,
                  int threads);

// Answers that are packed together; what is left over of a query's is packed by itself.
constexpr std::size_t answers_block = 512;

// Words that n answers of `width` bits take; n of them where that is all bits of a word.
constexpr std::size_t packed_answers(int bits, int width, std::size_t n) {
    const auto word = static_cast<std::size_t>(bits), some = static_cast<std::size_t>(width);
    return n / answers_block * (answers_block / word * some) + (n % answers_block * some + word - 1) / word;
}

// Packs the low `width` < bits bits of answers queries x n, each query by itself: out has queries x packed_answers
// words.
Status answers_pack(int bits, const void* words, std::size_t queries, std::size_t n, int width, void* out, int threads);

// out (queries x n) = the sums of `count` answers modulo 2^width, read as signed. Answers of all bits of a word are
// queries x n; others are packed, queries x packed_answers.
Status answers_add(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                   std::size_t n, std::int64_t* out, int threads);

// sums (queries x checks words) = for each query the sums over rows of weights (checks x n words, at most max_maps)
// times scores, modulo 2^bits. answers: as for answers_add. outside (queries): whether a score is not in [low, high].
Status answers_fold(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                    std::size_t n, const void* weights, std::size_t checks, std::int64_t low, std::int64_t high,
                    void* sums, std::uint8_t* outside, int threads);

// The k largest sums of each query, best first, ties by smaller row. answers: count arrays as for answers_add, of rows
// first_row on. rows and scores (queries x k): what is best of the rows before, min(k, first_row) of them, becomes what
// is best of all, min(k, first_row + n) of them; the rest is not touched. A sum outside [low, high] counts as the least
// int64, and so comes last.
Status answers_top_k_var(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                         std::size_t n, std::size_t k, std::size_t first_row, std::int64_t low, std::int64_t high,
                         std::int64_t* rows, std::int64_t* scores, int threads);

}  // namespace mipp
