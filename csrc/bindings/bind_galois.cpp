#include <string>
#include <vector>

#include "../galois/galois.h"
#include "../prf/prf.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

py::sequence require_sequence(const py::object& object, const char* what) {
    if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) {
        bind::raise_dtype(std::string(what) + " must be a list");
    }
    return py::reinterpret_borrow<py::sequence>(object);
}

// 1 to `most` arrays of one dtype and shape, two-dimensional and dense. Holds references while the kernel runs.
struct Arrays {
    std::vector<py::array> arrays;
    const char* what;
    int bits = 0;

    Arrays(const py::object& object, const char* name, bool writeable, std::size_t most = max_maps) : what(name) {
        const py::sequence list = require_sequence(object, name);
        if (list.size() < 1 || list.size() > most) {
            bind::raise_parameter(std::string(name) + " must be 1 to " + std::to_string(most) + " arrays");
        }
        for (const auto item : list) {
            py::array a = bind::require_array(item, name);
            bits = bind::require_words(a, 2, name);
            if (writeable) bind::require_writeable(a, name);
            arrays.push_back(std::move(a));
        }
        for (const auto& a : arrays) {
            bind::require_same_dtype(arrays[0], what, a, what);
            bind::require_shape(a, {arrays[0].shape(0), arrays[0].shape(1)}, what);
        }
    }

    std::size_t count() const { return arrays.size(); }
    py::ssize_t rows() const { return arrays[0].shape(0); }
    py::ssize_t width() const { return arrays[0].shape(1); }

    std::vector<const void*> inputs() const {
        std::vector<const void*> p;
        for (const auto& a : arrays) p.push_back(a.data());
        return p;
    }
    std::vector<void*> outs() {
        std::vector<void*> p;
        for (auto& a : arrays) p.push_back(a.mutable_data());
        return p;
    }

    void require_apart_from(const py::array& other, const char* name) const {
        for (const auto& a : arrays) bind::require_disjoint(a, what, other, name);
    }
    void require_apart() const {
        for (std::size_t i = 0; i < arrays.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) bind::require_disjoint(arrays[i], what, arrays[j], what);
        }
    }
};

// matrices: (outs, inputs, m, m) words of the ring; the width of a row is whole elements.
LinearMap require_map(const py::array& matrices, const Arrays& outs, std::size_t inputs) {
    bind::require_words(matrices, 4, "matrices");
    bind::require_same_dtype(outs.arrays[0], outs.what, matrices, "matrices");
    const py::ssize_t m = matrices.shape(3);
    if (m != 2 && m != 3) bind::raise_shape("matrices must be 2 x 2 or 3 x 3");
    bind::require_shape(matrices, {static_cast<py::ssize_t>(outs.count()), static_cast<py::ssize_t>(inputs), m, m},
                        "matrices");
    if (outs.width() % m != 0) bind::raise_shape("rows must have whole ring elements: a multiple of m words");
    return {matrices.data(), outs.count(), inputs, static_cast<int>(m)};
}

void combine(const py::object& inputs_object, const py::object& matrices_object, const py::object& outs_object,
             const py::object& threads_object) {
    const Arrays inputs(inputs_object, "inputs", false, max_inputs);
    Arrays outs(outs_object, "outs", true);
    bind::require_same_dtype(inputs.arrays[0], "inputs", outs.arrays[0], "outs");
    bind::require_shape(outs.arrays[0], {inputs.rows(), inputs.width()}, "outs");
    const py::array matrices = bind::require_array(matrices_object, "matrices");
    const LinearMap map = require_map(matrices, outs, inputs.count());
    for (const auto& a : inputs.arrays) outs.require_apart_from(a, "inputs");
    outs.require_apart_from(matrices, "matrices");
    outs.require_apart();
    const int threads = bind::require_threads(threads_object);
    const auto from = inputs.inputs();
    const auto to = outs.outs();
    const auto words = static_cast<std::size_t>(outs.arrays[0].size());
    Status status;
    {
        bind::GilRelease release;
        status = words_combine(outs.bits, map, from.data(), to.data(), words, threads);
    }
    bind::throw_status(status);
}

