#include <optional>
#include <string>

#include "../compare/compare.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

// 32 secret bytes; the bytes object stays the caller's.
const std::uint8_t* require_key(const py::object& key, const char* what) {
    if (!PyBytes_Check(key.ptr())) bind::raise_dtype(std::string(what) + " must be bytes");
    if (PyBytes_GET_SIZE(key.ptr()) != 32) bind::raise_parameter(std::string(what) + " must have 32 bytes");
    return reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(key.ptr()));
}

// uint64, C-contiguous; any rank if ndim is 0.
py::array require_u64(const py::object& object, int ndim, const char* what, bool out = false) {
    const py::array a = bind::require_array(object, what);
    if (bind::dtype_bits(a) != 64) bind::raise_dtype(std::string(what) + " must be uint64 in native byte order");
    bind::require_words(a, ndim == 0 ? static_cast<int>(a.ndim()) : ndim, what);
    if (out) bind::require_writeable(a, what);
    return a;
}

// Planes: rows of whole lines.
py::array require_planes(const py::object& object, const char* what, bool out = false) {
    const py::array a = require_u64(object, 2, what, out);
    if (a.shape(1) % 8 != 0) bind::raise_shape(std::string(what) + " must have a multiple of 8 words a plane");
    return a;
}

py::array require_index(const py::object& object, const char* what) {
    const py::array a = bind::require_array(object, what);
    if (bind::dtype_bits(a) != 32) bind::raise_dtype(std::string(what) + " must be uint32 in native byte order");
    bind::require_words(a, 1, what);
    return a;
}

const std::uint64_t* words_of(const py::array& a) { return static_cast<const std::uint64_t*>(a.data()); }
std::uint64_t* words_of(py::array& a) { return static_cast<std::uint64_t*>(a.mutable_data()); }
std::size_t size_of(const py::array& a) { return static_cast<std::size_t>(a.size()); }

void require_same_shape(const py::array& a, const char* what, const py::array& b, const char* what_b) {
    bool same = a.ndim() == b.ndim();
    for (py::ssize_t i = 0; same && i < a.ndim(); ++i) same = a.shape(i) == b.shape(i);
    if (!same) bind::raise_shape(std::string(what) + " must have the shape of " + what_b);
}

// Not for more words than the counter of a stream has blocks for.
void require_stream(std::size_t words) {
    if (words > std::size_t{1} << 33) bind::raise_shape("a stream has at most 2^33 words");
}

void require_width(py::ssize_t width, const char* what) {
    if (width < 1 || width > 64) bind::raise_shape(std::string(what) + " must have 1 to 64 planes");
}

// Planes of n values have exactly the whole lines that these take.
void require_columns(const py::array& planes, const char* what, py::ssize_t n) {
    const auto words = static_cast<py::ssize_t>(plane_words_of(static_cast<std::size_t>(n)));
    if (planes.shape(1) != words) {
        bind::raise_shape(std::string(what) + " must have " + std::to_string(words) + " words a plane");
    }
}

// Below this many words a kernel takes a few microseconds: less than handing the GIL to another party's thread and
// back.
constexpr std::size_t small_work = 1 << 13;

template <class F>
void run(std::size_t work, F&& f) {
    Status status;
    {
        std::optional<bind::GilRelease> release;
        if (work >= small_work) release.emplace();
        status = f();
    }
    bind::throw_status(status);
}

// --- planes --------------------------------------------------------------------------------------------------------

void slice(const py::object& words_object, const py::object& first_object, const py::object& planes_object,
           const py::object& threads_object) {
    const py::array words = bind::require_array(words_object, "words");
    const int bits = bind::require_words(words, 1, "words");
    py::array planes = require_planes(planes_object, "planes", true);
    require_width(planes.shape(0), "planes");
    require_columns(planes, "planes", words.shape(0));
    const int width = static_cast<int>(planes.shape(0));
    const int first = static_cast<int>(bind::require_int(first_object, 0, 63, "first_bit"));
    if (first + width > bits) bind::raise_parameter("first_bit + width must not pass the bits of a word");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(planes, "planes", words, "words");
    const void* from = words.data();
    std::uint64_t* to = words_of(planes);
    const std::size_t n = size_of(words);
    run(n, [&] { return bits_slice(bits, from, n, first, width, to, threads); });
}

