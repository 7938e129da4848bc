#include <cstring>

#include "../pir/pir.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

py::bytes require_key_bytes(const py::object& object, const char* what) {
    if (!PyBytes_Check(object.ptr())) bind::raise_dtype(std::string(what) + " must be bytes");
    return py::reinterpret_borrow<py::bytes>(object);
}

const std::uint8_t* data_of(const py::bytes& bytes) {
    return reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(bytes.ptr()));
}

std::size_t size_of(const py::bytes& bytes) { return static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr())); }

// The parts of a well-formed key; they lie in `bytes`.
PirKey require_key(const py::bytes& bytes) {
    PirKey key;
    const char* fault = pir_key_parse(data_of(bytes), size_of(bytes), &key);
    if (fault != nullptr) bind::raise("MessageError", std::string("not a key of private retrieval: ") + fault);
    return key;
}

std::uint64_t require_rows(const py::object& object) {
    return static_cast<std::uint64_t>(bind::require_int(object, 1, static_cast<std::int64_t>(pir_max_rows), "rows"));
}

py::tuple key_facts(const py::object& object) {
    const PirKey key = require_key(require_key_bytes(object, "key"));
    return py::make_tuple(key.party, key.rows);
}

py::tuple generate(const py::object& row_object, const py::object& rows_object, const py::object& random_object) {
    const std::uint64_t rows = require_rows(rows_object);
    const auto row =
        static_cast<std::uint64_t>(bind::require_int(row_object, 0, static_cast<std::int64_t>(rows - 1), "row"));
    const py::bytes random = require_key_bytes(random_object, "random");
    if (size_of(random) != pir_random_bytes) bind::raise_shape("random must be 32 bytes");
    bind::require_cpu_environment();
    const auto length = static_cast<py::ssize_t>(pir_key_bytes(rows));
    py::bytes keys[2];
    for (auto& key : keys) {
        key = py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, length));
        if (!key) throw py::error_already_set();
    }
    auto* a = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(keys[0].ptr()));
    auto* b = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(keys[1].ptr()));
    const std::uint8_t* from = data_of(random);
    Status status;
    {
        bind::GilRelease release;
        status = pir_generate(row, rows, from, a, b);
    }
    bind::throw_status(status);
    return py::make_tuple(keys[0], keys[1]);
}

void expand(const py::object& key_object, const py::object& out_object, const py::object& threads_object) {
    const py::bytes bytes = require_key_bytes(key_object, "key");
    const PirKey key = require_key(bytes);
    py::array out = bind::require_array(out_object, "out");
    if (bind::require_words_out(out, 1, "out") != 64) bind::raise_dtype("out must be uint64");
    bind::require_shape(out, {static_cast<py::ssize_t>(pir_words(key.rows))}, "out");
    const int threads = bind::require_threads(threads_object);
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = pir_expand(key, to, threads);
    }
    bind::throw_status(status);
}

// uint64, two-dimensional, 1 to 1024 selections.
py::array require_selections(const py::object& object) {
    const py::array selections = bind::require_array(object, "selections");
    if (bind::require_words(selections, 2, "selections") != 64) bind::raise_dtype("selections must be uint64");
    if (selections.shape(0) < 1 || selections.shape(0) > static_cast<py::ssize_t>(pir_max_selections)) {
        bind::raise_shape("selections must have 1 to " + std::to_string(pir_max_selections) + " rows");
    }
    return selections;
}

py::array zeros(py::ssize_t rows, py::ssize_t bytes) {
    py::array_t<std::uint8_t> made({rows, bytes});
    std::memset(made.mutable_data(), 0, static_cast<std::size_t>(made.nbytes()));
    return std::move(made);
}

