#include "bigint.h"

#include <algorithm>
#include <cstdlib>

#include "../common/pool.h"
#include "../common/wipe.h"
#include "single.h"

namespace mipp {
namespace {

const Tier<const BigintKernels* (*)()> tiers[] = {
    {Level::portable, bigint_kernels_portable},
#ifdef MIPP_X86
    {Level::avx512, bigint_kernels_avx512},
#endif
};

const BigintKernels* kernels_of(Level level) { return tier_at(level, tiers).kernels(); }

std::size_t round_up(std::size_t x, std::size_t step) { return (x + step - 1) / step * step; }

// Ranges of whole groups: one a thread, but no longer than `most` numbers.
std::size_t fair_grain(std::size_t count, int threads, std::size_t width, std::size_t most) {
    const auto workers = static_cast<std::size_t>(threads);
    return std::min(round_up((count + workers - 1) / workers, width), round_up(most, width));
}

void wipe_all(std::vector<std::uint64_t>& x) {
    if (!x.empty()) wipe(x.data(), 8 * x.size());
}

// x < limit, from the borrow of their difference
std::uint64_t below(const std::uint64_t* x, const std::vector<std::uint64_t>& limit) {
    std::uint64_t borrow = 0;
    for (std::size_t i = 0; i < limit.size(); ++i) {
        const unsigned __int128 d = static_cast<unsigned __int128>(x[i]) - limit[i] - borrow;
        borrow = static_cast<std::uint64_t>(d >> 64) & 1;
    }
    return borrow;
}

bool all_below(const std::uint64_t* x, std::size_t count, const std::vector<std::uint64_t>& limit) {
    std::uint64_t good = 1;
    for (std::size_t i = 0; i < count; ++i) good &= below(x + i * limit.size(), limit);
    return good != 0;
}

// Memory for tables, aligned for vectors.
std::uint64_t* allocate(std::size_t words) {
    return static_cast<std::uint64_t*>(std::aligned_alloc(64, round_up(words * 8, 64)));
}

// x times 2^64 for each limb, mod m
void shift_up(std::vector<std::uint64_t>& x, const std::vector<std::uint64_t>& m) {
    std::vector<std::uint64_t> spare(m.size());
    single::shift(x.data(), 64 * m.size(), m.data(), m.size(), spare.data());
    wipe_all(spare);
}

// Ciphertexts that are decrypted one by one where a tier has a kernel for that; more fill the lanes of the batch
// kernels.
constexpr std::size_t most_singly = 3;

}  // namespace

Level bigint_tier() { return active_tier(tiers).level; }

BigintModulus::BigintModulus(const std::uint64_t* m, std::size_t limbs, bool square)
    : m_(m, m + limbs), value_(m_), square_(square) {
    if (!square) return;
    value_.assign(2 * limbs, 0);
    for (std::size_t i = 0; i < limbs; ++i) {
        std::uint64_t carry = 0;
        for (std::size_t j = 0; j < limbs; ++j) {
            const unsigned __int128 s = static_cast<unsigned __int128>(m[i]) * m[j] + value_[i + j] + carry;
            value_[i + j] = static_cast<std::uint64_t>(s);
            carry = static_cast<std::uint64_t>(s >> 64);
        }
        value_[i + limbs] = carry;
    }
}

BigintModulus::~BigintModulus() {
    for (int level = 0; level < level_count; ++level) {
        if (BigintContext* c = contexts_[level]) kernels_of(static_cast<Level>(level))->free(c);
    }
    wipe_all(m_);
    wipe_all(value_);
}

bool BigintModulus::contains(const std::uint64_t* x, std::size_t count) const { return all_below(x, count, value_); }

bool BigintModulus::root_contains(const std::uint64_t* x, std::size_t count) const { return all_below(x, count, m_); }

const BigintContext* BigintModulus::context(const BigintKernels** kernels) const {
    const Level level = bigint_tier();
    *kernels = kernels_of(level);
    std::atomic<BigintContext*>& slot = contexts_[static_cast<int>(level)];
    if (BigintContext* c = slot.load(std::memory_order_acquire)) return c;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (slot.load(std::memory_order_relaxed) == nullptr) {
        slot.store((*kernels)->make(m_.data(), m_.size(), square_), std::memory_order_release);
    }
    return slot.load(std::memory_order_relaxed);
}

Status BigintModulus::mul(const std::uint64_t* a, std::size_t a_stride, const std::uint64_t* b, std::size_t b_stride,
                          std::size_t count, std::uint64_t* out, int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    return parallel_for(count, 16 * k->width, threads, [&](std::size_t begin, std::size_t end) {
        return k->mul(c, a, a_stride, b, b_stride, out, begin, end);
    });
}

Status BigintModulus::product(const std::uint64_t* a, std::size_t groups, std::size_t count, std::uint64_t* out,
                              int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    // few long products: as many short ones first as fill the lanes of all threads
    const auto workers = static_cast<std::size_t>(threads);
    const std::size_t lanes = k->width * workers;
    if (groups < lanes && count >= 4 * lanes && groups != 0) {
        const std::size_t parts = lanes, whole = count / parts, rest = count - whole * parts, l = limbs();
        std::vector<std::uint64_t> partial(groups * (parts + rest) * l);
        for (std::size_t g = 0; g < groups; ++g) {
            const std::uint64_t* from = a + g * count * l;
            std::uint64_t* to = partial.data() + g * (parts + rest) * l;
            const Status status = product(from, parts, whole, to, threads);
            if (status != Status::ok) return status;
            std::copy(from + parts * whole * l, from + count * l, to + parts * l);
        }
        return product(partial.data(), groups, parts + rest, out, threads);
    }
    const std::size_t grain = std::max<std::size_t>(1, 16 / std::max<std::size_t>(1, count)) * k->width;
    return parallel_for(groups, grain, threads,
                        [&](std::size_t begin, std::size_t end) { return k->product(c, a, count, out, begin, end); });
}

Status BigintModulus::pow(const std::uint64_t* base, std::size_t base_stride, const std::uint64_t* exponent,
                          std::size_t exponent_stride, std::size_t bits, std::size_t count, std::uint64_t* out,
                          int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    return parallel_for(count, k->width, threads, [&](std::size_t begin, std::size_t end) {
        return k->pow(c, base, base_stride, exponent, exponent_stride, bits, false, out, begin, end);
    });
}

Status BigintModulus::pow_var(const std::uint64_t* base, const std::uint64_t* exponent, std::size_t bits,
                              std::size_t count, std::uint64_t* out, int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    return parallel_for(count, k->width, threads, [&](std::size_t begin, std::size_t end) {
        return k->pow(c, base, limbs(), exponent, 0, bits, true, out, begin, end);
    });
}

Status BigintModulus::reduce(const std::uint64_t* wide, std::size_t wide_limbs, std::size_t count, std::uint64_t* out,
                             int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    return parallel_for(count, 16 * k->width, threads, [&](std::size_t begin, std::size_t end) {
        return k->reduce(c, wide, wide_limbs, out, begin, end);
    });
}

Status BigintModulus::add_plain(const std::uint64_t* a, const std::uint64_t* plain, std::size_t count,
                                std::uint64_t* out, int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    return parallel_for(count, 16 * k->width, threads,
                        [&](std::size_t begin, std::size_t end) { return k->add_plain(c, a, plain, out, begin, end); });
}

Status BigintModulus::multi_pow(const std::uint64_t* bases, std::size_t base_count, const void* exponents,
                                int exponent_bytes, std::size_t slots, std::size_t exponent_bits, std::size_t slot_bits,
                                std::size_t count, std::uint64_t* out, int threads) const {
    const BigintKernels* k;
    const BigintContext* c = context(&k);
    if (c == nullptr) return Status::no_memory;
    // Costs in products: tables, then one product and one look-up a digit. A look-up reads the whole table: per entry
    // about a twentieth (IFMA), an eighth (portable) of 1/limbs of a product.
    const double look_up = (k->width > 1 ? 0.06 : 0.12) / static_cast<double>(m_.size());
    const double groups = static_cast<double>((count + k->width - 1) / k->width * slots * base_count);
    const double base_groups = static_cast<double>((base_count + k->width - 1) / k->width);
    constexpr std::size_t most_bytes = std::size_t{1} << 28;
    int window = 1;
    double best = 0;
    for (int w = 1; w <= 8; ++w) {
        const auto entries = static_cast<double>(1 << w);
        const auto digits =
            static_cast<double>((exponent_bits + static_cast<std::size_t>(w) - 1) / static_cast<std::size_t>(w));
        const double cost = base_groups * entries + groups * digits * (1 + entries * look_up);
        if (w > 1 && base_count * k->table_words(c, w) * 8 > most_bytes) break;
        if (w == 1 || cost < best) {
            best = cost;
            window = w;
        }
    }
    const std::size_t each = k->table_words(c, window);
    std::uint64_t* tables = allocate(std::max<std::size_t>(1, each * base_count));
    if (tables == nullptr) return Status::no_memory;
    if (k->width > 1 && window < 3) std::fill(tables, tables + each * base_count, std::uint64_t{0});
    Status status = parallel_for(base_count, k->width, threads, [&](std::size_t begin, std::size_t end) {
        return k->tables(c, bases, window, tables, begin, end);
    });
    if (status == Status::ok) {
        const std::size_t grain = fair_grain(count, threads, k->width, 64 * k->width);
        status = parallel_for(count, std::max<std::size_t>(1, grain), threads, [&](std::size_t begin, std::size_t end) {
            return k->multi_pow(c, tables, window, base_count, exponents, exponent_bytes, slots, exponent_bits,
                                slot_bits, out, begin, end);
        });
    }
    std::free(tables);
    return status;
}

BigintFixedBase::BigintFixedBase(const BigintModulus& modulus, std::size_t exponent_bits, int window)
    : modulus_(modulus),
      bits_(exponent_bits),
      windows_((exponent_bits + static_cast<std::size_t>(window) - 1) / static_cast<std::size_t>(window)),
      window_(window) {}

BigintFixedBase::~BigintFixedBase() {
    if (tables_ != nullptr) wipe(tables_, table_bytes());
    std::free(tables_);
}

std::size_t BigintFixedBase::table_bytes() const {
    return tables_ == nullptr ? 0 : windows_ * kernels_->table_words(context_, window_) * 8;
}

Status BigintFixedBase::build(const std::uint64_t* base, int threads) {
    context_ = modulus_.context(&kernels_);
    if (context_ == nullptr) return Status::no_memory;
    const std::size_t each = kernels_->table_words(context_, window_);
    std::uint64_t* bases = allocate(windows_ * modulus_.limbs());
    tables_ = allocate(windows_ * each);
    Status status = bases == nullptr || tables_ == nullptr ? Status::no_memory : Status::ok;
    if (status == Status::ok) {
        if (kernels_->width > 1 && window_ < 3) std::fill(tables_, tables_ + windows_ * each, std::uint64_t{0});
        status = kernels_->ladder(context_, base, static_cast<std::size_t>(window_), windows_, bases);
    }
    if (status == Status::ok) {
        status = parallel_for(windows_, kernels_->width, threads, [&](std::size_t begin, std::size_t end) {
            return kernels_->tables(context_, bases, window_, tables_, begin, end);
        });
    }
    if (bases != nullptr) wipe(bases, windows_ * modulus_.limbs() * 8);
    std::free(bases);
    return status;
}

Status BigintFixedBase::pow(const std::uint64_t* exponents, std::size_t count, std::uint64_t* out, int threads) const {
    const std::size_t grain = fair_grain(count, threads, kernels_->width, 64 * kernels_->width);
    return parallel_for(count, std::max<std::size_t>(1, grain), threads, [&](std::size_t begin, std::size_t end) {
        return kernels_->fixed_pow(context_, tables_, window_, windows_, exponents, exponent_limbs(), out, begin, end);
    });
}

PaillierDecryptor::Prime::Prime(const std::uint64_t* s, const std::uint64_t* factor, std::size_t limbs)
    : square(s, limbs, true), less_one(s, s + limbs), h(factor, factor + limbs), h_shifted(h) {
    less_one[0] -= 1;  // odd: no borrow
    shift_up(h_shifted, square.root());
}

PaillierDecryptor::Prime::~Prime() {
    wipe_all(less_one);
    wipe_all(h);
    wipe_all(h_shifted);
}

PaillierDecryptor::PaillierDecryptor(const std::uint64_t* p, const std::uint64_t* q, const std::uint64_t* h_p,
                                     const std::uint64_t* h_q, const std::uint64_t* q_inverse, std::size_t p_limbs,
                                     std::size_t q_limbs, std::size_t n_limbs)
    : p_(p, h_p, p_limbs),
      q_(q, h_q, q_limbs),
      field_(p, p_limbs, false),
      q_inverse_(q_inverse, q_inverse + p_limbs),
      q_inverse_shifted_(q_inverse_),
      n_limbs_(n_limbs) {
    shift_up(q_inverse_shifted_, field_.root());
}

PaillierDecryptor::~PaillierDecryptor() {
    for (int level = 0; level < level_count; ++level) {
        if (BigintPair* pair = pairs_[level]) kernels_of(static_cast<Level>(level))->pair_free(pair);
    }
    wipe_all(q_inverse_);
    wipe_all(q_inverse_shifted_);
}

void PaillierDecryptor::join(const std::uint64_t* m_q, const std::uint64_t* d, std::uint64_t* sum,
                             std::uint64_t* out) const {
    const std::vector<std::uint64_t>& q = q_.square.root();
    const std::size_t lp = field_.root_limbs(), lq = q.size();
    std::fill(sum, sum + lp + lq, std::uint64_t{0});
    std::copy(m_q, m_q + lq, sum);
    for (std::size_t j = 0; j < lp; ++j) {
        std::uint64_t carry = 0;
        for (std::size_t k = 0; k < lq; ++k) {
            const unsigned __int128 v = static_cast<unsigned __int128>(d[j]) * q[k] + sum[j + k] + carry;
            sum[j + k] = static_cast<std::uint64_t>(v);
            carry = static_cast<std::uint64_t>(v >> 64);
        }
        for (std::size_t k = j + lq; k < lp + lq; ++k) {
            const unsigned __int128 v = static_cast<unsigned __int128>(sum[k]) + carry;
            sum[k] = static_cast<std::uint64_t>(v);
            carry = static_cast<std::uint64_t>(v >> 64);
        }
    }
    std::copy(sum, sum + n_limbs_, out);
}

void PaillierDecryptor::finish(std::uint64_t* memory, std::uint64_t* out) const {
    const std::size_t l = field_.root_limbs();
    const std::uint64_t *p = p_.square.root().data(), *q = q_.square.root().data();
    // the powers, m_p, m_q, spare of two; the joined sum
    std::uint64_t *power_p = memory, *power_q = memory + 2 * l, *m_p = memory + 4 * l, *m_q = m_p + l;
    std::uint64_t *spare = m_q + l, *sum = spare + 2 * l;
    single::quotient(m_p, power_p, p, l);
    single::quotient(m_q, power_q, q, l);
    single::multiply(m_p, m_p, p_.h_shifted.data(), p, l, spare);
    single::multiply(m_q, m_q, q_.h_shifted.data(), q, l, spare);
    // of the same limbs, so that m_q is a digit of the field's R
    single::multiply(m_p, m_p, q_inverse_shifted_.data(), p, l, spare);
    single::multiply(power_p, m_q, q_inverse_shifted_.data(), p, l, spare);
    single::subtract(m_p, power_p, p, l);
    join(m_q, m_p, sum, out);
}

bool PaillierDecryptor::finishes() const { return q_.square.root_limbs() == field_.root_limbs(); }

void PaillierDecryptor::finish_powers(const std::uint64_t* power_p, const std::uint64_t* power_q,
                                      std::uint64_t* out) const {
    const std::size_t l = field_.root_limbs();
    std::vector<std::uint64_t> memory(finish_words());
    std::copy(power_p, power_p + 2 * l, memory.begin());
    std::copy(power_q, power_q + 2 * l, memory.begin() + static_cast<std::ptrdiff_t>(2 * l));
    finish(memory.data(), out);
    wipe_all(memory);
}

Status PaillierDecryptor::decrypt_singly(const std::uint64_t* ciphertexts, std::size_t count,
                                         std::uint64_t* out) const {
    const Level level = bigint_tier();
    const BigintKernels* k = kernels_of(level);
    const std::size_t l = field_.root_limbs();
    if (k->pair_make == nullptr || !finishes()) return Status::unsupported;
    std::atomic<BigintPair*>& slot = pairs_[static_cast<int>(level)];
    if (slot.load(std::memory_order_acquire) == nullptr) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (slot.load(std::memory_order_relaxed) == nullptr) {
            const auto *p2 = p_.square.value().data(), *q2 = q_.square.value().data();
            slot.store(k->pair_make(p2, q2, 2 * l), std::memory_order_release);
        }
    }
    const BigintPair* pair = slot.load(std::memory_order_acquire);
    if (pair == nullptr) return Status::no_memory;
    std::vector<std::uint64_t> memory(finish_words());
    std::uint64_t* const powers[2] = {memory.data(), memory.data() + 2 * l};
    const std::uint64_t* const exponents[2] = {p_.less_one.data(), q_.less_one.data()};
    Status status = Status::ok;
    for (std::size_t i = 0; i < count && status == Status::ok; ++i) {
        status = k->pair_pow(pair, ciphertexts + 2 * n_limbs_ * i, 2 * n_limbs_, exponents, l, powers);
        if (status != Status::ok) break;
        finish(memory.data(), out + n_limbs_ * i);
    }
    wipe_all(memory);
    return status;
}