// --- streams -------------------------------------------------------------------------------------------------------

void mask(const py::object& key_object, const py::object& array_object, const char* what, int ndim, Mask operation,
          const py::object& threads_object) {
    const std::uint8_t* key = require_key(key_object, "key");
    py::array words = require_u64(array_object, ndim, what, true);
    if (words.ndim() != 1 && words.ndim() != 2) bind::raise_shape(std::string(what) + " must have 1 or 2 dimensions");
    const std::size_t n = size_of(words);
    require_stream(n);
    const int threads = bind::require_threads(threads_object);
    std::uint64_t* to = words_of(words);
    run(n, [&] { return words_mask(key, operation, to, n, threads); });
}

void prf_words(const py::object& key, const py::object& out, const py::object& threads) {
    mask(key, out, "out", 0, Mask::set, threads);
}

void prf_xor(const py::object& key, const py::object& inout, const py::object& threads) {
    mask(key, inout, "inout", 0, Mask::exclusive, threads);
}

bool require_bool(const py::object& object, const char* what) {
    if (!PyBool_Check(object.ptr())) bind::raise_dtype(std::string(what) + " must be a bool");
    return object.ptr() == Py_True;
}

void prf_add(const py::object& key, const py::object& inout, const py::object& negate, const py::object& threads) {
    mask(key, inout, "inout", 1, require_bool(negate, "negate") ? Mask::subtract : Mask::add, threads);
}

// --- gates ---------------------------------------------------------------------------------------------------------

void and_layer(const py::object& x_lo_object, const py::object& x_hi_object, const py::object& y_lo_object,
               const py::object& y_hi_object, const py::object& key_a_object, const py::object& key_b_object,
               const py::object& out_object, const py::object& threads_object) {
    const py::array x_lo = require_planes(x_lo_object, "x_lo"), x_hi = require_planes(x_hi_object, "x_hi");
    const py::array y_lo = require_planes(y_lo_object, "y_lo"), y_hi = require_planes(y_hi_object, "y_hi");
    py::array out = require_planes(out_object, "out", true);
    require_same_shape(x_hi, "x_hi", x_lo, "x_lo");
    require_same_shape(y_lo, "y_lo", x_lo, "x_lo");
    require_same_shape(y_hi, "y_hi", x_lo, "x_lo");
    require_same_shape(out, "out", x_lo, "x_lo");
    require_stream(size_of(out));
    const std::uint8_t *key_a = require_key(key_a_object, "key_a"), *key_b = require_key(key_b_object, "key_b");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", x_lo, "x_lo");
    bind::require_disjoint(out, "out", x_hi, "x_hi");
    bind::require_disjoint(out, "out", y_lo, "y_lo");
    bind::require_disjoint(out, "out", y_hi, "y_hi");
    const Replicated x = {words_of(x_lo), words_of(x_hi)}, y = {words_of(y_lo), words_of(y_hi)};
    std::uint64_t* to = words_of(out);
    const std::size_t n = size_of(out);
    run(n, [&] { return gates_and(x, y, n, key_a, key_b, to, threads); });
}

