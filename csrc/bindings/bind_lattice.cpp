#include <cstring>
#include <memory>
#include <vector>

#include "../lattice/lattice.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

std::unique_ptr<LatticeRing> make_ring(const py::object& degree_object, const py::object& primes_object) {
    const std::int64_t degree =
        bind::require_int(degree_object, 1, static_cast<std::int64_t>(lattice_max_degree), "degree");
    if (!py::isinstance<py::sequence>(primes_object)) bind::raise_dtype("primes must be a sequence of int");
    const auto sequence = py::reinterpret_borrow<py::sequence>(primes_object);
    if (sequence.size() > lattice_max_primes) bind::raise_parameter("there must be 1 to 8 primes");
    std::vector<std::uint64_t> primes;
    for (const auto prime : sequence) {
        primes.push_back(static_cast<std::uint64_t>(bind::require_int(prime, 3, std::int64_t{1} << 62, "a prime")));
    }
    const char* fault = LatticeRing::fault(static_cast<std::size_t>(degree), primes);
    if (fault != nullptr) bind::raise_parameter(fault);
    return std::make_unique<LatticeRing>(static_cast<std::size_t>(degree), primes);
}

py::tuple primes_of(const LatticeRing& ring) {
    py::tuple out(ring.limbs());
    for (std::size_t l = 0; l < ring.limbs(); ++l) out[l] = ring.primes()[l];
    return out;
}

// uint64 with these dimensions behind any others: how many of them.
std::size_t require_leading(const py::array& a, std::initializer_list<py::ssize_t> shape, const char* what) {
    const auto count = static_cast<py::ssize_t>(shape.size());
    if (bind::dtype_bits(a) != 64) bind::raise_dtype(std::string(what) + " must be uint64 in native byte order");
    bind::require_aligned(a, what);
    bind::require_contiguous(a, what);
    bool same = a.ndim() >= count;
    py::ssize_t i = a.ndim() - count;
    for (const auto n : shape) same = same && a.shape(i++) == n;
    if (!same) bind::raise_shape(std::string(what) + " must have last dimensions " + bind::shape_text(shape));
    std::size_t leading = 1;
    for (i = 0; i < a.ndim() - count; ++i) leading *= static_cast<std::size_t>(a.shape(i));
    return leading;
}

// Polynomials (..., L, N).
std::size_t require_polynomials(const LatticeRing& ring, const py::array& a, const char* what) {
    return require_leading(a, {static_cast<py::ssize_t>(ring.limbs()), static_cast<py::ssize_t>(ring.degree())}, what);
}

std::size_t require_polynomials_out(const LatticeRing& ring, const py::array& a, const char* what) {
    const std::size_t count = require_polynomials(ring, a, what);
    bind::require_writeable(a, what);
    return count;
}

std::size_t require_numbers(const LatticeRing& ring, const py::array& a, const char* what) {
    return require_leading(a, {static_cast<py::ssize_t>(ring.degree())}, what);
}

const std::uint64_t* words_of(const py::array& a) { return static_cast<const std::uint64_t*>(a.data()); }
std::uint64_t* words_of(py::array& a) { return static_cast<std::uint64_t*>(a.mutable_data()); }

void require_count(std::size_t count, std::size_t wanted, const char* what, const char* like) {
    if (count != wanted) bind::raise_shape(std::string(what) + " must have as many polynomials as " + like);
}

template <class Run>
void run_released(Run run) {
    Status status;
    {
        bind::GilRelease release;
        status = run();
    }
    bind::throw_status(status);
}

using InPlace = Status (*)(const LatticeRing&, std::uint64_t*, std::size_t, int);

template <InPlace kernel>
void in_place(const LatticeRing& ring, const py::object& a_object, const py::object& threads_object) {
    py::array a = bind::require_array(a_object, "a");
    const std::size_t count = require_polynomials_out(ring, a, "a");
    const int threads = bind::require_threads(threads_object);
    std::uint64_t* at = words_of(a);
    run_released([&] { return kernel(ring, at, count, threads); });
}

void multiply(const LatticeRing& ring, const py::object& a_object, const py::object& b_object,
              const py::object& out_object, const py::object& threads_object) {
    const py::array a = bind::require_array(a_object, "a"), b = bind::require_array(b_object, "b");
    py::array out = bind::require_array(out_object, "out");
    const std::size_t count = require_polynomials(ring, a, "a"), factors = require_polynomials(ring, b, "b");
    if (factors != 1) require_count(factors, count, "b", "a, or one,");
    require_count(require_polynomials_out(ring, out, "out"), count, "out", "a");
    if (out.data() != a.data()) bind::require_disjoint(out, "out", a, "a");
    bind::require_disjoint(out, "out", b, "b");
    const int threads = bind::require_threads(threads_object);
    const std::uint64_t *left = words_of(a), *right = words_of(b);
    std::uint64_t* to = words_of(out);
    run_released([&] { return lattice_multiply(ring, left, right, count, factors == 1, to, false, threads); });
}

