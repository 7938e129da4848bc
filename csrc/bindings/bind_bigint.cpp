#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../bigint/bigint.h"
#include "../common/wipe.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

using Limbs = const std::uint64_t*;

constexpr int max_window = 8;
constexpr std::int64_t max_exponent_bits = 1 << 20;

Limbs data_of(const py::array& a) { return static_cast<Limbs>(a.data()); }

py::array require_limbs(const py::object& object, int ndim, const char* what) {
    py::array a = bind::require_array(object, what);
    if (bind::dtype_bits(a) != 64) bind::raise_dtype(std::string(what) + " must be uint64 in native byte order");
    bind::require_words(a, ndim, what);
    return a;
}

py::array new_limbs(std::vector<py::ssize_t> shape) {
    return py::array(py::dtype::of<std::uint64_t>(), std::move(shape));
}

// One number without leading zero limbs.
std::vector<std::uint64_t> number(const py::array& a) {
    std::vector<std::uint64_t> x(data_of(a), data_of(a) + a.size());
    while (!x.empty() && x.back() == 0) x.pop_back();
    return x;
}

// Numbers (N, limbs) below the modulus; what is told does not depend on which of them is not.
void require_numbers(const BigintModulus& m, const py::array& a, const char* what) {
    const auto limbs = static_cast<py::ssize_t>(m.limbs());
    if (a.shape(a.ndim() - 1) != limbs) {
        bind::raise_shape(std::string(what) + " must have " + std::to_string(limbs) + " limbs a number");
    }
    if (!m.contains(data_of(a), static_cast<std::size_t>(a.size() / limbs))) {
        bind::raise_parameter(std::string(what) + " must be below the modulus");
    }
}

struct Batch {
    py::array array;
    std::size_t stride;
};

// Rows of (N, limbs) or one row (1, limbs) for all; `count` becomes N.
Batch require_batch(const BigintModulus& m, const py::object& object, const char* what, py::ssize_t* count) {
    py::array a = require_limbs(object, 2, what);
    require_numbers(m, a, what);
    if (a.shape(0) != 1) {
        if (*count != 1 && *count != a.shape(0)) bind::raise_shape("arrays must have one row, or all the same number");
        *count = a.shape(0);
    }
    return {a, 0};
}

void set_stride(Batch* batch, std::size_t limbs) { batch->stride = batch->array.shape(0) == 1 ? 0 : limbs; }

std::unique_ptr<BigintModulus> make_modulus(const py::object& object, bool square) {
    const std::vector<std::uint64_t> m = number(require_limbs(object, 1, "modulus"));
    if (m.empty() || (m[0] & 1) == 0 || (m.size() == 1 && m[0] < 3)) {
        bind::raise_parameter("a modulus must be odd and at least 3");
    }
    if (m.size() * 64 * (square ? 2 : 1) > bigint_max_bits) {
        bind::raise_parameter("a modulus has at most " + std::to_string(bigint_max_bits) +
                              " bits, its square included");
    }
    return std::make_unique<BigintModulus>(m.data(), m.size(), square);
}

py::array mul(const BigintModulus& m, const py::object& a_object, const py::object& b_object,
              const py::object& threads) {
    py::ssize_t count = 1;
    Batch a = require_batch(m, a_object, "a", &count), b = require_batch(m, b_object, "b", &count);
    if (a.array.shape(0) == 0 || b.array.shape(0) == 0) count = 0;
    set_stride(&a, m.limbs());
    set_stride(&b, m.limbs());
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({count, static_cast<py::ssize_t>(m.limbs())});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.mul(data_of(a.array), a.stride, data_of(b.array), b.stride, static_cast<std::size_t>(count), to, n);
    }
    bind::throw_status(status);
    return out;
}