void tree_layer(const py::object& g_lo_object, const py::object& g_hi_object, const py::object& p_lo_object,
                const py::object& p_hi_object, const py::object& key_a_object, const py::object& key_b_object,
                const py::object& out_object, const py::object& threads_object) {
    const py::array g_lo = require_planes(g_lo_object, "g_lo"), g_hi = require_planes(g_hi_object, "g_hi");
    const py::array p_lo = require_planes(p_lo_object, "p_lo"), p_hi = require_planes(p_hi_object, "p_hi");
    py::array out = require_planes(out_object, "out", true);
    require_same_shape(g_hi, "g_hi", g_lo, "g_lo");
    require_same_shape(p_lo, "p_lo", g_lo, "g_lo");
    require_same_shape(p_hi, "p_hi", g_lo, "g_lo");
    const auto n = static_cast<std::size_t>(g_lo.shape(0)), words = static_cast<std::size_t>(g_lo.shape(1));
    bind::require_shape(out, {static_cast<py::ssize_t>(tree_gates(n)), g_lo.shape(1)}, "out");
    require_stream(size_of(out));
    const std::uint8_t *key_a = require_key(key_a_object, "key_a"), *key_b = require_key(key_b_object, "key_b");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", g_lo, "g_lo");
    bind::require_disjoint(out, "out", g_hi, "g_hi");
    bind::require_disjoint(out, "out", p_lo, "p_lo");
    bind::require_disjoint(out, "out", p_hi, "p_hi");
    const Replicated g = {words_of(g_lo), words_of(g_hi)}, p = {words_of(p_lo), words_of(p_hi)};
    std::uint64_t* to = words_of(out);
    run(n * words, [&] { return tree_and(g, p, n, words, key_a, key_b, to, threads); });
}

void combine_layer(const py::object& g_object, const py::object& p_object, const py::object& z_object,
                   const py::object& out_g_object, const py::object& out_p_object, const py::object& threads_object) {
    const py::array g = require_planes(g_object, "g"), p = require_planes(p_object, "p");
    const py::array z = require_planes(z_object, "z");
    py::array out_g = require_planes(out_g_object, "out_g", true), out_p = require_planes(out_p_object, "out_p", true);
    require_same_shape(p, "p", g, "g");
    const auto n = static_cast<std::size_t>(g.shape(0)), words = static_cast<std::size_t>(g.shape(1));
    if (n == 0) bind::raise_shape("g must have at least one plane");
    const py::ssize_t half = (g.shape(0) + 1) / 2;
    bind::require_shape(z, {static_cast<py::ssize_t>(tree_gates(n)), g.shape(1)}, "z");
    bind::require_shape(out_g, {half, g.shape(1)}, "out_g");
    bind::require_shape(out_p, {half, g.shape(1)}, "out_p");
    const int threads = bind::require_threads(threads_object);
    if (out_g.data() != g.data()) bind::require_disjoint(out_g, "out_g", g, "g");
    if (out_p.data() != p.data()) bind::require_disjoint(out_p, "out_p", p, "p");
    bind::require_disjoint(out_g, "out_g", p, "p");
    bind::require_disjoint(out_g, "out_g", z, "z");
    bind::require_disjoint(out_p, "out_p", g, "g");
    bind::require_disjoint(out_p, "out_p", z, "z");
    bind::require_disjoint(out_g, "out_g", out_p, "out_p");
    const std::uint64_t *from_g = words_of(g), *from_p = words_of(p), *from_z = words_of(z);
    std::uint64_t *to_g = words_of(out_g), *to_p = words_of(out_p);
    run(n * words, [&] { return tree_combine(from_g, from_p, from_z, n, words, to_g, to_p, threads); });
}

// --- digits --------------------------------------------------------------------------------------------------------

void products_of_digits(const py::object& bits_object, const py::object& out_object, const py::object& threads_object) {
    const py::array bits = require_planes(bits_object, "bits");
    py::array out = require_planes(out_object, "out", true);
    require_width(bits.shape(0), "bits");
    const auto n = static_cast<std::size_t>(bits.shape(0)), words = static_cast<std::size_t>(bits.shape(1));
    bind::require_shape(out, {static_cast<py::ssize_t>(digit_products_of(n)), bits.shape(1)}, "out");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", bits, "bits");
    const std::uint64_t* from = words_of(bits);
    std::uint64_t* to = words_of(out);
    run(n * words, [&] { return digit_products(from, n, words, to, threads); });
}