void add(const LatticeRing& ring, const py::object& a_object, const py::object& b_object,
         const py::object& threads_object) {
    py::array a = bind::require_array(a_object, "a");
    const py::array b = bind::require_array(b_object, "b");
    const std::size_t count = require_polynomials_out(ring, a, "a"), terms = require_polynomials(ring, b, "b");
    if (terms != 1) require_count(terms, count, "b", "a, or one,");
    bind::require_disjoint(a, "a", b, "b");
    const int threads = bind::require_threads(threads_object);
    std::uint64_t* to = words_of(a);
    const std::uint64_t* from = words_of(b);
    run_released([&] { return lattice_add(ring, to, from, count, terms == 1, threads); });
}

// int64 in native order.
const std::int64_t* require_signed(const py::array& a, const char* what) {
    if (a.dtype().kind() != 'i' || a.itemsize() != 8 || !bind::is_native_order(a)) {
        bind::raise_dtype(std::string(what) + " must be int64");
    }
    bind::require_aligned(a, what);
    bind::require_contiguous(a, what);
    return static_cast<const std::int64_t*>(a.data());
}

void residues(const LatticeRing& ring, const py::object& values_object, const py::object& out_object,
              const py::object& threads_object) {
    const py::array values = bind::require_array(values_object, "values");
    py::array out = bind::require_array(out_object, "out");
    const std::int64_t* from = require_signed(values, "values");
    const std::size_t count = require_polynomials_out(ring, out, "out");
    if (values.ndim() < 1 || values.shape(values.ndim() - 1) != static_cast<py::ssize_t>(ring.degree()) ||
        static_cast<std::size_t>(values.size()) != count * ring.degree()) {
        bind::raise_shape("values must have the degree as last dimension, and one row for each polynomial of out");
    }
    bind::require_disjoint(out, "out", values, "values");
    const int threads = bind::require_threads(threads_object);
    std::uint64_t* to = words_of(out);
    run_released([&] { return lattice_residues(ring, from, count, to, threads); });
}

void sample(const LatticeRing& ring, LatticeKind kind, int bits, const KeySchedules& schedules,
            const py::object& first_object, const py::object& out_object, const py::object& threads_object) {
    py::array out = bind::require_array(out_object, "out");
    const std::size_t count = require_polynomials_out(ring, out, "out");
    const std::int64_t first = bind::require_int(first_object, 0, static_cast<std::int64_t>(schedules.size()), "first");
    if (count > schedules.size() - static_cast<std::size_t>(first)) {
        bind::raise_shape("there must be a schedule for each polynomial of out");
    }
    const int threads = bind::require_threads(threads_object);
    std::uint64_t* to = words_of(out);
    run_released([&] {
        return lattice_sample(ring, kind, bits, schedules, static_cast<std::size_t>(first), count, to, threads);
    });
}

template <LatticeKind kind>
void sample_of(const LatticeRing& ring, const KeySchedules& schedules, const py::object& first, const py::object& out,
               const py::object& threads) {
    sample(ring, kind, 0, schedules, first, out, threads);
}

void flood(const LatticeRing& ring, const KeySchedules& schedules, const py::object& first,
           const py::object& bits_object, const py::object& out, const py::object& threads) {
    const std::int64_t bits = bind::require_int(bits_object, 1, lattice_max_flood, "bits");
    sample(ring, LatticeKind::flood, static_cast<int>(bits), schedules, first, out, threads);
}

void switch_down(const LatticeRing& ring, const py::object& a_object, const py::object& bits_object,
                 const py::object& out_object, const py::object& threads_object) {
    const py::array a = bind::require_array(a_object, "a");
    py::array out = bind::require_array(out_object, "out");
    const std::size_t count = require_polynomials(ring, a, "a");
    const auto bits = static_cast<int>(bind::require_int(bits_object, 1, 52, "bits"));
    require_count(require_numbers(ring, out, "out"), count, "out", "a");
    bind::require_writeable(out, "out");
    bind::require_disjoint(out, "out", a, "a");
    const int threads = bind::require_threads(threads_object);
    const std::uint64_t* from = words_of(a);
    std::uint64_t* to = words_of(out);
    run_released([&] { return lattice_switch(ring, from, count, bits, to, threads); });
}

