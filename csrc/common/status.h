// What a kernel or a family's entry point answers. Bindings turn these into mipp.errors in one place
// (bindings/check.h).
#pragma once

namespace mipp {

enum class Status : int {
    ok = 0,
    no_memory = 1,     // an allocation failed
    bad_argument = 2,  // a caller broke the contract that bindings should have checked: a bug
    unsupported = 3,   // the forced level is not there on this machine or in this build
    interrupted = 4,   // a Python signal handler raised while the work ran
    no_threads = 5,    // the operating system gave no thread
};

}  // namespace mipp
