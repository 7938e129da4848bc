// Montgomery arithmetic over groups of numbers, for any radix: `T` gives limbs, columns and tables (radix52.h,
// radix64.h). Included by one source a tier; everything here is local to it. Formulas and bounds: README.md.
//
// An element mod m is `n` limbs, x R mod m with R = 2^(bits n); an element mod m^2 is two such parts (a, b), standing
// for a + b m. Parts stay below 8 m, not reduced further; R >= 64 m, so that products come out below 3 m.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>

#include "../common/wipe.h"
#include "kernels.h"

namespace {

using mipp::BigintContext;
using mipp::Status;

constexpr int max_chunks = 7;
constexpr int pow_window = 5;

// Memory for secrets, aligned, wiped when freed; data() is null if there was none.
class Scratch {
  public:
    explicit Scratch(std::size_t bytes) : size_((bytes + 63) / 64 * 64), data_(std::aligned_alloc(64, size_)) {}
    ~Scratch() {
        if (data_ != nullptr) mipp::wipe(data_, size_);
        std::free(data_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    template <class Word>
    Word* as() const {
        return static_cast<Word*>(data_);
    }
    bool failed() const { return data_ == nullptr; }

  private:
    std::size_t size_;
    void* data_;
};

template <class T>
struct Context {
    using Word = typename T::Word;
    int n;              // limbs of a part
    int parts;          // 1: mod m, 2: mod m^2
    std::size_t limbs;  // 64-bit limbs of m
    Word inverse;       // -1/m mod 2^bits
    Word* memory;
    Word* m;                       // n
    Word* shift;                   // n: 1 - R mod m, what stands in for the complement of a quotient
    Word* powers[max_chunks + 1];  // elements R^1 (the one), R^2, ...

    int size() const { return n * parts; }
    std::size_t element_limbs() const { return limbs * static_cast<std::size_t>(parts); }
};

template <class T>
const Context<T>& of(const BigintContext* c) {
    return *reinterpret_cast<const Context<T>*>(c);
}

template <class Word>
void copy(Word* to, const Word* from, int n) {
    std::memcpy(static_cast<void*>(to), from, sizeof(Word) * static_cast<std::size_t>(n));
}

template <class Word>
void clear(Word* to, int n) {
    std::memset(static_cast<void*>(to), 0, sizeof(Word) * static_cast<std::size_t>(n));
}

// x -= m where x >= m, for x < 2 m; all ones in the lanes where it did
template <class T>
typename T::Word subtract_once(typename T::Word* x, const typename T::Word* m, typename T::Word* spare, int n) {
    const typename T::Word less = T::subtract(spare, x, m, n);
    for (int i = 0; i < n; ++i) x[i] = (x[i] & less) | (spare[i] & ~less);
    return ~less;
}

// Arithmetic on elements; owns the columns and temporaries that every product needs.
template <class T>
class Engine {
  public:
    using Word = typename T::Word;

    explicit Engine(const Context<T>& c) : c_(c), memory_(sizeof(Word) * static_cast<std::size_t>(9 * c.n)) {
        if (memory_.failed()) return;
        columns_ = memory_.as<Word>();
        quotient_ = columns_ + 2 * c.n;
        low_ = quotient_ + c.n;
        double_ = low_ + c.n;
        spare_ = double_ + c.n;  // 4 n
    }
    bool failed() const { return memory_.failed(); }

    // z = x y / R; z may be x or y
    void multiply(Word* z, const Word* x, const Word* y) {
        const int n = c_.n;
        clear(columns_, 2 * n);
        T::columns_multiply(columns_, x, y, n);
        if (c_.parts == 1) return reduce(z);
        reduce(low_);
        T::columns_start(columns_, quotient_, c_.shift, n);
        T::columns_multiply(columns_, x, y + n, n);
        T::columns_multiply(columns_, x + n, y, n);
        reduce(z + n);
        copy(z, low_, n);
    }

    // z = x x / R; z may be x
    void square(Word* z, const Word* x) {
        const int n = c_.n;
        T::columns_square(columns_, x, n);
        if (c_.parts == 1) return reduce(z);
        reduce(low_);
        T::columns_start(columns_, quotient_, c_.shift, n);
        T::add(double_, x, x, n);
        T::columns_multiply(columns_, double_, x + n, n);
        reduce(z + n);
        copy(z, low_, n);
    }

    // z = sum_i chunks[i] R^i: the element of a number given in digits of n limbs
    void enter(Word* z, const Word* chunks, int count) {
        const int n = c_.n;
        for (int part = 0; part < c_.parts; ++part) {
            if (part == 0) {
                clear(columns_, 2 * n);
            } else {
                T::columns_start(columns_, quotient_, c_.shift, n);
            }
            for (int i = 0; i < count; ++i) {
                T::columns_multiply(columns_, chunks + i * n, c_.powers[i + 1] + part * n, n);
            }
            reduce(part == 0 ? low_ : z + n);
        }
        copy(z, low_, n);
    }

    // parts of x / R, each below m, in z
    void leave_parts(Word* z, const Word* x) {
        const int n = c_.n;
        copy(columns_, x, n);
        clear(columns_ + n, n);
        reduce(low_);
        if (c_.parts == 2) {
            T::columns_start(columns_, quotient_, c_.shift, n);
            T::columns_add(columns_, x + n, n);
            reduce(z + n);
        }
        copy(z, low_, n);
        const Word wrapped = subtract_once<T>(z, c_.m, spare_, n);
        if (c_.parts == 2) {
            clear(low_, n);
            low_[0] = T::all(0) - wrapped;
            T::add(z + n, z + n, low_, n);
            subtract_once<T>(z + n, c_.m, spare_, n);
        }
    }

    // the number itself, x / R below the modulus, limbs in z (2 n of them mod m^2)
    void leave(Word* z, const Word* x) {
        const int n = c_.n;
        leave_parts(z, x);
        if (c_.parts == 1) return;
        clear(columns_, 2 * n);
        T::columns_multiply(columns_, z + n, c_.m, n);
        T::columns_add(columns_, z, n);
        T::columns_carry(columns_, 2 * n);
        copy(z, columns_, 2 * n);
    }

    // part b += part a * plain, plain in Montgomery form
    void add_plain(Word* x, const Word* plain) {
        const int n = c_.n;
        clear(columns_, 2 * n);
        T::columns_multiply(columns_, x, plain, n);
        reduce(low_);
        T::add(x + n, x + n, low_, n);
    }

    // z = x y / R mod m, of single parts
    void multiply_parts(Word* z, const Word* x, const Word* y) {
        clear(columns_, 2 * c_.n);
        T::columns_multiply(columns_, x, y, c_.n);
        reduce(z);
    }

  private:
    void reduce(Word* out) { T::reduce(out, quotient_, columns_, c_.m, c_.inverse, c_.n); }

    const Context<T>& c_;
    Scratch memory_;
    Word *columns_ = nullptr, *quotient_ = nullptr, *low_ = nullptr, *double_ = nullptr, *spare_ = nullptr;
};

// --- between 64-bit limbs and groups of numbers ---

// 52 or 64 bits of a number from bit `first` on
template <class T>
std::uint64_t bits_at(const std::uint64_t* x, std::size_t limbs, std::size_t first) {
    const std::size_t word = first / 64, offset = first % 64;
    if (word >= limbs) return 0;
    std::uint64_t found = x[word] >> offset;
    if (offset != 0 && word + 1 < limbs) found |= x[word + 1] << (64 - offset);
    return found & T::mask;
}

// `digits` limbs of numbers begin .. begin + width - 1 of x; those from `end` on repeat the last
template <class T>
void load(typename T::Word* to, int digits, const std::uint64_t* x, std::size_t limbs, std::size_t stride,
          std::size_t begin, std::size_t end) {
    for (int lane = 0; lane < T::width; ++lane) {
        std::size_t row = begin + static_cast<std::size_t>(lane);
        if (row >= end) row = end - 1;
        const std::uint64_t* from = x + row * stride;
        for (int i = 0; i < digits; ++i) {
            T::set_lane(to[i], lane, bits_at<T>(from, limbs, static_cast<std::size_t>(i) * T::bits));
        }
    }
}

template <class T>
void store(std::uint64_t* x, std::size_t limbs, const typename T::Word* from, int digits, std::size_t begin,
           std::size_t end) {
    for (int lane = 0; lane < T::width && begin + static_cast<std::size_t>(lane) < end; ++lane) {
        std::uint64_t* to = x + (begin + static_cast<std::size_t>(lane)) * limbs;
        std::memset(to, 0, 8 * limbs);
        for (int i = 0; i < digits; ++i) {
            const std::size_t first = static_cast<std::size_t>(i) * T::bits, word = first / 64, offset = first % 64;
            const std::uint64_t digit = T::lane(from[i], lane);
            if (word < limbs) to[word] |= digit << offset;
            if (offset + T::bits > 64 && word + 1 < limbs) to[word + 1] |= digit >> (64 - offset);
        }
    }
}

template <class T>
int chunks_of(const Context<T>& c, std::size_t limbs) {
    const std::size_t chunk = static_cast<std::size_t>(c.n) * T::bits;
    return static_cast<int>((64 * limbs + chunk - 1) / chunk);
}

// Group of numbers as elements; `digits` has room for max_chunks * n limbs.
template <class T>
void enter(Engine<T>& e, const Context<T>& c, typename T::Word* z, typename T::Word* digits, const std::uint64_t* x,
           std::size_t limbs, std::size_t stride, std::size_t begin, std::size_t end) {
    const int chunks = chunks_of<T>(c, limbs);
    load<T>(digits, chunks * c.n, x, limbs, stride, begin, end);
    e.enter(z, digits, chunks);
}

template <class T>
void leave(Engine<T>& e, const Context<T>& c, std::uint64_t* out, const typename T::Word* x, typename T::Word* digits,
           std::size_t begin, std::size_t end) {
    e.leave(digits, x);
    store<T>(out, c.element_limbs(), digits, c.size(), begin, end);
}

// --- the constants of a modulus ---

// Time depends on sizes alone: a modulus may be a secret prime.

// x - m if that is not negative or `carry`, a bit above x, is set; 1 if so
inline std::uint64_t subtract_if(std::uint64_t* x, const std::uint64_t* m, std::uint64_t carry, std::uint64_t* spare,
                                 std::size_t n) {
    std::uint64_t borrow = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const unsigned __int128 d = static_cast<unsigned __int128>(x[i]) - m[i] - borrow;
        spare[i] = static_cast<std::uint64_t>(d);
        borrow = static_cast<std::uint64_t>(d >> 64) & 1;
    }
    const std::uint64_t taken = carry | (borrow ^ 1);
    std::uint64_t all = 0 - taken;
    __asm__("" : "+r"(all));  // else the compiler makes a branch of it
    for (std::size_t i = 0; i < n; ++i) x[i] ^= (x[i] ^ spare[i]) & all;
    return taken;
}

// x = 2 x + bit mod m; 1 if m was taken off (for x < m)
inline std::uint64_t double_mod(std::uint64_t* x, std::uint64_t bit, const std::uint64_t* m, std::uint64_t* spare,
                                std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t next = x[i] >> 63;
        x[i] = x[i] << 1 | bit;
        bit = next;
    }
    return subtract_if(x, m, bit, spare, n);
}

}  // namespace