void share(const py::object& rows_object, const py::object& schedules_object, const py::object& segments_object,
           const py::object& first_object, const py::object& matrices_object, const py::object& outs_object,
           const py::object& threads_object) {
    const py::array rows = bind::require_array(rows_object, "rows");
    const int bits = bind::require_words(rows, 2, "rows");
    Arrays outs(outs_object, "outs", true);
    bind::require_same_dtype(rows, "rows", outs.arrays[0], "outs");
    bind::require_shape(outs.arrays[0], {rows.shape(0), outs.width()}, "outs");
    const auto dim = static_cast<std::size_t>(rows.shape(1)), width = static_cast<std::size_t>(outs.width());
    if (width < dim) bind::raise_shape("outs must be at least as wide as rows");
    if (width == 0 || width * static_cast<std::size_t>(bits) % 128 != 0) {
        bind::raise_shape("outs must have whole AES blocks of words: a multiple of " + std::to_string(128 / bits));
    }
    const py::sequence schedules = require_sequence(schedules_object, "schedules");
    const py::sequence segments = require_sequence(segments_object, "segment");
    if (schedules.size() + 1 > max_inputs) {
        bind::raise_parameter("schedules must be at most " + std::to_string(max_inputs - 1));
    }
    if (segments.size() != schedules.size()) bind::raise_shape("segment must have one number per schedules");
    std::vector<const std::uint8_t*> keys;
    std::vector<py::object> held;
    for (std::size_t j = 0; j < schedules.size(); ++j) {
        held.push_back(schedules[j]);
        if (!py::isinstance<KeySchedules>(held.back())) bind::raise_dtype("schedules must be KeySchedules");
        const auto& all = held.back().cast<const KeySchedules&>();
        if (all.size() == 0) bind::raise_parameter("segment: there are no schedules");
        const py::object segment = segments[j];
        keys.push_back(all[static_cast<std::size_t>(
            bind::require_int(segment, 0, static_cast<std::int64_t>(all.size()) - 1, "segment"))]);
    }
    const std::uint64_t max_rows = max_blocks / (width * static_cast<std::size_t>(bits) / 128);
    const auto first = static_cast<std::uint64_t>(
        bind::require_int(first_object, 0, static_cast<std::int64_t>(max_rows), "first_row"));
    if (first + static_cast<std::uint64_t>(rows.shape(0)) > max_rows) {
        bind::raise_parameter("first_row and rows must not pass 2^32 blocks of keystream");
    }
    const py::array matrices = bind::require_array(matrices_object, "matrices");
    const LinearMap map = require_map(matrices, outs, 1 + keys.size());
    outs.require_apart_from(rows, "rows");
    outs.require_apart_from(matrices, "matrices");
    outs.require_apart();
    const int threads = bind::require_threads(threads_object);
    const void* from = rows.data();
    const auto to = outs.outs();
    const auto count = static_cast<std::size_t>(rows.shape(0));
    Status status;
    {
        bind::GilRelease release;
        status = rows_share(bits, map, from, count, dim, width, keys.data(), first, to.data(), threads);
    }
    bind::throw_status(status);
}

// Bits of each answer: all of a word if the argument is None.
int require_width(const py::object& object, int bits) {
    return object.is_none() ? bits : static_cast<int>(bind::require_int(object, 1, bits, "width"));
}

// Answers of `rows` rows must have the words that so many take.
void require_packing(const Arrays& answers, int width, py::ssize_t rows) {
    const std::size_t words = packed_answers(answers.bits, width, static_cast<std::size_t>(rows));
    bind::require_shape(answers.arrays[0], {answers.rows(), static_cast<py::ssize_t>(words)}, "answers");
}

void reconstruct(const py::object& answers_object, const py::object& out_object, const py::object& threads_object,
                 const py::object& width_object) {
    const Arrays answers(answers_object, "answers", false);
    const int width = require_width(width_object, answers.bits);
    py::array out = bind::require_array(out_object, "out");
    if (out.dtype().kind() != 'i' || out.itemsize() != 8 || !bind::is_native_order(out)) {
        bind::raise_dtype("out must be int64");
    }
    if (out.ndim() != 2) bind::raise_shape("out must have 2 dimensions");
    const py::ssize_t rows = out.shape(1);
    bind::require_shape(out, {answers.rows(), rows}, "out");
    require_packing(answers, width, rows);
    bind::require_aligned(out, "out");
    bind::require_contiguous(out, "out");
    bind::require_writeable(out, "out");
    for (const auto& a : answers.arrays) bind::require_disjoint(out, "out", a, "answers");
    const int threads = bind::require_threads(threads_object);
    const auto from = answers.inputs();
    auto* to = static_cast<std::int64_t*>(out.mutable_data());
    const auto queries = static_cast<std::size_t>(answers.rows()), n = static_cast<std::size_t>(rows);
    Status status;
    {
        bind::GilRelease release;
        status = answers_add(answers.bits, from.data(), answers.count(), width, queries, n, to, threads);
    }
    bind::throw_status(status);
}

