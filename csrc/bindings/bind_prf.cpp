#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "../common/wipe.h"
#include "../prf/prf.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

// 32 secret bytes; the bytes object stays the caller's.
const std::uint8_t* require_key(const py::object& key) {
    if (!PyBytes_Check(key.ptr())) bind::raise_dtype("key must be bytes");
    if (PyBytes_GET_SIZE(key.ptr()) != 32) bind::raise_parameter("key must have 32 bytes");
    return reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(key.ptr()));
}

py::array require_infos(const py::object& object) {
    const py::array infos = bind::require_array(object, "infos");
    bind::require_bytes(infos, 2, "infos");
    if (infos.shape(1) > static_cast<py::ssize_t>(max_info))
        bind::raise_shape("infos must have at most 256 bytes each");
    return infos;
}

// One-dimensional int64, every value in [0, high]; copied, so that nobody changes it while the kernel runs.
std::vector<std::size_t> require_counts(const py::object& object, std::size_t high, const char* what) {
    const py::array a = bind::require_array(object, what);
    if (a.dtype().kind() != 'i' || a.itemsize() != 8 || !bind::is_native_order(a)) {
        bind::raise_dtype(std::string(what) + " must be int64");
    }
    bind::require_ndim(a, 1, what);
    bind::require_contiguous(a, what);
    std::vector<std::size_t> values(static_cast<std::size_t>(a.shape(0)));
    const char* data = static_cast<const char*>(a.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::int64_t v;
        std::memcpy(&v, data + 8 * i, 8);
        if (v < 0 || static_cast<std::uint64_t>(v) > high) {
            bind::raise_parameter(std::string(what) + " must be 0 to " + std::to_string(high));
        }
        values[i] = static_cast<std::size_t>(v);
    }
    return values;
}

// Two-dimensional words; its rows may lie apart, each is dense. Returns the words between two rows.
std::size_t require_out(const py::array& out) {
    bind::require_word_dtype(out, "out");
    bind::require_ndim(out, 2, "out");
    bind::require_aligned(out, "out");
    bind::require_writeable(out, "out");
    const py::ssize_t b = out.shape(0), n = out.shape(1), item = out.itemsize();
    if (out.size() == 0) return static_cast<std::size_t>(n);
    if (n > 1 && out.strides(1) != item) bind::raise_shape("each row of out must be contiguous");
    if (b == 1) return static_cast<std::size_t>(n);
    if (out.strides(0) % item != 0 || out.strides(0) < n * item) {
        bind::raise_shape("rows of out must be whole words apart, in order and disjoint");
    }
    return static_cast<std::size_t>(out.strides(0) / item);
}

std::unique_ptr<KeySchedules> make_schedules(const py::object& key_object, const py::object& infos_object,
                                             const py::object& threads_object) {
    const std::uint8_t* key = require_key(key_object);
    const py::array infos = require_infos(infos_object);
    const int threads = bind::require_threads(threads_object);
    auto schedules = std::make_unique<KeySchedules>();
    const auto* data = static_cast<const std::uint8_t*>(infos.data());
    const auto count = static_cast<std::size_t>(infos.shape(0)), length = static_cast<std::size_t>(infos.shape(1));
    Status status;
    {
        bind::GilRelease release;
        status = schedules->derive(key, data, length, count, threads);
    }
    bind::throw_status(status);
    return schedules;
}

py::array expand_batch(const py::object& key_object, const py::object& infos_object, const py::object& threads_object) {
    const std::uint8_t* key = require_key(key_object);
    const py::array infos = require_infos(infos_object);
    const int threads = bind::require_threads(threads_object);
    py::array_t<std::uint8_t> out({infos.shape(0), py::ssize_t{32}});
    const auto* data = static_cast<const std::uint8_t*>(infos.data());
    std::uint8_t* to = out.mutable_data();
    const auto count = static_cast<std::size_t>(infos.shape(0)), length = static_cast<std::size_t>(infos.shape(1));
    Status status;
    {
        bind::GilRelease release;
        status = hkdf_expand_batch(key, data, length, count, to, threads);
    }
    bind::throw_status(status);
    return std::move(out);
}

void words(const KeySchedules& schedules, const py::object& segment_object, const py::object& first_object,
           const py::object& out_object) {
    py::array out = bind::require_array(out_object, "out");
    const int bits = bind::require_words_out(out, 1, "out");
    if (schedules.size() == 0) bind::raise_parameter("segment: there are no schedules");
    const auto segment = static_cast<std::size_t>(
        bind::require_int(segment_object, 0, static_cast<std::int64_t>(schedules.size()) - 1, "segment"));
    const auto first = static_cast<std::uint64_t>(
        bind::require_int(first_object, 0, static_cast<std::int64_t>(max_blocks), "first_block"));
    const auto count = static_cast<std::size_t>(out.size());
    if (first + (count * static_cast<std::size_t>(bits) + 127) / 128 > max_blocks) {
        bind::raise_parameter("a keystream has at most 2^32 blocks");
    }
    void* to = out.mutable_data();
    Status status;
    {
        bind::GilRelease release;
        status = keystream_words(schedules[segment], first, bits, to, count);
    }
    bind::throw_status(status);
}