py::array product(const BigintModulus& m, const py::object& object, const py::object& threads) {
    const py::array a = require_limbs(object, 3, "a");
    require_numbers(m, a, "a");
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({a.shape(0), a.shape(2)});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status =
            m.product(data_of(a), static_cast<std::size_t>(a.shape(0)), static_cast<std::size_t>(a.shape(1)), to, n);
    }
    bind::throw_status(status);
    return out;
}

// Exponents (N, e), or one row for all, below 2^bits; repacked to exactly the limbs that `bits` needs.
class Exponents {
  public:
    Exponents(const py::object& object, std::size_t bits, py::ssize_t* count) : limbs_((bits + 63) / 64) {
        const py::array a = require_limbs(object, 2, "exponent");
        rows_ = a.shape(0);
        if (rows_ != 1) {
            if (*count != 1 && *count != rows_) bind::raise_shape("arrays must have one row, or all the same number");
            *count = rows_;
        }
        const auto width = static_cast<std::size_t>(a.shape(1));
        words_.assign(static_cast<std::size_t>(rows_) * limbs_, 0);
        std::uint64_t over = 0;
        for (py::ssize_t i = 0; i < rows_; ++i) {
            Limbs from = data_of(a) + static_cast<std::size_t>(i) * width;
            std::copy(from, from + std::min(width, limbs_),
                      words_.begin() + static_cast<std::ptrdiff_t>(i * static_cast<py::ssize_t>(limbs_)));
            for (std::size_t k = limbs_; k < width; ++k) over |= from[k];
            if (bits % 64 != 0 && limbs_ <= width) over |= from[limbs_ - 1] >> (bits % 64);
        }
        if (over != 0) {
            wipe_words();
            bind::raise_parameter("exponents must have at most exponent_bits bits");
        }
    }
    ~Exponents() { wipe_words(); }
    Limbs data() const { return words_.data(); }
    std::size_t stride() const { return rows_ == 1 ? 0 : limbs_; }

  private:
    void wipe_words() {
        if (!words_.empty()) wipe(words_.data(), 8 * words_.size());
    }

    std::size_t limbs_;
    py::ssize_t rows_;
    std::vector<std::uint64_t> words_;
};

std::size_t require_bits(const py::object& object, std::int64_t most, const char* what) {
    return static_cast<std::size_t>(bind::require_int(object, 1, most, what));
}

py::array power(const BigintModulus& m, const py::object& base_object, const py::object& exponent_object,
                const py::object& bits_object, const py::object& threads) {
    const std::size_t bits = require_bits(bits_object, max_exponent_bits, "exponent_bits");
    py::ssize_t count = 1;
    Batch base = require_batch(m, base_object, "base", &count);
    const Exponents exponents(exponent_object, bits, &count);
    if (base.array.shape(0) == 0) count = 0;
    set_stride(&base, m.limbs());
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({count, static_cast<py::ssize_t>(m.limbs())});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.pow(data_of(base.array), base.stride, exponents.data(), exponents.stride(), bits,
                       static_cast<std::size_t>(count), to, n);
    }
    bind::throw_status(status);
    return out;
}