// Sums of weighted scores for each query, and whether one of its scores is out of range.
py::tuple fold(const py::object& answers_object, const py::object& weights_object, const py::object& low_object,
               const py::object& high_object, const py::object& threads_object, const py::object& width_object) {
    const Arrays answers(answers_object, "answers", false);
    const int width = require_width(width_object, answers.bits);
    const py::array weights = bind::require_array(weights_object, "weights");
    bind::require_words(weights, 2, "weights");
    bind::require_same_dtype(answers.arrays[0], "answers", weights, "weights");
    const py::ssize_t checks = weights.shape(0), rows = weights.shape(1);
    if (checks < 1 || checks > static_cast<py::ssize_t>(max_maps)) {
        bind::raise_shape("weights must have 1 to " + std::to_string(max_maps) + " rows");
    }
    require_packing(answers, width, rows);
    const std::int64_t low = bind::require_int(low_object, INT64_MIN, INT64_MAX, "low");
    const std::int64_t high = bind::require_int(high_object, low, INT64_MAX, "high");
    const int threads = bind::require_threads(threads_object);
    const py::ssize_t queries = answers.rows();
    py::array sums(answers.arrays[0].dtype(), {queries, checks});
    py::array_t<bool> outside(queries);
    const auto from = answers.inputs();
    void* to = sums.mutable_data();
    auto* flags = reinterpret_cast<std::uint8_t*>(outside.mutable_data());
    const void* by = weights.data();
    Status status;
    {
        bind::GilRelease release;
        status = answers_fold(answers.bits, from.data(), from.size(), width, static_cast<std::size_t>(queries),
                              static_cast<std::size_t>(rows), by, static_cast<std::size_t>(checks), low, high, to,
                              flags, threads);
    }
    bind::throw_status(status);
    return py::make_tuple(sums, outside);
}

void pack_answers(const py::object& words_object, const py::object& width_object, const py::object& out_object,
                  const py::object& threads_object) {
    const py::array words = bind::require_array(words_object, "words");
    const int bits = bind::require_words(words, 2, "words");
    const int width = static_cast<int>(bind::require_int(width_object, 1, bits - 1, "width"));
    py::array out = bind::require_array(out_object, "out");
    bind::require_words(out, 2, "out");
    bind::require_same_dtype(words, "words", out, "out");
    const auto queries = static_cast<std::size_t>(words.shape(0)), n = static_cast<std::size_t>(words.shape(1));
    bind::require_shape(out, {words.shape(0), static_cast<py::ssize_t>(packed_answers(bits, width, n))}, "out");
    bind::require_writeable(out, "out");
    bind::require_disjoint(out, "out", words, "words");
    const int threads = bind::require_threads(threads_object);
    const void* from = words.data();
    void* to = out.mutable_data();
    Status status;
    {
        bind::GilRelease release;
        status = answers_pack(bits, from, queries, n, width, to, threads);
    }
    bind::throw_status(status);
}

// (B, k) int64, one of the two arrays of a running top-k.
std::int64_t* require_best(py::array& a, py::ssize_t queries, py::ssize_t k) {
    if (a.dtype().kind() != 'i' || a.itemsize() != 8 || !bind::is_native_order(a)) {
        bind::raise_dtype("best must be int64");
    }
    bind::require_shape(a, {queries, k}, "best");
    bind::require_aligned(a, "best");
    bind::require_contiguous(a, "best");
    bind::require_writeable(a, "best");
    return static_cast<std::int64_t*>(a.mutable_data());
}

// Scores that count in a top-k.
struct ScoreRange {
    std::int64_t low = INT64_MIN, high = INT64_MAX;
};

// Answers of `n` rows for each query, of `width` bits.
struct Answered {
    const Arrays& answers;
    int width;
    py::ssize_t n;
};