// XORs into `out`, or into zeros if that is None.
py::array scan(const py::object& records_object, const py::object& selections_object, const py::object& first_object,
               const py::object& out_object, const py::object& threads_object) {
    const py::array records = bind::require_array(records_object, "records");
    bind::require_bytes(records, 2, "records");
    const py::ssize_t rows = records.shape(0), record_bytes = records.shape(1);
    if (record_bytes < 1 || record_bytes % 8 != 0) bind::raise_shape("records must have a multiple of 8 bytes each");
    const py::array selections = require_selections(selections_object);
    const std::int64_t bits = 64 * static_cast<std::int64_t>(selections.shape(1));
    const std::int64_t first = bind::require_int(first_object, 0, bits, "first_row");
    if (rows > bits - first) bind::raise_shape("selections must reach to the last record");
    py::array out =
        out_object.is_none() ? zeros(selections.shape(0), record_bytes) : bind::require_array(out_object, "out");
    bind::require_bytes(out, 2, "out");
    bind::require_shape(out, {selections.shape(0), record_bytes}, "out");
    bind::require_writeable(out, "out");
    bind::require_disjoint(out, "out", records, "records");
    bind::require_disjoint(out, "out", selections, "selections");
    const int threads = bind::require_threads(threads_object);
    const auto* from = static_cast<const std::uint8_t*>(records.data());
    const auto* by = static_cast<const std::uint64_t*>(selections.data());
    auto* to = static_cast<std::uint8_t*>(out.mutable_data());
    const auto words = static_cast<std::size_t>(selections.shape(1)), count = static_cast<std::size_t>(out.shape(0));
    Status status;
    {
        bind::GilRelease release;
        status = pir_scan(from, static_cast<std::size_t>(rows), static_cast<std::size_t>(record_bytes), by, words,
                          count, static_cast<std::uint64_t>(first), to, threads);
    }
    bind::throw_status(status);
    return out;
}

// Ordinals ascend strictly, from 0 to below `bits`.
void require_ascending(const std::int64_t* ordinals, py::ssize_t count, std::int64_t bits) {
    std::int64_t before = -1;
    bool good = true;
    for (py::ssize_t i = 0; i < count; ++i) {
        good &= ordinals[i] > before;
        before = ordinals[i];
    }
    if (!good || before >= bits) {
        bind::raise_parameter("ordinals must ascend strictly, from 0 on, and stay within the selections");
    }
}

py::array gather(const py::object& selections_object, const py::object& ordinals_object,
                 const py::object& threads_object) {
    const py::array selections = require_selections(selections_object);
    const py::array ordinals = bind::require_array(ordinals_object, "ordinals");
    if (ordinals.dtype().kind() != 'i' || ordinals.itemsize() != 8 || !bind::is_native_order(ordinals)) {
        bind::raise_dtype("ordinals must be int64");
    }
    bind::require_ndim(ordinals, 1, "ordinals");
    bind::require_aligned(ordinals, "ordinals");
    bind::require_contiguous(ordinals, "ordinals");
    const auto* at = static_cast<const std::int64_t*>(ordinals.data());
    const py::ssize_t rows = ordinals.shape(0);
    require_ascending(at, rows, 64 * static_cast<std::int64_t>(selections.shape(1)));
    const int threads = bind::require_threads(threads_object);
    py::array_t<std::uint64_t> out({selections.shape(0), (rows + 63) / 64});
    const auto* from = static_cast<const std::uint64_t*>(selections.data());
    std::uint64_t* to = out.mutable_data();
    const auto words = static_cast<std::size_t>(selections.shape(1)), count = static_cast<std::size_t>(out.shape(0));
    Status status;
    {
        bind::GilRelease release;
        status = pir_gather(from, words, count, at, static_cast<std::size_t>(rows), to, threads);
    }
    bind::throw_status(status);
    return std::move(out);
}

}  // namespace

void bind_pir(py::module_& m) {
    m.def("pir_key_facts", &key_facts, py::arg("key"));
    m.def("pir_generate", &generate, py::arg("row"), py::arg("rows"), py::arg("random"));
    m.def("pir_expand", &expand, py::arg("key"), py::arg("out"), py::arg("threads") = py::none());
    m.def("pir_scan", &scan, py::arg("records"), py::arg("selections"), py::arg("first_row") = 0,
          py::arg("out") = py::none(), py::arg("threads") = py::none());
    m.def("pir_gather", &gather, py::arg("selections"), py::arg("ordinals"), py::arg("threads") = py::none());
}
