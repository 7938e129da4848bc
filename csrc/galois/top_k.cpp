// The k largest scores: a filter by the k-th best so far, over few candidates that are selected now and then.
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "../common/pool.h"
#include "../common/words.h"
#include "galois.h"
#include "galois_tiers.h"

namespace mipp {
namespace {

bool better(const MippHit& a, const MippHit& b) { return a.score > b.score || (a.score == b.score && a.row < b.row); }

using Hits = std::vector<MippHit>;

void keep_best_var(Hits& hits, std::size_t k) {
    if (hits.size() <= k) return;
    std::nth_element(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(k) - 1, hits.end(), better);
    hits.resize(k);
}

// Scores outside count as the least integer.
struct Range {
    std::int64_t low, high;
};

// Best k of rows [begin, end) that exceed `threshold` (`all`: of every row), in no order.
template <class Word>
void select_var(const GaloisKernels<Word>& kernels, const Word* const* answers, std::size_t count, int width,
                std::size_t begin, std::size_t end, std::size_t k, std::int64_t threshold, bool all, Range range,
                Hits& hits) {
    // Room for as many again: selecting costs a constant per candidate.
    const std::size_t limit = std::min(k + std::max<std::size_t>(k, 64), end - begin);
    std::size_t at = begin, found = 0;
    hits.resize(limit + MIPP_ANSWERS_BLOCK);
    while (at < end) {
        at = kernels.filter_var(answers, count, width, at, end, threshold, range.low, range.high, all, hits.data(),
                                &found, limit);
        if (found < k) continue;
        hits.resize(found);
        keep_best_var(hits, k);
        // Later rows must beat the worst kept one: an equal score loses to the smaller row number.
        threshold = std::max_element(hits.begin(), hits.end(), better)->score;
        all = false;
        found = k;
        hits.resize(limit + MIPP_ANSWERS_BLOCK);
    }
    hits.resize(found);
}

// Puts new hits, best first, into the `known` best so far: at most k stay. An old row wins against an equal new one.
void merge_var(const Hits& hits, std::size_t known, std::size_t k, std::int64_t* rows, std::int64_t* scores) {
    std::size_t old = known, fresh = hits.size();
    while (old + fresh > k) {
        if (fresh != 0 && (old == 0 || hits[fresh - 1].score <= scores[old - 1])) {
            --fresh;
        } else {
            --old;
        }
    }
    // From behind: the place that is written has been read.
    for (std::size_t at = old + fresh; fresh != 0;) {
        --at;
        if (old != 0 && scores[old - 1] < hits[fresh - 1].score) {
            --old;
            rows[at] = rows[old];
            scores[at] = scores[old];
        } else {
            --fresh;
            rows[at] = hits[fresh].row;
            scores[at] = hits[fresh].score;
        }
    }
}

template <class Word>
Status top_k_var(const void* const* answers, std::size_t count, int width, std::size_t queries, std::size_t n,
                 std::size_t k, std::size_t first_row, Range range, std::int64_t* rows, std::int64_t* scores,
                 int threads) {
    const auto& kernels = galois_kernels<Word>();
    // Few queries: threads share the rows of each.
    const std::size_t wanted = queries >= static_cast<std::size_t>(threads) ? 1 : static_cast<std::size_t>(threads) * 2;
    const std::size_t parts = std::max<std::size_t>(1, std::min(wanted, n / (std::size_t{1} << 16)));
    const std::size_t part_rows =
        ((n + parts - 1) / parts + MIPP_ANSWERS_BLOCK - 1) / MIPP_ANSWERS_BLOCK * MIPP_ANSWERS_BLOCK;
    const std::size_t stride = packed_answers(8 * static_cast<int>(sizeof(Word)), width, n);
    const std::size_t known = std::min(k, first_row);
    const auto select = [&](std::size_t b, std::size_t part, Hits& hits) {
        const Word* in[max_maps];
        for (std::size_t a = 0; a < count; ++a) in[a] = static_cast<const Word*>(answers[a]) + b * stride;
        const std::size_t begin = std::min(n, part * part_rows), end = std::min(n, begin + part_rows);
        hits.clear();
        if (begin == end) return;
        const bool all = known < k;
        const std::int64_t threshold = all ? std::numeric_limits<std::int64_t>::min() : scores[b * k + k - 1];
        select_var(kernels, in, count, width, begin, end, std::min(k, end - begin), threshold, all, range, hits);
    };
    const auto finish = [&](std::size_t b, Hits& hits) {
        keep_best_var(hits, k);
        std::sort(hits.begin(), hits.end(), better);
        for (MippHit& hit : hits) hit.row += static_cast<std::int64_t>(first_row);
        merge_var(hits, known, k, rows + b * k, scores + b * k);
    };
    const std::size_t grain = std::max<std::size_t>(1, queries / (static_cast<std::size_t>(threads) * 8));
    if (parts == 1) {
        return parallel_for(queries, grain, threads, [&](std::size_t first, std::size_t last) {
            try {
                Hits hits;
                for (std::size_t b = first; b < last; ++b) {
                    select(b, 0, hits);
                    finish(b, hits);
                }
            } catch (const std::bad_alloc&) {
                return Status::no_memory;
            }
            return Status::ok;
        });
    }
    std::vector<Hits> found(queries * parts);
    const Status status = parallel_for(queries * parts, 1, threads, [&](std::size_t first, std::size_t last) {
        try {
            for (std::size_t p = first; p < last; ++p) select(p / parts, p % parts, found[p]);
        } catch (const std::bad_alloc&) {
            return Status::no_memory;
        }
        return Status::ok;
    });
    if (status != Status::ok) return status;
    return parallel_for(queries, 1, threads, [&](std::size_t first, std::size_t last) {
        try {
            for (std::size_t b = first; b < last; ++b) {
                Hits hits;
                hits.swap(found[b * parts]);
                for (std::size_t p = 1; p < parts; ++p) {
                    const Hits& more = found[b * parts + p];
                    hits.insert(hits.end(), more.begin(), more.end());
                }
                finish(b, hits);
            }
        } catch (const std::bad_alloc&) {
            return Status::no_memory;
        }
        return Status::ok;
    });
}

}  // namespace

Status answers_top_k_var(int bits, const void* const* answers, std::size_t count, int width, std::size_t queries,
                         std::size_t n, std::size_t k, std::size_t first_row, std::int64_t low, std::int64_t high,
                         std::int64_t* rows, std::int64_t* scores, int threads) {
    const bool fits = width >= 1 && width <= bits;
    if (count == 0 || count > max_maps || k < 1 || low > high || !fits) return Status::bad_argument;
    try {
        return with_word(bits, [&](auto zero) {
            return top_k_var<decltype(zero)>(answers, count, width, queries, n, k, first_row, {low, high}, rows, scores,
                                             threads);
        });
    } catch (const std::bad_alloc&) {
        return Status::no_memory;
    }
}

}  // namespace mipp