void encode(const LatticeRing& ring, const py::object& values_object, const py::object& bits_object,
            const py::object& out_object) {
    const py::array values = bind::require_array(values_object, "values");
    py::array out = bind::require_array(out_object, "out");
    const std::int64_t* from = require_signed(values, "values");
    bind::require_ndim(values, 1, "values");
    if (bind::require_words_out(out, 2, "out") != 64) bind::raise_dtype("out must be uint64");
    bind::require_shape(out, {values.shape(0), static_cast<py::ssize_t>(ring.limbs())}, "out");
    bind::require_disjoint(out, "out", values, "values");
    const auto bits = static_cast<int>(bind::require_int(bits_object, 1, 32, "plain_bits"));
    std::uint64_t* to = words_of(out);
    const auto count = static_cast<std::size_t>(values.shape(0));
    run_released([&] { return lattice_encode(ring, from, count, bits, to); });
}

void matvec(const LatticeRing& ring, const py::object& words_object, const py::object& bits_object,
            const py::object& query_object, const py::object& out_object, const py::object& threads_object) {
    const py::array words = bind::require_array(words_object, "words"),
                    query = bind::require_array(query_object, "query");
    py::array out = bind::require_array(out_object, "out");
    const int bits = bind::require_words(words, 2, "words");
    const py::ssize_t rows = words.shape(0), dim = words.shape(1);
    if (dim < 1 || dim > static_cast<py::ssize_t>(lattice_max_coordinates)) {
        bind::raise_shape("words must have 1 to 4096 columns");
    }
    const auto plain_bits = static_cast<int>(bind::require_int(bits_object, 1, bits < 32 ? bits : 32, "plain_bits"));
    for (const std::uint64_t p : ring.primes()) {
        if (p >> (plain_bits - 1) == 0) bind::raise_parameter("plain_bits is too large for a prime of the ring");
    }
    const auto n = static_cast<py::ssize_t>(ring.degree()), limbs = static_cast<py::ssize_t>(ring.limbs());
    require_polynomials(ring, query, "query");
    bind::require_shape(query, {dim, 2, limbs, n}, "query");
    require_polynomials_out(ring, out, "out");
    bind::require_shape(out, {(rows + n - 1) / n, 2, limbs, n}, "out");
    bind::require_disjoint(out, "out", words, "words");
    bind::require_disjoint(out, "out", query, "query");
    const int threads = bind::require_threads(threads_object);
    const void* from = words.data();
    const std::uint64_t* by = words_of(query);
    std::uint64_t* to = words_of(out);
    run_released([&] {
        return lattice_matvec(ring, from, bits, static_cast<std::size_t>(rows), static_cast<std::size_t>(dim),
                              plain_bits, by, to, threads);
    });
}

void phase(const LatticeRing& ring, const py::object& c0_object, const py::object& c1_object,
           const py::object& secret_object, const py::object& bits_object, const py::object& out_object,
           const py::object& threads_object) {
    const py::array c0 = bind::require_array(c0_object, "c0"), c1 = bind::require_array(c1_object, "c1"),
                    secret = bind::require_array(secret_object, "secret");
    py::array out = bind::require_array(out_object, "out");
    const std::size_t count = require_numbers(ring, c0, "c0");
    require_count(require_numbers(ring, c1, "c1"), count, "c1", "c0");
    require_count(require_numbers(ring, out, "out"), count, "out", "c0");
    require_count(require_polynomials(ring, secret, "secret"), 1, "secret", "one key");
    bind::require_writeable(out, "out");
    for (const py::array* input : {&c0, &c1, &secret}) bind::require_disjoint(out, "out", *input, "an input");
    const auto bits = static_cast<int>(bind::require_int(bits_object, 2, 52, "bits"));
    if (ring.primes()[0] >> 1 <= static_cast<std::uint64_t>(ring.degree()) << ((bits + 1) / 2)) {
        bind::raise_parameter("bits is too large for the first prime of the ring");
    }
    const int threads = bind::require_threads(threads_object);
    const std::uint64_t *first = words_of(c0), *second = words_of(c1), *key = words_of(secret);
    std::uint64_t* to = words_of(out);
    run_released([&] { return lattice_phase(ring, first, second, count, key, bits, to, threads); });
}

