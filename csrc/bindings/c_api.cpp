// The table of mipp/include/mipp/mipp.h: each entry checks what its header promises and calls a family.
#include <pybind11/pybind11.h>

#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "../../mipp/include/mipp/mipp.h"
#include "../common/pool.h"
#include "../cpu/cpu.h"
#include "../galois/galois.h"
#include "../prf/prf.h"
#include "../ring/ring.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

struct mipp_schedules {
    KeySchedules schedules;
};

namespace {

static_assert(static_cast<int>(Status::no_memory) == MIPP_NO_MEMORY &&
                  static_cast<int>(Status::bad_argument) == MIPP_BAD_ARGUMENT &&
                  static_cast<int>(Status::unsupported) == MIPP_UNSUPPORTED &&
                  static_cast<int>(Status::interrupted) == MIPP_INTERRUPTED &&
                  static_cast<int>(Status::no_threads) == MIPP_NO_THREADS,
              "the header's statuses are those of the kernels");
static_assert(static_cast<int>(Level::amx) == MIPP_CPU_AMX && level_count == MIPP_CPU_AMX + 1, "and its levels");
static_assert(MIPP_MAX_INFO_BYTES == max_info && MIPP_MOST_OUTS == max_maps && MIPP_MOST_INPUTS == max_inputs,
              "and its limits");

constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();

// Runs a call; nothing that C++ throws gets out.
template <class F>
int call(int threads, F&& f) noexcept {
    if (cpu_environment() != Environment::good) return MIPP_UNSUPPORTED;
    int count;
    if (!pool_threads(threads, &count)) return MIPP_BAD_ARGUMENT;
    try {
        return static_cast<int>(f(count));
    } catch (const std::bad_alloc&) {
        return MIPP_NO_MEMORY;
    } catch (...) {
        return MIPP_NO_THREADS;
    }
}

bool good_bits(int bits) { return bits == 16 || bits == 32 || bits == 64; }

// Whether a x b x c things fit the address space.
bool fits(std::size_t a, std::size_t b, std::size_t c = 1) {
    if (b != 0 && a > most / b) return false;
    return c == 0 || a * b <= most / c;
}

// Memory for so many items of `bytes` bytes, aligned to `align`; none needs none.
bool good(const void* p, std::size_t items, std::size_t align = 1) {
    return items == 0 || (p != nullptr && reinterpret_cast<std::uintptr_t>(p) % align == 0);
}

bool good_words(const void* p, std::size_t a, std::size_t b, int bits) {
    const auto bytes = static_cast<std::size_t>(bits) / 8;
    return fits(a, b, bytes) && good(p, a * b, bytes);
}

// rows x width words, rows `stride` words apart.
bool good_out(const void* p, std::size_t rows, std::size_t width, std::size_t stride, int bits) {
    return stride >= width && good_words(p, rows, stride, bits) && (width == 0 || good_words(p, rows, width, bits));
}

template <class Pointer>
bool good_list(const Pointer* list, std::size_t count, std::size_t a, std::size_t b, int bits) {
    if (list == nullptr && count != 0) return false;
    for (std::size_t i = 0; i < count; ++i) {
        if (!good_words(list[i], a, b, bits)) return false;
    }
    return true;
}

bool good_infos(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count) {
    return key != nullptr && length <= max_info && fits(length, count) && good(infos, length * count);
}

const char* status_text(int status) noexcept {
    switch (status) {
        case MIPP_OK:
            return "ok";
        case MIPP_NO_MEMORY:
            return "out of memory";
        case MIPP_BAD_ARGUMENT:
            return "an argument breaks the contract of the function";
        case MIPP_UNSUPPORTED:
            return "the processor lacks the level that is asked for";
        case MIPP_INTERRUPTED:
            return "interrupted by a signal";
        case MIPP_NO_THREADS:
            return "the operating system gave no thread";
        default:
            return "unknown status";
    }
}

int level_now() noexcept { return static_cast<int>(cpu_level()); }
int level_best() noexcept { return static_cast<int>(cpu_best_level()); }

bool is_level(int level) { return level >= 0 && level < level_count; }

int set_level(int level) noexcept {
    return is_level(level) ? static_cast<int>(cpu_set_level(static_cast<Level>(level))) : MIPP_BAD_ARGUMENT;
}

const char* name_of_level(int level) noexcept {
    return is_level(level) ? level_name(static_cast<Level>(level)) : nullptr;
}

int active(const char* family) noexcept {
    if (family == nullptr) return -1;
    if (std::strcmp(family, "ring") == 0) return static_cast<int>(ring_tier());
    if (std::strcmp(family, "prf") == 0) return static_cast<int>(prf_tier());
    if (std::strcmp(family, "galois") == 0) return static_cast<int>(galois_tier());
    return -1;
}

int matmul(int bits, const void* rows, std::size_t row_count, std::size_t dim, const void* columns,
           std::size_t column_count, void* out, std::size_t out_stride, int threads) noexcept {
    if (!good_bits(bits) || dim == 0 || !good_words(rows, row_count, dim, bits) ||
        !good_words(columns, column_count, dim, bits) || !good_out(out, column_count, row_count, out_stride, bits)) {
        return MIPP_BAD_ARGUMENT;
    }
    return call(threads, [&](int n) {
        return ring_matmul(bits, rows, row_count, dim, columns, column_count, out, out_stride, n);
    });
}

int hkdf_expand(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                std::uint8_t* out, int threads) noexcept {
    if (!good_infos(key, infos, length, count) || !fits(count, 32) || !good(out, count)) return MIPP_BAD_ARGUMENT;
    return call(threads, [&](int n) { return hkdf_expand_batch(key, infos, length, count, out, n); });
}

int schedules_new(const std::uint8_t* key, const std::uint8_t* infos, std::size_t length, std::size_t count,
                  int threads, mipp_schedules** out) noexcept {
    if (out == nullptr) return MIPP_BAD_ARGUMENT;
    *out = nullptr;
    if (!good_infos(key, infos, length, count) || !fits(count, KeySchedules::bytes_each)) return MIPP_BAD_ARGUMENT;
    auto* made = new (std::nothrow) mipp_schedules;
    if (made == nullptr) return MIPP_NO_MEMORY;
    const int status = call(threads, [&](int n) { return made->schedules.derive(key, infos, length, count, n); });
    if (status == MIPP_OK) {
        *out = made;
    } else {
        delete made;
    }
    return status;
}

void schedules_free(mipp_schedules* schedules) noexcept { delete schedules; }
std::size_t schedules_count(const mipp_schedules* schedules) noexcept {
    return schedules == nullptr ? 0 : schedules->schedules.size();
}

int words(const mipp_schedules* schedules, std::size_t schedule, std::uint64_t first_block, int bits, void* out,
          std::size_t count) noexcept {
    if (!good_bits(bits) || schedule >= schedules_count(schedules) || !good_words(out, count, 1, bits)) {
        return MIPP_BAD_ARGUMENT;
    }
    const std::size_t each = 128 / static_cast<std::size_t>(bits);
    const std::uint64_t blocks = count / each + (count % each != 0);
    if (first_block > max_blocks || blocks > max_blocks - first_block) return MIPP_BAD_ARGUMENT;
    return call(1, [&](int) { return keystream_words(schedules->schedules[schedule], first_block, bits, out, count); });
}

int matmul_keystream(const mipp_schedules* schedules, const mipp_run* runs, std::size_t run_count, int bits,
                     const void* columns, std::size_t column_count, std::size_t dim, void* out, std::size_t out_stride,
                     int threads) noexcept {
    if (!good_bits(bits) || schedules == nullptr || dim == 0 || !good(runs, run_count, alignof(mipp_run)) ||
        !good_words(columns, column_count, dim, bits)) {
        return MIPP_BAD_ARGUMENT;
    }
    const std::size_t each = 128 / static_cast<std::size_t>(bits);
    if (dim % each != 0) return MIPP_BAD_ARGUMENT;
    const std::size_t max_rows = max_blocks / (dim / each);
    std::size_t total = 0;
    for (std::size_t i = 0; i < run_count; ++i) {
        const mipp_run& run = runs[i];
        if (run.schedule >= schedules->schedules.size() || run.first_row > max_rows ||
            run.rows > max_rows - run.first_row || run.rows > most - total) {
            return MIPP_BAD_ARGUMENT;
        }
        total += run.rows;
    }
    if (!good_out(out, column_count, total, out_stride, bits)) return MIPP_BAD_ARGUMENT;
    return call(threads, [&](int n) {
        std::vector<KeystreamRun> placed(run_count);
        std::size_t position = 0;
        for (std::size_t i = 0; i < run_count; ++i) {
            placed[i] = {runs[i].schedule, runs[i].first_row, runs[i].rows, position};
            position += runs[i].rows;
        }
        return keystream_matmul(schedules->schedules, placed.data(), run_count, total, bits, columns, column_count, dim,
                                out, out_stride, n);
    });
}

int add_zero_share(int bits, void* out, std::size_t queries, std::size_t out_stride, const std::uint8_t* key,
                   const std::uint8_t* infos, std::size_t info_length, const std::size_t* lengths, std::size_t segments,
                   std::size_t first_word, int negate, int threads) noexcept {
    if (!good_bits(bits) || !good(lengths, segments, alignof(std::size_t)) || !fits(queries, segments) ||
        !good_infos(key, infos, info_length, queries * segments)) {
        return MIPP_BAD_ARGUMENT;
    }
    const std::size_t max_words = max_blocks / static_cast<std::size_t>(bits) * 128;
    std::size_t total = 0;
    for (std::size_t s = 0; s < segments; ++s) {
        if (lengths[s] > max_words || lengths[s] > most - total) return MIPP_BAD_ARGUMENT;
        total += lengths[s];
    }
    if (first_word > max_words || (segments != 0 && lengths[0] > max_words - first_word) ||
        !good_out(out, queries, total, out_stride, bits)) {
        return MIPP_BAD_ARGUMENT;
    }
    return call(threads, [&](int n) {
        return zero_share_add(bits, out, queries, out_stride, key, infos, info_length, lengths, segments, first_word,
                              negate != 0, n);
    });
}

int combine(int bits, const void* matrices, std::size_t out_count, std::size_t input_count, int m,
            const void* const* inputs, void* const* outs, std::size_t count, int threads) noexcept {
    if (!good_bits(bits) || (m != 2 && m != 3) || out_count < 1 || out_count > max_maps || input_count < 1 ||
        input_count > max_inputs || count % static_cast<std::size_t>(m) != 0 || !good_words(matrices, 1, 1, bits) ||
        !good_list(inputs, input_count, count, 1, bits) || !good_list(outs, out_count, count, 1, bits)) {
        return MIPP_BAD_ARGUMENT;
    }
    const LinearMap map = {matrices, out_count, input_count, m};
    return call(threads, [&](int n) { return words_combine(bits, map, inputs, outs, count, n); });
}

int share_rows(int bits, const void* matrices, std::size_t out_count, int m, const void* rows, std::size_t row_count,
               std::size_t dim, std::size_t width, const mipp_schedules* const* schedules, const std::size_t* schedule,
               std::size_t schedule_count, std::uint64_t first_row, void* const* outs, int threads) noexcept {
    if (!good_bits(bits) || (m != 2 && m != 3) || out_count < 1 || out_count > max_maps ||
        schedule_count >= max_inputs || dim == 0 || width < dim || width % static_cast<std::size_t>(m) != 0 ||
        !good_words(matrices, 1, 1, bits) || !good_words(rows, row_count, dim, bits) ||
        !good_list(outs, out_count, row_count, width, bits) ||
        (schedule_count != 0 && (schedules == nullptr || schedule == nullptr))) {
        return MIPP_BAD_ARGUMENT;
    }
    const std::size_t each = 128 / static_cast<std::size_t>(bits);
    if (width % each != 0) return MIPP_BAD_ARGUMENT;
    const std::uint64_t max_rows = max_blocks / (width / each);
    if (first_row > max_rows || row_count > max_rows - first_row) return MIPP_BAD_ARGUMENT;
    const std::uint8_t* keys[max_inputs] = {};
    for (std::size_t a = 0; a < schedule_count; ++a) {
        if (schedule[a] >= schedules_count(schedules[a])) return MIPP_BAD_ARGUMENT;
        keys[a] = schedules[a]->schedules[schedule[a]];
    }
    const LinearMap map = {matrices, out_count, 1 + schedule_count, m};
    return call(threads,
                [&](int n) { return rows_share(bits, map, rows, row_count, dim, width, keys, first_row, outs, n); });
}

int add_answers(int bits, const void* const* answers, std::size_t count, std::size_t n, std::int64_t* out,
                int threads) noexcept {
    if (!good_bits(bits) || count < 1 || count > max_maps || !good_list(answers, count, n, 1, bits) ||
        !good_words(out, n, 1, 64)) {
        return MIPP_BAD_ARGUMENT;
    }
    return call(threads, [&](int t) { return answers_add(bits, answers, count, bits, 1, n, out, t); });
}

int top_k_var(int bits, const void* const* answers, std::size_t count, std::size_t queries, std::size_t n,
              std::size_t k, std::size_t first_row, std::int64_t* rows, std::int64_t* scores, int threads) noexcept {
    if (!good_bits(bits) || count < 1 || count > max_maps || k < 1 || first_row > most - n || n > most ||
        !good_list(answers, count, queries, n, bits) || !good_words(rows, queries, k, 64) ||
        !good_words(scores, queries, k, 64)) {
        return MIPP_BAD_ARGUMENT;
    }
    return call(threads, [&](int t) {
        return answers_top_k_var(bits, answers, count, bits, queries, n, k, first_row, INT64_MIN, INT64_MAX, rows,
                                 scores, t);
    });
}

const mipp_api table = {
    MIPP_API_VERSION,
    0,
    sizeof(mipp_api),
    status_text,
    level_now,
    level_best,
    set_level,
    name_of_level,
    active,
    matmul,
    hkdf_expand,
    schedules_new,
    schedules_free,
    schedules_count,
    words,
    matmul_keystream,
    add_zero_share,
    combine,
    share_rows,
    add_answers,
    top_k_var,
};

}  // namespace

void bind_c_api(py::module_& m) { m.attr("_C_API") = py::capsule(&table, MIPP_API_CAPSULE); }
