// Batched algorithms over an Engine, and the table of functions of a tier.
#pragma once

#include <algorithm>

#include "engine.h"

namespace {

using mipp::BigintKernels;

template <class T>
BigintContext* make(const std::uint64_t* modulus, std::size_t limbs, bool square) {
    using Word = typename T::Word;
    std::size_t bits = 64 * limbs;
    for (std::uint64_t top = modulus[limbs - 1]; (top >> 63) == 0; top <<= 1) --bits;
    const int n = static_cast<int>((bits + 6 + T::bits - 1) / T::bits);  // R >= 64 m
    auto* c = static_cast<Context<T>*>(std::aligned_alloc(64, (sizeof(Context<T>) + 63) / 64 * 64));
    if (c == nullptr) return nullptr;
    c->n = n;
    c->parts = square ? 2 : 1;
    c->limbs = limbs;
    const auto part = static_cast<std::size_t>(n), size = static_cast<std::size_t>(c->size());
    c->memory =
        static_cast<Word*>(std::aligned_alloc(64, sizeof(Word) * ((2 * part + (max_chunks + 1) * size + 7) / 8 * 8)));
    auto* x = static_cast<std::uint64_t*>(std::calloc(4 * limbs, 8));
    if (c->memory == nullptr || x == nullptr) {
        std::free(c->memory);
        std::free(x);
        std::free(c);
        return nullptr;
    }
    c->m = c->memory;
    c->shift = c->m + n;
    for (int i = 0; i <= max_chunks; ++i) c->powers[i] = c->shift + n + i * c->size();
    std::uint64_t inverse = 1;  // Newton: each step doubles the bits that are right
    for (int i = 0; i < 6; ++i) inverse *= 2 - modulus[0] * inverse;
    c->inverse = T::all((0 - inverse) & T::mask);
    auto put = [&](Word* to, const std::uint64_t* from) {
        for (int i = 0; i < n; ++i) to[i] = T::all(bits_at<T>(from, limbs, static_cast<std::size_t>(i) * T::bits));
    };
    put(c->m, modulus);
    // R and R^2 by doubling 1, in parts: 2 (a + b m) = (2 a - w m) + (2 b + w) m
    std::uint64_t *a = x, *b = x + limbs, *shift = b + limbs, *spare = shift + limbs;
    a[0] = 1;
    for (int power = 1; power <= 2; ++power) {
        for (int i = 0; i < n * T::bits; ++i)
            double_mod(b, double_mod(a, 0, modulus, spare, limbs), modulus, spare, limbs);
        if (power == 1) {  // 1 - R mod m
            std::uint64_t borrow = 0, carry = 1;
            for (std::size_t k = 0; k < limbs; ++k) {
                const unsigned __int128 d = static_cast<unsigned __int128>(modulus[k]) - a[k] - borrow;
                borrow = static_cast<std::uint64_t>(d >> 64) & 1;
                const unsigned __int128 sum = static_cast<unsigned __int128>(static_cast<std::uint64_t>(d)) + carry;
                shift[k] = static_cast<std::uint64_t>(sum);
                carry = static_cast<std::uint64_t>(sum >> 64);
            }
            put(c->shift, shift);  // up to m itself
        }
        put(c->powers[power - 1], a);
        if (square) put(c->powers[power - 1] + n, b);
    }
    mipp::wipe(x, 32 * limbs);
    std::free(x);
    Engine<T> e(*c);
    if (e.failed()) {
        std::free(c->memory);
        std::free(c);
        return nullptr;
    }
    for (int i = 2; i <= max_chunks; ++i) e.multiply(c->powers[i], c->powers[i - 1], c->powers[1]);
    return reinterpret_cast<BigintContext*>(c);
}

template <class T>
void release(BigintContext* context) {
    auto* c = reinterpret_cast<Context<T>*>(context);
    // a modulus may be a secret prime
    mipp::wipe(c->memory, sizeof(typename T::Word) * static_cast<std::size_t>(2 * c->n + (max_chunks + 1) * c->size()));
    std::free(c->memory);
    std::free(c);
}

template <class T>
std::size_t words(const Context<T>& c, std::size_t elements) {
    return sizeof(typename T::Word) * static_cast<std::size_t>(c.size()) * elements;
}

// room for the digits of a number of any allowed width, in elements
template <class T>
std::size_t digit_elements(const Context<T>& c) {
    return static_cast<std::size_t>((max_chunks + c.parts - 1) / c.parts + 1);
}

template <class T>
Status mul(const BigintContext* context, const std::uint64_t* a, std::size_t a_stride, const std::uint64_t* b,
           std::size_t b_stride, std::uint64_t* out, std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, 2 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *y = x + c.size(), *digits = y + c.size();
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, x, digits, a, c.element_limbs(), a_stride, i, end);
        enter<T>(e, c, y, digits, b, c.element_limbs(), b_stride, i, end);
        e.multiply(x, x, y);
        leave<T>(e, c, out, x, digits, i, end);
    }
    return Status::ok;
}

