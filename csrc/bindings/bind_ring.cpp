#include "../ring/ring.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

// Rows of `out` may lie apart; each must be dense. Returns the words between two rows.
std::size_t require_out(const py::array& out, const py::array& rows, const py::array& columns) {
    const py::ssize_t n = rows.shape(0), b = columns.shape(0), item = rows.itemsize();
    bind::require_word_dtype(out, "out");
    bind::require_same_dtype(rows, "rows", out, "out");
    bind::require_shape(out, {b, n}, "out");
    bind::require_aligned(out, "out");
    bind::require_writeable(out, "out");
    if (b > 0 && n > 1 && out.strides(1) != item) bind::raise_shape("each row of out must be contiguous");
    // numpy leaves the strides of axes of length 1, and of empty arrays, arbitrary
    const py::ssize_t stride = b > 1 && n > 0 ? out.strides(0) : n * item;
    if (stride % item != 0 || stride < n * item) {
        bind::raise_shape("rows of out must be whole words apart, in order and disjoint");
    }
    const char* begin = static_cast<const char*>(out.data());
    for (py::ssize_t i = 0; i < b; ++i) {
        const bind::Extent row = {begin + i * stride, begin + i * stride + n * item};
        if (bind::overlaps(row, bind::extent(rows)) || bind::overlaps(row, bind::extent(columns))) {
            bind::raise_parameter("out must not overlap rows or columns");
        }
    }
    return static_cast<std::size_t>(stride / item);
}

// Begins at a line of the cache, so that kernels can write whole lines past the caches.
py::array new_answers(const py::dtype& dtype, py::ssize_t b, py::ssize_t n) {
    constexpr py::ssize_t line = 64;
    const py::array_t<std::uint8_t> memory(b * n * dtype.itemsize() + line);
    auto* data = const_cast<std::uint8_t*>(memory.data());
    data += (line - static_cast<py::ssize_t>(reinterpret_cast<std::uintptr_t>(data) % line)) % line;
    return py::array(dtype, {b, n}, data, memory);
}

py::array matmul(const py::object& rows_object, const py::object& columns_object, const py::object& out_object,
                 const py::object& threads_object) {
    const py::array rows = bind::require_array(rows_object, "rows");
    const py::array columns = bind::require_array(columns_object, "columns");
    const int bits = bind::require_words(rows, 2, "rows");
    bind::require_words(columns, 2, "columns");
    bind::require_same_dtype(rows, "rows", columns, "columns");
    const py::ssize_t n = rows.shape(0), dim = rows.shape(1), b = columns.shape(0);
    if (dim == 0) bind::raise_shape("rows must have at least one word");
    if (columns.shape(1) != dim) bind::raise_shape("columns must have as many words as rows");
    const int threads = bind::require_threads(threads_object);
    py::array out;
    std::size_t stride = static_cast<std::size_t>(n);
    if (out_object.is_none()) {
        out = new_answers(rows.dtype(), b, n);
    } else {
        out = bind::require_array(out_object, "out");
        stride = require_out(out, rows, columns);
    }
    const void* rows_data = rows.data();
    const void* columns_data = columns.data();
    void* out_data = out.mutable_data();
    Status status;
    {
        bind::GilRelease release;
        status = ring_matmul(bits, rows_data, static_cast<std::size_t>(n), static_cast<std::size_t>(dim), columns_data,
                             static_cast<std::size_t>(b), out_data, stride, threads);
    }
    bind::throw_status(status);
    return out;
}

}  // namespace

void bind_ring(py::module_& m) {
    m.def("ring_matmul", &matmul, py::arg("rows"), py::arg("columns"), py::arg("out") = py::none(),
          py::arg("threads") = py::none());
}
