// One thread pool per process. Threads start on first use; a forked child starts its own (pthread_atfork).
#pragma once

#include <cstddef>
#include <type_traits>

#include "status.h"

namespace mipp {

constexpr int pool_max_threads = 1024;

// The one check of a caller's number of threads: 0 asks for the default, which is MIPP_NUM_THREADS, else the processors
// that this process may run on. False if `wanted` is not 0 to 1024, or if it asks for the default and MIPP_NUM_THREADS
// is set to something else than an integer from 1 to 1024. Entry points take the number that comes out.
bool pool_threads(int wanted, int* threads);

using PoolBody = Status (*)(void* context, std::size_t begin, std::size_t end);

// Calls body on disjoint ranges that cover [0, count), each a multiple of `grain` long except the last, on up to
// `threads` threads (at least 1; the caller's thread is one of them). The first status that is not ok wins and
// stops the hand-out of further ranges. Nested or concurrent calls are safe: a second caller runs its ranges itself.
Status pool_run(std::size_t count, std::size_t grain, int threads, PoolBody body, void* context);

// The same for any callable (std::size_t begin, std::size_t end) -> Status.
template <class F>
Status parallel_for(std::size_t count, std::size_t grain, int threads, F&& f) {
    using Callable = typename std::remove_reference<F>::type;
    return pool_run(
        count, grain, threads,
        [](void* context, std::size_t begin, std::size_t end) -> Status {
            return (*static_cast<Callable*>(context))(begin, end);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace mipp