py::tuple top_k(const Answered& given, std::size_t first, std::size_t k, ScoreRange range, py::array rows,
                py::array scores, int threads) {
    const py::ssize_t queries = given.answers.rows();
    std::int64_t* rows_data = require_best(rows, queries, static_cast<py::ssize_t>(k));
    std::int64_t* scores_data = require_best(scores, queries, static_cast<py::ssize_t>(k));
    bind::require_disjoint(rows, "best", scores, "best");
    const auto from = given.answers.inputs();
    Status status;
    {
        bind::GilRelease release;
        status = answers_top_k_var(given.answers.bits, from.data(), from.size(), given.width,
                                   static_cast<std::size_t>(queries), static_cast<std::size_t>(given.n), k, first,
                                   range.low, range.high, rows_data, scores_data, threads);
    }
    bind::throw_status(status);
    return py::make_tuple(rows, scores);
}

py::tuple new_top_k(const Answered& given, const py::object& k_object, const py::object& threads_object,
                    ScoreRange range) {
    if (given.n < 1) bind::raise_shape("top-k needs at least one row");
    const auto k = static_cast<py::ssize_t>(bind::require_int(k_object, 1, given.n, "k"));
    const int threads = bind::require_threads(threads_object);
    py::array_t<std::int64_t> rows({given.answers.rows(), k}), scores({given.answers.rows(), k});
    return top_k(given, 0, static_cast<std::size_t>(k), range, rows, scores, threads);
}

// Alone: the k best of these rows. With `best`: goes on from the best of the `first` rows before, in place. With
// `width`: answers of n rows are packed.
py::tuple reconstruct_top_k(const py::object& answers_object, const py::object& k_object,
                            const py::object& threads_object, const py::object& first_object,
                            const py::object& best_object, const py::object& low_object, const py::object& high_object,
                            const py::object& width_object, const py::object& n_object) {
    constexpr std::int64_t most = std::int64_t{1} << 48;
    const Arrays answers(answers_object, "answers", false);
    const int width = require_width(width_object, answers.bits);
    const auto n =
        n_object.is_none() ? answers.width() : static_cast<py::ssize_t>(bind::require_int(n_object, 0, most, "n"));
    require_packing(answers, width, n);
    const Answered given{answers, width, n};
    const std::int64_t low = bind::require_int(low_object, INT64_MIN, INT64_MAX, "low");
    const ScoreRange range{low, bind::require_int(high_object, low, INT64_MAX, "high")};
    const auto first = static_cast<std::size_t>(bind::require_int(first_object, 0, most, "first"));
    if (best_object.is_none()) {
        if (first != 0) bind::raise_parameter("first needs the best of the rows before");
        return new_top_k(given, k_object, threads_object, range);
    }
    const py::sequence best = require_sequence(best_object, "best");
    if (best.size() != 2) bind::raise_parameter("best must be rows and scores");
    const py::array rows = bind::require_array(best[0], "best"), scores = bind::require_array(best[1], "best");
    const auto k = static_cast<std::size_t>(bind::require_int(k_object, 1, most, "k"));
    const int threads = bind::require_threads(threads_object);
    answers.require_apart_from(rows, "best");
    answers.require_apart_from(scores, "best");
    return top_k(given, first, k, range, rows, scores, threads);
}

}  // namespace

void bind_galois(py::module_& m) {
    m.def("share_rows", &share, py::arg("rows"), py::arg("schedules"), py::arg("segment"), py::arg("first_row"),
          py::arg("matrices"), py::arg("outs"), py::arg("threads") = py::none());
    m.def("combine", &combine, py::arg("inputs"), py::arg("matrices"), py::arg("outs"),
          py::arg("threads") = py::none());
    m.def("reconstruct", &reconstruct, py::arg("answers"), py::arg("out"), py::arg("threads") = py::none(),
          py::arg("width") = py::none());
    m.def("fold_answers", &fold, py::arg("answers"), py::arg("weights"), py::arg("low"), py::arg("high"),
          py::arg("threads") = py::none(), py::arg("width") = py::none());
    m.def("pack_answers", &pack_answers, py::arg("words"), py::arg("width"), py::arg("out"),
          py::arg("threads") = py::none());
    m.def("reconstruct_top_k_var", &reconstruct_top_k, py::arg("answers"), py::arg("k"),
          py::arg("threads") = py::none(), py::arg("first") = 0, py::arg("best") = py::none(),
          py::arg("low") = INT64_MIN, py::arg("high") = INT64_MAX, py::arg("width") = py::none(),
          py::arg("n") = py::none());
}