template <class T>
Status product(const BigintContext* context, const std::uint64_t* a, std::size_t count, std::uint64_t* out,
               std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, 2 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *y = x + c.size(), *digits = y + c.size();
    const std::size_t limbs = c.element_limbs();
    for (std::size_t i = begin; i < end; i += T::width) {
        copy(x, c.powers[0], c.size());
        for (std::size_t k = 0; k < count; ++k) {
            enter<T>(e, c, y, digits, a + k * limbs, limbs, count * limbs, i, end);
            e.multiply(x, x, y);
        }
        leave<T>(e, c, out, x, digits, i, end);
    }
    return Status::ok;
}

// `window` bits of each lane's exponent from bit `first` on
template <class T>
typename T::Word digits_of(const std::uint64_t* exponent, std::size_t stride, std::size_t limbs, std::size_t first,
                           int window, std::size_t begin, std::size_t end) {
    typename T::Word found = T::all(0);
    for (int lane = 0; lane < T::width; ++lane) {
        std::size_t row = begin + static_cast<std::size_t>(lane);
        if (row >= end) row = end - 1;
        const std::uint64_t* from = exponent + row * stride;
        const std::size_t word = first / 64, offset = first % 64;
        std::uint64_t d = from[word] >> offset;
        if (offset + static_cast<std::size_t>(window) > 64 && word + 1 < limbs) d |= from[word + 1] << (64 - offset);
        T::set_lane(found, lane, d & ((std::uint64_t{1} << window) - 1));
    }
    return found;
}

// x = base^exponent for the elements in table[1]; table has 2^pow_window + 1 elements. Windows from the top, all
// entries read for each (the last element is what was found), or only the one that is needed if `variable`.
template <class T>
void power(Engine<T>& e, const Context<T>& c, typename T::Word* x, typename T::Word* table,
           const std::uint64_t* exponent, std::size_t stride, std::size_t limbs, std::size_t bits, bool variable,
           std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    constexpr int entries = 1 << pow_window;
    const int size = c.size();
    Word* found = table + entries * size;
    copy(table, c.powers[0], size);
    for (int i = 2; i < entries; ++i) {
        if (i % 2 == 0) {
            e.square(table + i * size, table + i / 2 * size);
        } else {
            e.multiply(table + i * size, table + (i - 1) * size, table + size);
        }
    }
    copy(x, c.powers[0], size);
    for (std::size_t w = (bits + pow_window - 1) / pow_window; w-- > 0;) {
        const std::size_t first = w * pow_window;
        const Word digit = digits_of<T>(exponent, stride, limbs, first, pow_window, begin, end);
        if (w + 1 != (bits + pow_window - 1) / pow_window) {
            for (int i = 0; i < pow_window; ++i) e.square(x, x);
        }
        if (variable) {
            const std::uint64_t d = T::lane(digit, 0);
            if (d != 0) e.multiply(x, x, table + static_cast<int>(d) * size);
            continue;
        }
        clear(found, size);
        for (int entry = 0; entry < entries; ++entry) {
            const Word hit = T::equal(digit, static_cast<std::uint64_t>(entry));
            const Word* from = table + entry * size;
            for (int i = 0; i < size; ++i) found[i] |= from[i] & hit;
        }
        e.multiply(x, x, found);
    }
}

template <class T>
Status pow(const BigintContext* context, const std::uint64_t* base, std::size_t base_stride,
           const std::uint64_t* exponent, std::size_t exponent_stride, std::size_t bits, bool variable,
           std::uint64_t* out, std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, (1 << pow_window) + 2 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *table = x + c.size(), *digits = table + ((1 << pow_window) + 1) * c.size();
    const std::size_t limbs = (bits + 63) / 64;
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, table + c.size(), digits, base, c.element_limbs(), base_stride, i, end);
        power<T>(e, c, x, table, exponent, exponent_stride, limbs, bits, variable, i, end);
        leave<T>(e, c, out, x, digits, i, end);
    }
    return Status::ok;
}

