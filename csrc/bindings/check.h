// The one place where arguments are checked and status codes become mipp.errors.
//
// Python objects come in as py::object or py::array; each require_* returns nothing or what it checked, and raises the
// typed error of mipp.errors otherwise. Messages name the argument and what was expected, never a value of an array.
// Release the interpreter once per call, after all checks:
//
//     Status status;
//     {
//         GilRelease release;
//         status = family_entry(...);
//     }
//     throw_status(status);
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "../common/pool.h"
#include "../common/status.h"
#include "../cpu/cpu.h"

namespace mipp {
namespace bind {

namespace py = pybind11;

using GilRelease = py::gil_scoped_release;

// Raises mipp.errors.<name>.
[[noreturn]] inline void raise(const char* name, const std::string& message) {
    py::object kind = py::module_::import("mipp.errors").attr(name);
    PyErr_SetString(kind.ptr(), message.c_str());
    throw py::error_already_set();
}

[[noreturn]] inline void raise_parameter(const std::string& message) { raise("ParameterError", message); }
[[noreturn]] inline void raise_dtype(const std::string& message) { raise("DTypeError", message); }
[[noreturn]] inline void raise_shape(const std::string& message) { raise("ShapeError", message); }
[[noreturn]] inline void raise_cpu(const std::string& message) { raise("CpuError", message); }

// Turns what an entry point answered into an exception; does nothing for ok. Call with the GIL held.
inline void throw_status(Status status) {
    switch (status) {
        case Status::ok:
            return;
        case Status::no_memory:
            raise("NativeMemoryError", "out of memory in a native kernel");
        case Status::unsupported:
            raise_cpu("the processor level in force lacks this kernel");
        case Status::interrupted:
            if (PyErr_Occurred()) throw py::error_already_set();
            raise("NativeError", "a native kernel was interrupted");
        case Status::no_threads:
            raise("NativeError", "the operating system gave no thread");
        case Status::bad_argument:
            break;
    }
    raise("NativeError", "a native kernel refused its arguments");
}

// The argument as an array; no conversion, no copy.
inline py::array require_array(const py::handle& object, const char* what) {
    if (!py::isinstance<py::array>(object)) raise_dtype(std::string(what) + " must be a numpy array");
    return py::reinterpret_borrow<py::array>(object);
}

inline bool is_native_order(const py::array& a) {
    const char order = a.dtype().byteorder();
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return order == '=' || order == '|' || order == '<';
#else
    return order == '=' || order == '|' || order == '>';
#endif
}

// 16, 32 or 64 for native-order unsigned words, else 0.
inline int dtype_bits(const py::array& a) {
    if (a.dtype().kind() != 'u' || !is_native_order(a)) return 0;
    const auto size = a.itemsize();
    return size == 2 || size == 4 || size == 8 ? static_cast<int>(8 * size) : 0;
}

inline void require_ndim(const py::array& a, int ndim, const char* what) {
    if (a.ndim() != ndim) {
        raise_shape(std::string(what) + " must have " + std::to_string(ndim) + " dimensions, not " +
                    std::to_string(a.ndim()));
    }
}

inline void require_aligned(const py::array& a, const char* what) {
    if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        raise_shape(std::string(what) + " must be aligned to its word size");
    }
}

inline void require_contiguous(const py::array& a, const char* what) {
    if (!(a.flags() & py::array::c_style)) raise_shape(std::string(what) + " must be C-contiguous");
}

inline void require_writeable(const py::array& a, const char* what) {
    if (!a.writeable()) raise_shape(std::string(what) + " must be writeable");
}

// Unsigned native words (uint16, uint32, uint64), any strides. Returns the bits of a word.
inline int require_word_dtype(const py::array& a, const char* what) {
    const int bits = dtype_bits(a);
    if (bits == 0) raise_dtype(std::string(what) + " must be uint16, uint32 or uint64 in native byte order");
    return bits;
}

// Unsigned native words, `ndim` dimensions, aligned and C-contiguous. Returns the bits of a word.
inline int require_words(const py::array& a, int ndim, const char* what) {
    const int bits = require_word_dtype(a, what);
    require_ndim(a, ndim, what);
    require_aligned(a, what);
    require_contiguous(a, what);
    return bits;
}

// The same, and writeable.
inline int require_words_out(const py::array& a, int ndim, const char* what) {
    const int bits = require_words(a, ndim, what);
    require_writeable(a, what);
    return bits;
}

// uint8, `ndim` dimensions, C-contiguous.
inline void require_bytes(const py::array& a, int ndim, const char* what) {
    if (a.dtype().kind() != 'u' || a.itemsize() != 1) raise_dtype(std::string(what) + " must be uint8");
    require_ndim(a, ndim, what);
    require_contiguous(a, what);
}

inline void require_same_dtype(const py::array& a, const char* what_a, const py::array& b, const char* what_b) {
    if (dtype_bits(a) != dtype_bits(b)) {
        raise_dtype(std::string(what_b) + " must have the dtype of " + what_a);
    }
}

inline std::string shape_text(std::initializer_list<py::ssize_t> shape) {
    std::string text = "(";
    for (const auto n : shape) text += std::to_string(n) + (shape.size() == 1 ? "," : ", ");
    if (shape.size() > 1) text.resize(text.size() - 2);
    return text + ")";
}

// Exactly this shape; checks the rank as well.
inline void require_shape(const py::array& a, std::initializer_list<py::ssize_t> shape, const char* what) {
    bool same = static_cast<std::size_t>(a.ndim()) == shape.size();
    py::ssize_t i = 0;
    for (const auto n : shape) {
        if (!same) break;
        same = a.shape(i++) == n;
    }
    if (!same) raise_shape(std::string(what) + " must have shape " + shape_text(shape));
}

// An integer (no bool) in [low, high].
inline std::int64_t require_int(const py::handle& object, std::int64_t low, std::int64_t high, const char* what) {
    if (PyBool_Check(object.ptr()) || !PyIndex_Check(object.ptr())) {
        raise_dtype(std::string(what) + " must be an int");
    }
    py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    if (!index) throw py::error_already_set();
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (overflow != 0 || value < low || value > high) {
        raise_parameter(std::string(what) + " must be " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
}

inline std::string level_list() {
    std::string text;
    for (int i = 0; i < level_count; ++i) text += std::string(i == 0 ? "" : ", ") + level_name(static_cast<Level>(i));
    return text;
}

// A bad MIPP_CPU is an error of the first call that uses a kernel, not a silent choice of another level.
inline void require_cpu_environment() {
    if (cpu_environment() == Environment::unknown_level) {
        raise_cpu("MIPP_CPU must be one of " + level_list());
    }
    if (cpu_environment() == Environment::unavailable_level) {
        raise_cpu(std::string("MIPP_CPU asks for a level above this machine's best, ") + level_name(cpu_best_level()));
    }
}

// `threads` of every function: None and 0 are the default (MIPP_NUM_THREADS or the processors), else 1 to 1024.
inline int require_threads(const py::handle& threads) {
    require_cpu_environment();
    const std::int64_t wanted = threads.is_none() ? 0 : require_int(threads, 0, pool_max_threads, "threads");
    int count;
    if (!pool_threads(static_cast<int>(wanted), &count)) {
        raise_parameter("MIPP_NUM_THREADS must be an integer from 1 to 1024");
    }
    return count;
}

// Bytes [begin, end) that an aligned array with non-negative strides touches; empty arrays touch none.
struct Extent {
    const char* begin;
    const char* end;
};

inline Extent extent(const py::array& a) {
    const char* begin = static_cast<const char*>(a.data());
    if (a.size() == 0) return {begin, begin};
    const char* last = begin;
    for (py::ssize_t i = 0; i < a.ndim(); ++i) last += (a.shape(i) - 1) * a.strides(i);
    return {begin, last + a.itemsize()};
}

inline bool overlaps(Extent a, Extent b) {
    return a.begin != a.end && b.begin != b.end && a.begin < b.end && b.begin < a.end;
}

// No byte of `out` may lie in `input`. By bounds: exact when both are contiguous.
inline void require_disjoint(const py::array& out, const char* what_out, const py::array& input, const char* what_in) {
    if (overlaps(extent(out), extent(input))) {
        raise_parameter(std::string(what_out) + " must not overlap " + what_in);
    }
}

}  // namespace bind
}  // namespace mipp
