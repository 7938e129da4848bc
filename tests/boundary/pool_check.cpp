// Exercises csrc/common/pool.cpp by itself, so that a thread sanitizer sees no Python. Exit status 0: all held.
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "../../csrc/common/pool.h"

using mipp::parallel_for;
using mipp::Status;

static int failures = 0;

static void expect(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "failed: %s\n", what);
        ++failures;
    }
}

static bool covers_once(std::size_t count, std::size_t grain, int threads) {
    std::vector<int> seen(count, 0);
    std::atomic<bool> whole_grains{true};
    const Status s = parallel_for(count, grain, threads, [&](std::size_t begin, std::size_t end) {
        if (begin % grain != 0 || (end != count && end % grain != 0)) whole_grains = false;
        for (std::size_t i = begin; i < end; ++i) ++seen[i];
        return Status::ok;
    });
    for (const int times : seen) {
        if (times != 1) return false;
    }
    return s == Status::ok && whole_grains;
}

int main() {
    for (const std::size_t count : {0, 1, 2, 7, 64, 1000, 4097}) {
        for (const std::size_t grain : {1, 3, 64, 5000}) {
            for (const int threads : {0, 1, 2, 5}) expect(covers_once(count, grain, threads), "each index once");
        }
    }

    // The first status that is not ok is the answer, and stops the hand-out.
    std::atomic<int> calls{0};
    const Status failed = parallel_for(100000, 1, 3, [&](std::size_t begin, std::size_t) {
        ++calls;
        return begin == 0 ? Status::no_memory : Status::ok;
    });
    expect(failed == Status::no_memory, "an error is the answer");
    const Status all_fail = parallel_for(1000, 1, 3, [&](std::size_t, std::size_t) { return Status::interrupted; });
    expect(all_fail == Status::interrupted, "an error of every range");
    expect(parallel_for(1, 0, 1, [](std::size_t, std::size_t) { return Status::ok; }) == Status::bad_argument,
           "grain 0 is refused");

    // Nested calls run on the caller.
    std::atomic<std::size_t> sum{0};
    parallel_for(64, 1, 4, [&](std::size_t begin, std::size_t end) {
        return parallel_for(end - begin, 1, 4, [&](std::size_t b, std::size_t e) {
            sum += e - b;
            return Status::ok;
        });
    });
    expect(sum == 64, "nested calls cover all");

    // Concurrent callers.
    std::atomic<int> right{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
        callers.emplace_back([&] {
            for (int round = 0; round < 200; ++round) right += covers_once(500, 7, 3);
        });
    }
    for (std::thread& t : callers) t.join();
    expect(right == 800, "concurrent callers");
    return failures != 0;
}