template <class T>
Status reduce(const BigintContext* context, const std::uint64_t* wide, std::size_t limbs, std::uint64_t* out,
              std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    if (chunks_of<T>(c, limbs) > max_chunks) return Status::bad_argument;
    Engine<T> e(c);
    Scratch memory(words(c, 1 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *digits = x + c.size();
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, x, digits, wide, limbs, limbs, i, end);
        leave<T>(e, c, out, x, digits, i, end);
    }
    return Status::ok;
}

template <class T>
Status add_plain(const BigintContext* context, const std::uint64_t* a, const std::uint64_t* plain, std::uint64_t* out,
                 std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, 2 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *y = x + c.size(), *digits = y + c.size();
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, x, digits, a, c.element_limbs(), c.element_limbs(), i, end);
        load<T>(digits, c.n, plain, c.limbs, c.limbs, i, end);
        e.multiply_parts(y, digits, c.powers[1]);
        e.add_plain(x, y);
        leave<T>(e, c, out, x, digits, i, end);
    }
    return Status::ok;
}

// --- powers of bases that all numbers share ---

template <class T>
std::size_t table_words(const BigintContext* context, int window) {
    return (T::table_words(1 << window, of<T>(context).size()) + 7) / 8 * 8;
}

template <class T>
Status tables(const BigintContext* context, const std::uint64_t* bases, int window, std::uint64_t* to,
              std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, 2 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *base = x + c.size(), *digits = base + c.size();
    const std::size_t each = table_words<T>(context, window);
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, base, digits, bases, c.element_limbs(), c.element_limbs(), i, end);
        copy(x, c.powers[0], c.size());
        for (int entry = 0; entry < 1 << window; ++entry) {
            for (int lane = 0; lane < T::width && i + static_cast<std::size_t>(lane) < end; ++lane) {
                T::table_put(to + (i + static_cast<std::size_t>(lane)) * each, 1 << window, entry, x, c.size(), lane);
            }
            e.multiply(x, x, base);
        }
    }
    return Status::ok;
}

