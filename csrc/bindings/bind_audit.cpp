#include "../audit/audit.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

// uint32, two-dimensional, aligned and dense, at least one word a row.
py::array require_rows(const py::object& object) {
    const py::array rows = bind::require_array(object, "rows");
    if (bind::require_words(rows, 2, "rows") != 32) bind::raise_dtype("rows must be uint32");
    if (rows.shape(1) < 1) bind::raise_shape("rows must have at least one word each");
    return rows;
}

// uint64, one-dimensional, `count` of them.
py::array require_factors(const py::object& object, py::ssize_t count, const char* what) {
    const py::array factors = bind::require_array(object, what);
    if (bind::require_words(factors, 1, what) != 64) bind::raise_dtype(std::string(what) + " must be uint64");
    bind::require_shape(factors, {count}, what);
    return factors;
}

using Kernel = Status (*)(const std::uint32_t*, std::size_t, std::size_t, const std::uint64_t*, std::uint64_t*, int);

py::array run(Kernel kernel, const py::array& rows, const py::array& factors, py::ssize_t results, int threads) {
    py::array_t<std::uint64_t> out(results);
    const auto* from = static_cast<const std::uint32_t*>(rows.data());
    const auto* by = static_cast<const std::uint64_t*>(factors.data());
    std::uint64_t* to = out.mutable_data();
    const auto n = static_cast<std::size_t>(rows.shape(0)), width = static_cast<std::size_t>(rows.shape(1));
    Status status;
    {
        bind::GilRelease release;
        status = kernel(from, n, width, by, to, threads);
    }
    bind::throw_status(status);
    return std::move(out);
}

py::array combine(const py::object& rows_object, const py::object& coefficients_object,
                  const py::object& threads_object) {
    const py::array rows = require_rows(rows_object);
    const py::array coefficients = require_factors(coefficients_object, rows.shape(0), "coefficients");
    return run(&rows_combine_p61, rows, coefficients, rows.shape(1), bind::require_threads(threads_object));
}

py::array tag(const py::object& rows_object, const py::object& weights_object, const py::object& threads_object) {
    const py::array rows = require_rows(rows_object);
    const py::array weights = require_factors(weights_object, rows.shape(1), "weights");
    return run(&rows_tag_p61, rows, weights, rows.shape(0), bind::require_threads(threads_object));
}

}  // namespace

void bind_audit(py::module_& m) {
    m.def("combine_rows_p61", &combine, py::arg("rows"), py::arg("coefficients"), py::arg("threads") = py::none());
    m.def("tag_rows_p61", &tag, py::arg("rows"), py::arg("weights"), py::arg("threads") = py::none());
}