py::array power_var(const BigintModulus& m, const py::object& base_object, const py::object& exponent_object,
                    const py::object& threads) {
    const py::array base = require_limbs(base_object, 2, "base");
    require_numbers(m, base, "base");
    std::vector<std::uint64_t> exponent = number(require_limbs(exponent_object, 1, "exponent"));
    std::size_t bits = 64 * exponent.size();
    while (bits > 0 && (exponent[(bits - 1) / 64] >> ((bits - 1) % 64) & 1) == 0) --bits;
    if (exponent.empty()) exponent.push_back(0);
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({base.shape(0), base.shape(1)});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.pow_var(data_of(base), exponent.data(), bits, static_cast<std::size_t>(base.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

template <class Word>
bool fits(const py::array& a, std::size_t bits) {
    const auto* x = static_cast<const Word*>(a.data());
    Word all = 0;
    for (py::ssize_t i = 0; i < a.size(); ++i) all = static_cast<Word>(all | x[i]);
    return bits >= 8 * sizeof(Word) || (all >> bits) == 0;
}

py::array multi_pow(const BigintModulus& m, const py::object& bases_object, const py::object& exponents_object,
                    const py::object& exponent_bits_object, const py::object& slot_bits_object,
                    const py::object& threads) {
    const py::array bases = require_limbs(bases_object, 2, "bases");
    require_numbers(m, bases, "bases");
    const py::array exponents = bind::require_array(exponents_object, "exponents");
    if (exponents.dtype().kind() != 'u' || !bind::is_native_order(exponents)) {
        bind::raise_dtype("exponents must be uint8, uint16, uint32 or uint64 in native byte order");
    }
    bind::require_ndim(exponents, 3, "exponents");
    bind::require_aligned(exponents, "exponents");
    bind::require_contiguous(exponents, "exponents");
    if (exponents.shape(2) != bases.shape(0)) bind::raise_shape("exponents must have one column a base");
    if (exponents.shape(1) == 0) bind::raise_shape("exponents must have at least one slot");
    const int bytes = static_cast<int>(exponents.itemsize());
    const std::size_t bits = require_bits(exponent_bits_object, 8 * bytes, "exponent_bits");
    const std::size_t slot_bits = require_bits(slot_bits_object, bigint_max_bits, "slot_bits");
    if (exponents.shape(1) > 1 && slot_bits < bits) bind::raise_parameter("slot_bits must be at least exponent_bits");
    const bool good = bytes == 1   ? fits<std::uint8_t>(exponents, bits)
                      : bytes == 2 ? fits<std::uint16_t>(exponents, bits)
                      : bytes == 4 ? fits<std::uint32_t>(exponents, bits)
                                   : fits<std::uint64_t>(exponents, bits);
    if (!good) bind::raise_parameter("exponents must have at most exponent_bits bits");
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({exponents.shape(0), static_cast<py::ssize_t>(m.limbs())});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.multi_pow(data_of(bases), static_cast<std::size_t>(bases.shape(0)), exponents.data(), bytes,
                             static_cast<std::size_t>(exponents.shape(1)), bits, slot_bits,
                             static_cast<std::size_t>(exponents.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

py::array reduce(const BigintModulus& m, const py::object& object, const py::object& threads) {
    const py::array wide = require_limbs(object, 2, "wide");
    if (wide.shape(1) < 1 || static_cast<std::size_t>(wide.shape(1)) > m.max_wide_limbs()) {
        bind::raise_shape("wide must have 1 to " + std::to_string(m.max_wide_limbs()) + " limbs a number");
    }
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({wide.shape(0), static_cast<py::ssize_t>(m.limbs())});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.reduce(data_of(wide), static_cast<std::size_t>(wide.shape(1)),
                          static_cast<std::size_t>(wide.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

py::array add_plain(const BigintModulus& m, const py::object& a_object, const py::object& plain_object,
                    const py::object& threads) {
    if (!m.square()) bind::raise_parameter("add_plain is for the square of a modulus");
    const py::array a = require_limbs(a_object, 2, "ciphertexts");
    require_numbers(m, a, "ciphertexts");
    const py::array plain = require_limbs(plain_object, 2, "plain");
    bind::require_shape(plain, {a.shape(0), static_cast<py::ssize_t>(m.root_limbs())}, "plain");
    if (!m.root_contains(data_of(plain), static_cast<std::size_t>(plain.shape(0)))) {
        bind::raise_parameter("plain must be below the modulus");
    }
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({a.shape(0), a.shape(1)});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = m.add_plain(data_of(a), data_of(plain), static_cast<std::size_t>(a.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

std::unique_ptr<BigintFixedBase> make_fixed_base(const BigintModulus& m, const py::object& base_object,
                                                 const py::object& bits_object, const py::object& window_object,
                                                 const py::object& threads) {
    const py::array base = require_limbs(base_object, 1, "base");
    require_numbers(m, base, "base");
    const std::size_t bits = require_bits(bits_object, max_exponent_bits, "exponent_bits");
    int window = static_cast<int>(bind::require_int(window_object, 0, max_window, "window"));
    if (window == 0) window = 6;
    auto fixed = std::make_unique<BigintFixedBase>(m, bits, window);
    const int n = bind::require_threads(threads);
    Status status;
    {
        bind::GilRelease release;
        status = fixed->build(data_of(base), n);
    }
    bind::throw_status(status);
    return fixed;
}

py::array fixed_power(const BigintFixedBase& fixed, std::size_t limbs, const py::object& object,
                      const py::object& threads) {
    const py::array given = require_limbs(object, 2, "exponents");
    py::ssize_t count = given.shape(0);
    // one row would stand for all; here it is the batch
    const Exponents exponents(given, fixed.exponent_bits(), &count);
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({given.shape(0), static_cast<py::ssize_t>(limbs)});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = fixed.pow(exponents.data(), static_cast<std::size_t>(given.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

std::unique_ptr<PaillierDecryptor> make_decryptor(const py::object& p_object, const py::object& q_object,
                                                  const py::object& hp_object, const py::object& hq_object,
                                                  const py::object& inverse_object) {
    std::vector<std::uint64_t> x[5];
    const py::object* objects[5] = {&p_object, &q_object, &hp_object, &hq_object, &inverse_object};
    const char* names[5] = {"p", "q", "h_p", "h_q", "q_inverse"};
    for (int i = 0; i < 5; ++i) x[i] = number(require_limbs(*objects[i], 1, names[i]));
    for (int i = 0; i < 2; ++i) {
        if (x[i].empty() || (x[i][0] & 1) == 0 || (x[i].size() == 1 && x[i][0] < 3) ||
            x[i].size() * 256 > 2 * bigint_max_bits) {
            bind::raise_parameter("primes must be odd, at least 3 and at most 2048 bits");
        }
    }
    const std::size_t lp = x[0].size(), lq = x[1].size();
    if (x[2].size() > lp || x[3].size() > lq || x[4].size() > lp)
        bind::raise_parameter("h_p, h_q and q_inverse must be reduced");
    x[2].resize(lp);
    x[3].resize(lq);
    x[4].resize(lp);
    std::vector<std::uint64_t> n(lp + lq, 0);
    for (std::size_t i = 0; i < lp; ++i) {
        std::uint64_t carry = 0;
        for (std::size_t j = 0; j < lq; ++j) {
            const unsigned __int128 s = static_cast<unsigned __int128>(x[0][i]) * x[1][j] + n[i + j] + carry;
            n[i + j] = static_cast<std::uint64_t>(s);
            carry = static_cast<std::uint64_t>(s >> 64);
        }
        n[i + lq] = carry;
    }
    const std::size_t limbs = n.back() == 0 ? n.size() - 1 : n.size();
    // a ciphertext is reduced modulo each prime's square
    if (2 * limbs > 5 * std::min(lp, lq)) bind::raise_parameter("primes must be of similar size");
    auto made = std::make_unique<PaillierDecryptor>(x[0].data(), x[1].data(), x[2].data(), x[3].data(), x[4].data(), lp,
                                                    lq, limbs);
    for (auto& v : x) wipe(v.data(), 8 * v.size());
    return made;
}

py::array decrypt(const PaillierDecryptor& d, const py::object& object, const py::object& threads) {
    const py::array c = require_limbs(object, 2, "ciphertexts");
    bind::require_shape(c, {c.shape(0), static_cast<py::ssize_t>(2 * d.limbs())}, "ciphertexts");
    const int n = bind::require_threads(threads);
    py::array out = new_limbs({c.shape(0), static_cast<py::ssize_t>(d.limbs())});
    auto* to = static_cast<std::uint64_t*>(out.mutable_data());
    Status status;
    {
        bind::GilRelease release;
        status = d.decrypt(data_of(c), static_cast<std::size_t>(c.shape(0)), to, n);
    }
    bind::throw_status(status);
    return out;
}

py::array finish(const PaillierDecryptor& d, const py::object& p_object, const py::object& q_object) {
    if (!d.finishes()) bind::raise_parameter("primes must have the same number of limbs");
    const py::array p = require_limbs(p_object, 2, "power_p"), q = require_limbs(q_object, 2, "power_q");
    const auto limbs = static_cast<py::ssize_t>(d.power_limbs());
    bind::require_shape(p, {1, limbs}, "power_p");
    bind::require_shape(q, {1, limbs}, "power_q");
    py::array out = new_limbs({1, static_cast<py::ssize_t>(d.limbs())});
    d.finish_powers(data_of(p), data_of(q), static_cast<std::uint64_t*>(out.mutable_data()));
    return out;
}

// Keeps the modulus alive, and knows its limbs.
struct FixedBase {
    py::object modulus;
    std::unique_ptr<BigintFixedBase> fixed;
    std::size_t limbs;
};

}  // namespace

void bind_bigint(py::module_& m) {
    py::class_<BigintModulus>(m, "Modulus")
        .def(py::init(&make_modulus), py::arg("modulus"), py::arg("square") = false)
        .def_property_readonly("limbs", &BigintModulus::limbs)
        .def("mul", &mul, py::arg("a"), py::arg("b"), py::arg("threads") = py::none())
        .def("product", &product, py::arg("a"), py::arg("threads") = py::none())
        .def("pow", &power, py::arg("base"), py::arg("exponent"), py::arg("exponent_bits"),
             py::arg("threads") = py::none())
        .def("pow_var", &power_var, py::arg("base"), py::arg("exponent"), py::arg("threads") = py::none())
        .def("multi_pow", &multi_pow, py::arg("bases"), py::arg("exponents"), py::arg("exponent_bits"),
             py::arg("slot_bits"), py::arg("threads") = py::none())
        .def("reduce", &reduce, py::arg("wide"), py::arg("threads") = py::none())
        .def("add_plain", &add_plain, py::arg("ciphertexts"), py::arg("plain"), py::arg("threads") = py::none());
    py::class_<FixedBase>(m, "FixedBase")
        .def(py::init([](const py::object& modulus, const py::object& base, const py::object& bits,
                         const py::object& window, const py::object& threads) {
                 if (!py::isinstance<BigintModulus>(modulus)) bind::raise_dtype("modulus must be a Modulus");
                 const auto& of = py::cast<const BigintModulus&>(modulus);
                 return std::make_unique<FixedBase>(
                     FixedBase{modulus, make_fixed_base(of, base, bits, window, threads), of.limbs()});
             }),
             py::arg("modulus"), py::arg("base"), py::arg("exponent_bits"), py::arg("window") = 0,
             py::arg("threads") = py::none())
        .def_property_readonly("table_bytes", [](const FixedBase& f) { return f.fixed->table_bytes(); })
        .def(
            "pow",
            [](const FixedBase& f, const py::object& exponents, const py::object& threads) {
                return fixed_power(*f.fixed, f.limbs, exponents, threads);
            },
            py::arg("exponents"), py::arg("threads") = py::none());
    py::class_<PaillierDecryptor>(m, "PaillierDecryptor")
        .def(py::init(&make_decryptor), py::arg("p"), py::arg("q"), py::arg("h_p"), py::arg("h_q"),
             py::arg("q_inverse"))
        .def_property_readonly("limbs", &PaillierDecryptor::limbs)
        .def_property_readonly("finishes", &PaillierDecryptor::finishes)
        .def_property_readonly("power_limbs", &PaillierDecryptor::power_limbs)
        .def("finish", &finish, py::arg("power_p"), py::arg("power_q"))
        .def("decrypt", &decrypt, py::arg("ciphertexts"), py::arg("threads") = py::none());
}