void expand(const LatticeRing& ring, const LatticeRing& key_ring, const py::object& ciphertext_object,
            const py::object& keys_object, const py::object& count_object, const py::object& out_object,
            const py::object& threads_object) {
    const py::array ciphertext = bind::require_array(ciphertext_object, "ciphertext"),
                    keys = bind::require_array(keys_object, "keys");
    py::array out = bind::require_array(out_object, "out");
    const auto n = static_cast<py::ssize_t>(ring.degree()), limbs = static_cast<py::ssize_t>(ring.limbs());
    bool extends = key_ring.degree() == ring.degree() && key_ring.limbs() == ring.limbs() + 1;
    for (std::size_t l = 0; extends && l < ring.limbs(); ++l) extends = ring.primes()[l] == key_ring.primes()[l];
    if (ring.limbs() > MIPP_LATTICE_COLUMNS) bind::raise_parameter("only rings of at most 4 primes expand");
    if (!extends) bind::raise_parameter("key_ring must have the degree and the primes of ring, and one more prime");
    for (const std::uint64_t p : key_ring.primes()) {
        // digits modulo one prime are numbers modulo another
        for (const std::uint64_t other : key_ring.primes()) {
            if (p / 2 >= other) bind::raise_parameter("the primes of key_ring must be of one size");
        }
    }
    const std::int64_t count = bind::require_int(count_object, 1, static_cast<std::int64_t>(ring.degree()), "count");
    int levels = 0;
    while (std::int64_t{1} << levels < count) ++levels;
    require_polynomials(ring, ciphertext, "ciphertext");
    bind::require_shape(ciphertext, {2, limbs, n}, "ciphertext");
    require_polynomials(key_ring, keys, "keys");
    bind::require_shape(keys, {levels, limbs, 2, limbs + 1, n}, "keys");
    require_polynomials_out(ring, out, "out");
    bind::require_shape(out, {static_cast<py::ssize_t>(count), 2, limbs, n}, "out");
    bind::require_disjoint(out, "out", ciphertext, "ciphertext");
    bind::require_disjoint(out, "out", keys, "keys");
    const int threads = bind::require_threads(threads_object);
    const std::uint64_t *from = words_of(ciphertext), *by = words_of(keys);
    std::uint64_t* to = words_of(out);
    run_released(
        [&] { return lattice_expand(ring, key_ring, from, by, levels, static_cast<std::size_t>(count), to, threads); });
}

}  // namespace

void bind_lattice(py::module_& m) {
    py::class_<LatticeRing>(m, "LatticeRing")
        .def(py::init(&make_ring), py::arg("degree"), py::arg("primes"))
        .def_property_readonly("degree", &LatticeRing::degree)
        .def_property_readonly("primes", &primes_of);
    const auto threads = [] { return py::arg("threads") = py::none(); };
    m.def("lattice_forward", &in_place<&lattice_forward>, py::arg("ring"), py::arg("a"), threads());
    m.def("lattice_inverse", &in_place<&lattice_inverse>, py::arg("ring"), py::arg("a"), threads());
    m.def("lattice_negate", &in_place<&lattice_negate>, py::arg("ring"), py::arg("a"), threads());
    m.def("lattice_multiply", &multiply, py::arg("ring"), py::arg("a"), py::arg("b"), py::arg("out"), threads());
    m.def("lattice_add", &add, py::arg("ring"), py::arg("a"), py::arg("b"), threads());
    m.def("lattice_residues", &residues, py::arg("ring"), py::arg("values"), py::arg("out"), threads());
    m.def("lattice_uniform", &sample_of<LatticeKind::uniform_var>, py::arg("ring"), py::arg("schedules"),
          py::arg("first"), py::arg("out"), threads());
    m.def("lattice_ternary", &sample_of<LatticeKind::ternary>, py::arg("ring"), py::arg("schedules"), py::arg("first"),
          py::arg("out"), threads());
    m.def("lattice_gaussian", &sample_of<LatticeKind::gaussian>, py::arg("ring"), py::arg("schedules"),
          py::arg("first"), py::arg("out"), threads());
    m.def("lattice_flood", &flood, py::arg("ring"), py::arg("schedules"), py::arg("first"), py::arg("bits"),
          py::arg("out"), threads());
    m.def("lattice_switch", &switch_down, py::arg("ring"), py::arg("a"), py::arg("bits"), py::arg("out"), threads());
    m.def("lattice_encode", &encode, py::arg("ring"), py::arg("values"), py::arg("plain_bits"), py::arg("out"));
    m.def("lattice_matvec", &matvec, py::arg("ring"), py::arg("words"), py::arg("plain_bits"), py::arg("query"),
          py::arg("out"), threads());
    m.def("lattice_phase", &phase, py::arg("ring"), py::arg("c0"), py::arg("c1"), py::arg("secret"), py::arg("bits"),
          py::arg("out"), threads());
    m.def("lattice_expand", &expand, py::arg("ring"), py::arg("key_ring"), py::arg("ciphertext"), py::arg("keys"),
          py::arg("count"), py::arg("out"), threads());
}