Status PaillierDecryptor::decrypt(const std::uint64_t* ciphertexts, std::size_t count, std::uint64_t* out,
                                  int threads) const {
    if (count <= most_singly) {
        const Status status = decrypt_singly(ciphertexts, count, out);
        if (status != Status::unsupported && status != Status::bad_argument) return status;
    }
    const std::size_t lp = field_.root_limbs(), lq = q_.square.root_limbs();
    // rows of one part: m mod p, m mod q, the latter mod p, their difference
    std::vector<std::uint64_t> mp(count * lp), mq(count * lq), d(count * lp);
    Status status = Status::ok;
    for (int i = 0; i < 2 && status == Status::ok; ++i) {
        const Prime& s = i == 0 ? p_ : q_;
        const BigintKernels* k;
        const BigintContext* c = s.square.context(&k);
        if (c == nullptr) return Status::no_memory;
        std::uint64_t* to = i == 0 ? mp.data() : mq.data();
        status = parallel_for(count, k->width, threads, [&](std::size_t begin, std::size_t end) {
            return k->decrypt(c, s.less_one.data(), s.h.data(), ciphertexts, 2 * n_limbs_, to, begin, end);
        });
    }
    if (status == Status::ok) status = field_.reduce(mq.data(), lq, count, d.data(), threads);
    if (status == Status::ok) {
        const std::vector<std::uint64_t>& p = field_.root();
        for (std::size_t i = 0; i < count; ++i) {  // (m_p - m_q) mod p
            std::uint64_t *x = d.data() + i * lp, borrow = 0, carry = 0;
            for (std::size_t j = 0; j < lp; ++j) {
                const unsigned __int128 v = static_cast<unsigned __int128>(mp[i * lp + j]) - x[j] - borrow;
                x[j] = static_cast<std::uint64_t>(v);
                borrow = static_cast<std::uint64_t>(v >> 64) & 1;
            }
            for (std::size_t j = 0; j < lp; ++j) {
                const unsigned __int128 v = static_cast<unsigned __int128>(x[j]) + (p[j] & (0 - borrow)) + carry;
                x[j] = static_cast<std::uint64_t>(v);
                carry = static_cast<std::uint64_t>(v >> 64);
            }
        }
        status = field_.mul(d.data(), lp, q_inverse_.data(), 0, count, mp.data(), threads);
    }
    if (status == Status::ok) {
        std::vector<std::uint64_t> sum(lp + lq);
        for (std::size_t i = 0; i < count; ++i) {
            join(mq.data() + i * lq, mp.data() + i * lp, sum.data(), out + i * n_limbs_);
        }
        wipe_all(sum);
    }
    for (auto* x : {&mp, &mq, &d}) wipe_all(*x);
    return status;
}

}  // namespace mipp