void carries_of_digits(const py::object& shares_object, const py::object& t_object, const py::object& first_object,
                       const py::object& out_object, const py::object& threads_object) {
    const py::array shares = require_planes(shares_object, "shares"), t = require_planes(t_object, "t");
    py::array out = require_planes(out_object, "out", true);
    require_width(t.shape(0), "t");
    const auto n = static_cast<std::size_t>(t.shape(0)), words = static_cast<std::size_t>(t.shape(1));
    bind::require_shape(shares, {static_cast<py::ssize_t>(digit_products_of(n)), t.shape(1)}, "shares");
    bind::require_shape(out, {static_cast<py::ssize_t>(2 * digits_of(n) - 1), t.shape(1)}, "out");
    const bool first = require_bool(first_object, "first");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", shares, "shares");
    bind::require_disjoint(out, "out", t, "t");
    const std::uint64_t *s = words_of(shares), *known = words_of(t);
    std::uint64_t* to = words_of(out);
    run(n * words, [&] { return digit_carries(s, known, n, words, first, to, threads); });
}

// The packed array must have exactly the words that n words of `width` bits take.
int require_packing(const py::object& width_object, std::size_t n, const py::array& packed, const char* what) {
    const int width = static_cast<int>(bind::require_int(width_object, 1, 64, "width"));
    const std::size_t words = packed_words_of(n, static_cast<std::size_t>(width));
    bind::require_shape(packed, {static_cast<py::ssize_t>(words)}, what);
    return width;
}

void pack_words(const py::object& words_object, const py::object& width_object, const py::object& out_object,
                const py::object& threads_object) {
    const py::array words = require_u64(words_object, 1, "words");
    py::array out = require_u64(out_object, 1, "out", true);
    const std::size_t n = size_of(words);
    const int width = require_packing(width_object, n, out, "out");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", words, "words");
    run(n, [=, from = words_of(words), to = words_of(out)] { return words_pack(from, n, width, to, threads); });
}

void unpack_words(const py::object& packed_object, const py::object& width_object, const py::object& out_object,
                  const py::object& threads_object) {
    const py::array packed = require_u64(packed_object, 1, "packed");
    py::array out = require_u64(out_object, 1, "out", true);
    const std::size_t n = size_of(out);
    const int width = require_packing(width_object, n, packed, "packed");
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", packed, "packed");
    run(n, [=, from = words_of(packed), to = words_of(out)] { return words_unpack(from, n, width, to, threads); });
}

// --- shuffle -------------------------------------------------------------------------------------------------------

py::array permutation(const py::object& key_object, const py::object& n_object) {
    bind::require_cpu_environment();
    const std::uint8_t* key = require_key(key_object, "key");
    const auto n = static_cast<std::size_t>(bind::require_int(n_object, 0, std::int64_t{1} << 31, "n"));
    py::array_t<std::uint32_t> out(static_cast<py::ssize_t>(n));
    std::uint32_t* to = out.mutable_data();
    run(n, [&] { return permutation_draw_var(key, to, n); });
    return std::move(out);
}

// A key or none, and whether its stream is subtracted. Without a key the sign means nothing.
const std::uint8_t* require_mask(const py::object& key, const char* what, const py::object& sign, const char* what_sign,
                                 bool* subtract) {
    const auto value = bind::require_int(sign, -1, 1, what_sign);
    if (value == 0 && !key.is_none()) bind::raise_parameter(std::string(what_sign) + " must be 1 or -1");
    *subtract = value < 0;
    return key.is_none() ? nullptr : require_key(key, what);
}

// Runs a pass over n words; every index must be below n.
void run_pass(const ShufflePass& pass, std::size_t n, int threads) {
    Status status;
    bool within = true;
    {
        bind::GilRelease release;
        std::uint32_t largest = 0;
        status = indices_max(pass.index, n, &largest, threads);
        within = n == 0 || largest < n;
        if (status == Status::ok && within) status = shuffle_pass_var(pass, n, threads);
    }
    bind::throw_status(status);
    if (!within) bind::raise_parameter("perm must be below the number of words");
}