template <class T>
Status ladder(const BigintContext* context, const std::uint64_t* base, std::size_t step, std::size_t count,
              std::uint64_t* out) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    Engine<T> e(c);
    Scratch memory(words(c, 1 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *digits = x + c.size();
    enter<T>(e, c, x, digits, base, c.element_limbs(), 0, 0, 1);
    for (std::size_t i = 0; i < count; ++i) {
        leave<T>(e, c, out + i * c.element_limbs(), x, digits, 0, 1);
        for (std::size_t k = 0; k < step; ++k) e.square(x, x);
    }
    return Status::ok;
}

// Groups of numbers that are taken through one table while it is in the cache.
constexpr std::size_t block_groups = 64;

template <class T>
Status fixed_pow(const BigintContext* context, const std::uint64_t* tables, int window, std::size_t windows,
                 const std::uint64_t* exponents, std::size_t exponent_limbs, std::uint64_t* out, std::size_t begin,
                 std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    const std::size_t size = static_cast<std::size_t>(c.size()), each = table_words<T>(context, window);
    const std::size_t step = block_groups * T::width;
    const std::size_t groups = std::min(block_groups, (end - begin + T::width - 1) / T::width);
    Engine<T> e(c);
    Scratch memory(words(c, groups + 1 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *sums = memory.as<Word>(), *found = sums + groups * size, *digits = found + size;
    for (std::size_t first = begin; first < end; first += step) {
        const std::size_t last = std::min(end, first + step);
        for (std::size_t w = 0; w < windows; ++w) {
            for (std::size_t i = first, g = 0; i < last; i += T::width, ++g) {
                const Word digit = digits_of<T>(exponents, exponent_limbs, exponent_limbs,
                                                w * static_cast<std::size_t>(window), window, i, last);
                Word* x = sums + g * size;
                T::table_get(w == 0 ? x : found, tables + w * each, 1 << window, digit, c.size());
                if (w != 0) e.multiply(x, x, found);
            }
        }
        for (std::size_t i = first, g = 0; i < last; i += T::width, ++g) {
            leave<T>(e, c, out, sums + g * size, digits, i, last);
        }
    }
    return Status::ok;
}

inline std::uint64_t exponent_at(const void* exponents, int bytes, std::size_t index) {
    switch (bytes) {
        case 1:
            return static_cast<const std::uint8_t*>(exponents)[index];
        case 2:
            return static_cast<const std::uint16_t*>(exponents)[index];
        case 4:
            return static_cast<const std::uint32_t*>(exponents)[index];
        default:
            return static_cast<const std::uint64_t*>(exponents)[index];
    }
}

template <class T>
Status multi_pow(const BigintContext* context, const std::uint64_t* tables, int window, std::size_t bases,
                 const void* exponents, int bytes, std::size_t slots, std::size_t exponent_bits, std::size_t slot_bits,
                 std::uint64_t* out, std::size_t begin, std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    const std::size_t size = static_cast<std::size_t>(c.size()), each = table_words<T>(context, window);
    const std::size_t step = block_groups * T::width;
    const std::size_t groups = std::min(block_groups, (end - begin + T::width - 1) / T::width);
    Engine<T> e(c);
    Scratch memory(words(c, groups + 1 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *sums = memory.as<Word>(), *found = sums + groups * size, *digits = found + size;
    const std::size_t bits = static_cast<std::size_t>(window), windows = (exponent_bits + bits - 1) / bits;
    const std::uint64_t low = (std::uint64_t{1} << window) - 1;
    for (std::size_t first = begin; first < end; first += step) {
        const std::size_t last = std::min(end, first + step);
        const std::size_t used = (last - first + T::width - 1) / T::width;
        for (std::size_t g = 0; g < used; ++g) copy(sums + g * size, c.powers[0], c.size());
        for (std::size_t s = slots; s-- > 0;) {
            for (std::size_t w = windows; w-- > 0;) {
                if (s + 1 != slots || w + 1 != windows) {
                    const std::size_t squarings = w + 1 != windows ? bits : slot_bits - bits * (windows - 1);
                    for (std::size_t g = 0; g < used; ++g) {
                        for (std::size_t k = 0; k < squarings; ++k) e.square(sums + g * size, sums + g * size);
                    }
                }
                for (std::size_t j = 0; j < bases; ++j) {
                    for (std::size_t g = 0; g < used; ++g) {
                        Word digit = T::all(0);
                        for (int lane = 0; lane < T::width; ++lane) {
                            const std::size_t row =
                                std::min(first + g * T::width + static_cast<std::size_t>(lane), last - 1);
                            const std::uint64_t x = exponent_at(exponents, bytes, (row * slots + s) * bases + j);
                            T::set_lane(digit, lane, (x >> (w * bits)) & low);
                        }
                        T::table_get(found, tables + j * each, 1 << window, digit, c.size());
                        e.multiply(sums + g * size, sums + g * size, found);
                    }
                }
            }
        }
        for (std::size_t g = 0; g < used; ++g) leave<T>(e, c, out, sums + g * size, digits, first + g * T::width, last);
    }
    return Status::ok;
}

template <class T>
Status decrypt(const BigintContext* context, const std::uint64_t* prime_less_one, const std::uint64_t* h,
               const std::uint64_t* ciphertexts, std::size_t ciphertext_limbs, std::uint64_t* out, std::size_t begin,
               std::size_t end) {
    using Word = typename T::Word;
    const Context<T>& c = of<T>(context);
    if (chunks_of<T>(c, ciphertext_limbs) > max_chunks) return Status::bad_argument;
    Engine<T> e(c);
    Scratch memory(words(c, (1 << pow_window) + 3 + digit_elements(c)));
    if (e.failed() || memory.failed()) return Status::no_memory;
    Word *x = memory.as<Word>(), *table = x + c.size(), *digits = table + ((1 << pow_window) + 1) * c.size();
    Word* factor = digits + digit_elements(c) * static_cast<std::size_t>(c.size());
    load<T>(digits, c.n, h, c.limbs, 0, 0, 1);
    e.multiply_parts(factor, digits, c.powers[1]);
    for (std::size_t i = begin; i < end; i += T::width) {
        enter<T>(e, c, table + c.size(), digits, ciphertexts, ciphertext_limbs, ciphertext_limbs, i, end);
        power<T>(e, c, x, table, prime_less_one, 0, c.limbs, 64 * c.limbs, false, i, end);
        e.leave_parts(digits, x);  // 1 + L s: the second part is L
        e.multiply_parts(x, digits + c.n, factor);
        subtract_once<T>(x, c.m, digits, c.n);
        store<T>(out, c.limbs, x, c.n, i, end);
    }
    return Status::ok;
}

template <class T>
const BigintKernels* kernels_of() {
    static constexpr BigintKernels all = {
        T::width,     make<T>,      release<T>,     mul<T>,       product<T>,  pow<T>,
        reduce<T>,    add_plain<T>, table_words<T>, tables<T>,    ladder<T>,   fixed_pow<T>,
        multi_pow<T>, decrypt<T>,   T::pair_make,   T::pair_free, T::pair_pow,
    };
    return &all;
}

}  // namespace

#define MIPP_DEFINE_BIGINT(name, arithmetic) \
    const mipp::BigintKernels* mipp::name() { return kernels_of<arithmetic>(); }