void matmul(const KeySchedules& schedules, const py::object& index_object, const py::object& first_object,
            const py::object& count_object, const py::object& columns_object, const py::object& out_object,
            const py::object& threads_object) {
    const py::array columns = bind::require_array(columns_object, "columns");
    const int bits = bind::require_words(columns, 2, "columns");
    const auto dim = static_cast<std::size_t>(columns.shape(1));
    if (dim == 0 || dim * static_cast<std::size_t>(bits) % 128 != 0) {
        bind::raise_shape("columns must have whole AES blocks of words: a multiple of " + std::to_string(128 / bits));
    }
    const std::size_t row_blocks = dim * static_cast<std::size_t>(bits) / 128, max_rows = max_blocks / row_blocks;
    const auto index = require_counts(index_object, schedules.size() == 0 ? 0 : schedules.size() - 1, "index");
    const auto first = require_counts(first_object, max_rows, "first_row");
    const auto count = require_counts(count_object, max_rows, "row_count");
    if (first.size() != index.size() || count.size() != index.size()) {
        bind::raise_shape("index, first_row and row_count must have the same length");
    }
    if (!index.empty() && schedules.size() == 0) bind::raise_parameter("index: there are no schedules");
    std::vector<KeystreamRun> runs(index.size());
    std::size_t total = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (first[i] + count[i] > max_rows) {
            bind::raise_parameter("first_row + row_count must not pass 2^32 blocks of keystream");
        }
        runs[i] = {index[i], first[i], count[i], total};
        total += count[i];
    }
    py::array out = bind::require_array(out_object, "out");
    const std::size_t stride = require_out(out);
    bind::require_same_dtype(columns, "columns", out, "out");
    bind::require_shape(out, {columns.shape(0), static_cast<py::ssize_t>(total)}, "out");
    for (py::ssize_t b = 0; b < out.shape(0) && total != 0; ++b) {
        const char* begin = static_cast<const char*>(out.data()) + b * out.strides(0);
        const bind::Extent row = {begin, begin + static_cast<py::ssize_t>(total) * out.itemsize()};
        if (bind::overlaps(row, bind::extent(columns))) bind::raise_parameter("out must not overlap columns");
    }
    const int threads = bind::require_threads(threads_object);
    const void* from = columns.data();
    void* to = out.mutable_data();
    const auto column_count = static_cast<std::size_t>(columns.shape(0));
    Status status;
    {
        bind::GilRelease release;
        status = keystream_matmul(schedules, runs.data(), runs.size(), total, bits, from, column_count, dim, to, stride,
                                  threads);
    }
    bind::throw_status(status);
}

void zero_share(const py::object& out_object, const py::object& key_object, const py::object& infos_object,
                const py::object& lengths_object, const py::object& negate_object, const py::object& threads_object,
                const py::object& first_object) {
    py::array out = bind::require_array(out_object, "out");
    const std::size_t stride = require_out(out);
    const int bits = bind::dtype_bits(out);
    const std::uint8_t* key = require_key(key_object);
    const py::array infos = require_infos(infos_object);
    const std::size_t max_words = max_blocks / static_cast<std::size_t>(bits) * 128;
    const auto lengths = require_counts(lengths_object, max_words, "lengths");
    const auto first =
        static_cast<std::size_t>(bind::require_int(first_object, 0, static_cast<std::int64_t>(max_words), "first"));
    if (!lengths.empty() && first + lengths[0] > max_words) {
        bind::raise_parameter("first + lengths[0] must not pass 2^32 blocks of keystream");
    }
    std::size_t total = 0;
    for (const std::size_t n : lengths) total += n;
    const auto queries = static_cast<std::size_t>(out.shape(0));
    bind::require_shape(out, {out.shape(0), static_cast<py::ssize_t>(total)}, "out");
    bind::require_shape(infos, {static_cast<py::ssize_t>(queries * lengths.size()), infos.shape(1)}, "infos");
    if (!PyBool_Check(negate_object.ptr())) bind::raise_dtype("negate must be a bool");
    const bool negate = negate_object.ptr() == Py_True;
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", infos, "infos");
    void* to = out.mutable_data();
    const auto* data = static_cast<const std::uint8_t*>(infos.data());
    const auto length = static_cast<std::size_t>(infos.shape(1));
    Status status;
    {
        bind::GilRelease release;
        status = zero_share_add(bits, to, queries, stride, key, data, length, lengths.data(), lengths.size(), first,
                                negate, threads);
    }
    bind::throw_status(status);
}

}  // namespace

void bind_prf(py::module_& m) {
    py::class_<KeySchedules>(m, "KeySchedules")
        .def(py::init(&make_schedules), py::arg("key"), py::arg("infos"), py::arg("threads") = py::none())
        .def("__len__", &KeySchedules::size)
        .def("__repr__",
             [](const KeySchedules& s) { return "KeySchedules(" + std::to_string(s.size()) + " schedules, secret)"; })
        .def("__reduce__", [](const KeySchedules&) -> py::object {
            throw py::type_error("key schedules are secret and do not pickle");
        });
    m.def("hkdf_expand_batch", &expand_batch, py::arg("key"), py::arg("infos"), py::arg("threads") = py::none());
    m.def("keystream_words", &words, py::arg("schedules"), py::arg("segment"), py::arg("first_block"), py::arg("out"));
    m.def("keystream_matmul", &matmul, py::arg("schedules"), py::arg("index"), py::arg("first_row"),
          py::arg("row_count"), py::arg("columns"), py::arg("out"), py::arg("threads") = py::none());
    m.def("zero_share_add", &zero_share, py::arg("out"), py::arg("key"), py::arg("infos"), py::arg("lengths"),
          py::arg("negate"), py::arg("threads") = py::none(), py::arg("first") = 0);
}