void shuffle_pass(const py::object& x_object, const py::object& perm_object, const py::object& key,
                  const py::object& sign, const py::object& out_object, const py::object& threads_object) {
    const py::array x = require_u64(x_object, 1, "x"), perm = require_index(perm_object, "perm");
    py::array out = require_u64(out_object, 1, "out", true);
    ShufflePass pass = {};
    pass.x = words_of(x);
    require_same_shape(perm, "perm", x, "x");
    require_same_shape(out, "out", x, "x");
    require_stream(size_of(x));
    pass.key = require_mask(key, "key", sign, "sign", &pass.subtract);
    const int threads = bind::require_threads(threads_object);
    bind::require_disjoint(out, "out", x, "x");
    bind::require_disjoint(out, "out", perm, "perm");
    pass.index = static_cast<const std::uint32_t*>(perm.data());
    pass.out = words_of(out);
    run_pass(pass, size_of(x), threads);
}

// --- sums of squares -----------------------------------------------------------------------------------------------

// Rows of words, their weights, a sum per row. Returns the bits of a word.
int require_squares(const py::array& x, const char* what_x, const py::array& y, const char* what_y,
                    const py::array& weights, const py::array& out) {
    const int bits = bind::require_words(x, 2, what_x);
    bind::require_words(y, 2, what_y);
    bind::require_same_dtype(x, what_x, y, what_y);
    require_same_shape(y, what_y, x, what_x);
    bind::require_shape(weights, {x.shape(1)}, "weights");
    bind::require_shape(out, {x.shape(0)}, "out");
    bind::require_disjoint(out, "out", x, what_x);
    bind::require_disjoint(out, "out", y, what_y);
    bind::require_disjoint(out, "out", weights, "weights");
    return bits;
}

constexpr const char* hint_names[] = {"carry", "msb", "delta"};

struct Hints {
    int bits = 0;  // 0: none
    py::array arrays[3];
};

// carry, msb and delta: all None, or arrays of the words' shape and one dtype that out does not overlap.
Hints require_hints(std::initializer_list<py::object> objects, const py::array& words, const py::array& out) {
    Hints hints;
    int i = 0, given = 0;
    for (const auto& object : objects) given += !object.is_none();
    if (given == 0) return hints;
    if (given != 3) bind::raise_parameter("carry, msb and delta must be given together");
    if (words.itemsize() == 8) bind::raise_parameter("words of 64 bits have no hints");
    for (const auto& object : objects) {
        const char* what = hint_names[i];
        const py::array a = bind::require_array(object, what);
        const auto size = a.itemsize();
        if (a.dtype().kind() != 'u' || !bind::is_native_order(a) || (size != 1 && size != 2 && size != 4)) {
            bind::raise_dtype(std::string(what) + " must be uint8, uint16 or uint32 in native byte order");
        }
        if (i != 0 && 8 * size != hints.bits) bind::raise_dtype(std::string(what) + " must have the dtype of carry");
        require_same_shape(a, what, words, "the words");
        bind::require_aligned(a, what);
        bind::require_contiguous(a, what);
        bind::require_disjoint(out, "out", a, what);
        hints.bits = static_cast<int>(8 * size);
        hints.arrays[i++] = a;
    }
    return hints;
}

void square_dealer(const py::object& r1_object, const py::object& r2_object, const py::object& weights_object,
                   const py::object& out_object, const py::object& carry, const py::object& msb,
                   const py::object& delta, const py::object& threads_object) {
    const py::array r1 = bind::require_array(r1_object, "r1"), r2 = bind::require_array(r2_object, "r2");
    const py::array weights = require_u64(weights_object, 1, "weights");
    py::array out = require_u64(out_object, 1, "out", true);
    const int bits = require_squares(r1, "r1", r2, "r2", weights, out);
    Hints hints = require_hints({carry, msb, delta}, r1, out);
    const int threads = bind::require_threads(threads_object);
    MippSquaresDeal work = {};
    void** const to[] = {&work.carry, &work.msb, &work.delta};
    for (int i = 0; hints.bits != 0 && i < 3; ++i) {
        py::array& a = hints.arrays[i];
        bind::require_writeable(a, hint_names[i]);
        bind::require_disjoint(a, hint_names[i], r1, "r1");
        bind::require_disjoint(a, hint_names[i], r2, "r2");
        bind::require_disjoint(a, hint_names[i], weights, "weights");
        for (int j = 0; j < i; ++j) bind::require_disjoint(a, hint_names[i], hints.arrays[j], hint_names[j]);
        *to[i] = a.mutable_data();
    }
    work.r1 = r1.data();
    work.r2 = r2.data();
    work.weights = words_of(weights);
    work.rows = size_of(out);
    work.width = size_of(weights);
    work.hint_bits = hints.bits;
    work.out = words_of(out);
    run(size_of(r1), [&] { return squares_deal(bits, work, threads); });
}

