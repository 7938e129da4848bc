// The kernels of the tier in force, and buffers for them.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "../common/wipe.h"
#include "lattice.h"

namespace mipp {

struct LatticeKernels {
    decltype(&lattice_forward_portable) forward;
    decltype(&lattice_inverse_portable) inverse;
    decltype(&lattice_multiply_portable) multiply;
    decltype(&lattice_transpose_portable) transpose;
    decltype(&lattice_column_portable) column;
    decltype(&lattice_digits_portable) digits;
    decltype(&lattice_add_portable) add;
    decltype(&lattice_settle_portable) settle;
    decltype(&lattice_finish_portable) finish;
    decltype(&lattice_products_portable) products;
    decltype(&lattice_children_portable) children;
    decltype(&lattice_gaussian_portable) gaussian;
    LatticeForm form;
};

// Degrees below 64 have no blocks of 8 x 8: portable kernels do them. Defined in lattice.cpp.
const LatticeKernels& lattice_kernels(const LatticeRing& ring);

// A known factor modulo p in the form of a tier. Defined in tables.cpp.
LatticeFactor lattice_factor(std::uint64_t value, std::uint64_t p, LatticeForm form);

// Words at the start of a cache line, wiped when they go. Null if there is no memory.
class LatticeBuffer {
  public:
    explicit LatticeBuffer(std::size_t words)
        : bytes_((8 * words + 63) / 64 * 64), data_(static_cast<std::uint64_t*>(std::aligned_alloc(64, bytes_ + 64))) {}
    ~LatticeBuffer() {
        if (data_) wipe(data_.get(), bytes_);
    }
    std::uint64_t* data() const { return data_.get(); }
    explicit operator bool() const { return data_ != nullptr; }

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::size_t bytes_;
    std::unique_ptr<std::uint64_t, Free> data_;
};

}  // namespace mipp