void square_share(const py::object& m_object, const py::object& r_object, const py::object& weights_object,
                  const py::object& first, const py::object& out_object, const py::object& carry, const py::object& msb,
                  const py::object& delta, const py::object& threads_object) {
    const py::array m = bind::require_array(m_object, "m"), r = bind::require_array(r_object, "r");
    const py::array weights = require_u64(weights_object, 1, "weights");
    py::array out = require_u64(out_object, 1, "out", true);
    const int bits = require_squares(m, "m", r, "r", weights, out);
    const Hints hints = require_hints({carry, msb, delta}, m, out);
    const int threads = bind::require_threads(threads_object);
    MippSquaresShare work = {};
    const void** const to[] = {&work.carry, &work.msb, &work.delta};
    for (int i = 0; hints.bits != 0 && i < 3; ++i) *to[i] = hints.arrays[i].data();
    work.m = m.data();
    work.r = r.data();
    work.weights = words_of(weights);
    work.rows = size_of(out);
    work.width = size_of(weights);
    work.first = require_bool(first, "first");
    work.hint_bits = hints.bits;
    work.out = words_of(out);
    run(size_of(m), [&] { return squares_share(bits, work, threads); });
}

}  // namespace

void bind_compare(py::module_& m) {
    const auto threads = py::arg("threads") = py::none();
    m.def("slice_bits", &slice, py::arg("words"), py::arg("first_bit"), py::arg("planes"), threads);
    m.def("prf_words", &prf_words, py::arg("key"), py::arg("out"), threads);
    m.def("prf_xor", &prf_xor, py::arg("key"), py::arg("inout"), threads);
    m.def("prf_add", &prf_add, py::arg("key"), py::arg("inout"), py::arg("negate"), threads);
    m.def("and_layer", &and_layer, py::arg("x_lo"), py::arg("x_hi"), py::arg("y_lo"), py::arg("y_hi"), py::arg("key_a"),
          py::arg("key_b"), py::arg("out"), threads);
    m.def("tree_layer", &tree_layer, py::arg("g_lo"), py::arg("g_hi"), py::arg("p_lo"), py::arg("p_hi"),
          py::arg("key_a"), py::arg("key_b"), py::arg("out"), threads);
    m.def("tree_combine", &combine_layer, py::arg("g"), py::arg("p"), py::arg("z"), py::arg("out_g"), py::arg("out_p"),
          threads);
    m.def("digit_products", &products_of_digits, py::arg("bits"), py::arg("out"), threads);
    m.def("digit_carries", &carries_of_digits, py::arg("shares"), py::arg("t"), py::arg("first"), py::arg("out"),
          threads);
    m.def("pack_words", &pack_words, py::arg("words"), py::arg("width"), py::arg("out"), threads);
    m.def("unpack_words", &unpack_words, py::arg("packed"), py::arg("width"), py::arg("out"), threads);
    m.def("permutation", &permutation, py::arg("key"), py::arg("n"));
    m.def("shuffle_pass", &shuffle_pass, py::arg("x"), py::arg("perm"), py::arg("key"), py::arg("sign"), py::arg("out"),
          threads);
    m.def("square_dealer", &square_dealer, py::arg("r1"), py::arg("r2"), py::arg("weights"), py::arg("out"),
          py::arg("carry"), py::arg("msb"), py::arg("delta"), threads);
    m.def("square_share", &square_share, py::arg("m"), py::arg("r"), py::arg("weights"), py::arg("first"),
          py::arg("out"), py::arg("carry"), py::arg("msb"), py::arg("delta"), threads);
}
