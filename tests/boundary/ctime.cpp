// Checks that neither the time nor the addresses of a kernel depend on its secrets. ctime.py builds and runs it:
//
//   ctime mark TIER     under valgrind. Secrets are marked as undefined memory, so that valgrind reports every branch
//                       and every address that is computed from them.
//   ctime trace TIER    without valgrind. Each case runs with two different secrets in two single-stepped processes.
//                       The addresses of all instructions that run must be the same in both.
//
// Valgrind sees more (addresses of data too), but knows no AVX-512; traces work for every tier that the machine runs.
//
// Every family has a control, which runs one kernel and then branches on what the kernel wrote; the control "leaky"
// runs a power that takes the time of its exponent. A control that is not caught is an error: it would mean that the
// marks, or the differences between two secrets, do not reach the outputs of the family's kernels.

#include "ctime.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#ifdef MIPP_VALGRIND
#include <valgrind/memcheck.h>
#define MARK(region) (void)VALGRIND_MAKE_MEM_UNDEFINED((region).data, (region).bytes)
#define UNMARK(region) (void)VALGRIND_MAKE_MEM_DEFINED((region).data, (region).bytes)
#define ERRORS() static_cast<unsigned long>(VALGRIND_COUNT_ERRORS)
#define LOG(name) (void)VALGRIND_PRINTF("case %s\n", name)
#else
#define MARK(region) (void)(region)
#define UNMARK(region) (void)(region)
#define ERRORS() 0ul
#define LOG(name) (void)(name)
#endif

namespace {

// A case that branches on every bit that another one's kernel writes.
Case planted(const std::string& family, const Case& base) {
    Case control = base;
    control.name = family + " control";
    control.leaks = true;
    control.run = [base] {
        if (!base.run()) return false;
        for (const Region& r : base.outputs) {
            for (std::size_t i = 0; i < r.bytes; ++i) {
                for (int bit = 0; bit < 8; ++bit) {
                    if (static_cast<const std::uint8_t*>(r.data)[i] >> bit & 1) __asm__ __volatile__("nop");
                }
            }
        }
        return true;
    };
    return control;
}

Cases all_cases(const std::string& tier) {
    Cases all;
    const auto add = [&](const char* family, Cases cases) {
        if (cases.empty()) return;
        const Case control = planted(family, cases.front());
        for (Case& c : cases) all.push_back(std::move(c));
        all.push_back(control);
    };
    add("ring", ring_cases(tier));
    add("prf", prf_cases(tier));
    add("galois", galois_cases(tier));
    add("compare", compare_cases(tier));
    add("audit", audit_cases(tier));
    add("pir", pir_cases(tier));
    add("lattice", lattice_cases(tier));
    add("bigint", bigint_cases(tier));
    return all;
}

// Prints the finding of a case; 1 if it is not what it should be.
int report(const Case& c, const char* finding, bool leaks) {
    const bool good = leaks == c.leaks;
    std::printf("%-30s %s%s\n", c.name.c_str(), finding, good ? "" : "  WRONG");
    std::fflush(stdout);
    return !good;
}

int mark_all(Cases& cases) {
    int wrong = 0;
    for (Case& c : cases) {
        c.fill(1);
        LOG(c.name.c_str());
        for (const Region& r : c.secrets) MARK(r);
        const unsigned long before = ERRORS();
        const bool done = c.run();
        const bool leaks = ERRORS() != before;
        for (const Region& r : c.secrets) UNMARK(r);
        for (const Region& r : c.outputs) UNMARK(r);
        if (!done) return 3;
        wrong |= report(c, leaks ? "depends on a secret" : "depends on no secret", leaks);
    }
    return wrong;
}

struct Trace {
    std::uint64_t instructions = 0, hash = 14695981039346656037u;
    bool operator!=(const Trace& other) const { return instructions != other.instructions || hash != other.hash; }
};

// Processes forked from one have the same addresses and the same heap, so their traces can be compared.
bool trace_one(Case& c, std::uint64_t seed, Trace* trace) {
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(3);
        c.fill(seed);
        raise(SIGSTOP);
        const bool done = c.run();
        raise(SIGSTOP);
        _exit(done ? 0 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return false;
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) return false;
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status)) return false;
        if (WSTOPSIG(status) == SIGSTOP) break;
        user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) return false;
        ++trace->instructions;
        trace->hash = (trace->hash ^ registers.rip) * 1099511628211u;
    }
    ptrace(PTRACE_CONT, child, nullptr, nullptr);
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int trace_all(Cases& cases) {
    int wrong = 0;
    for (Case& c : cases) {
        Trace first, second;
        if (!trace_one(c, 1, &first) || !trace_one(c, 2, &second)) {
            std::fprintf(stderr, "%s: it failed, or it cannot be single-stepped (ptrace refused?)\n", c.name.c_str());
            return 3;
        }
        const bool differs = first != second;
        char finding[100];
        std::snprintf(finding, sizeof finding, "%8llu instructions, %s",
                      static_cast<unsigned long long>(first.instructions),
                      differs ? "other ones for another secret" : "the same for another secret");
        wrong |= report(c, finding, differs);
    }
    return wrong;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 64;
    const std::string mode = argv[1];
    Cases cases = all_cases(argv[2]);
    if (cases.empty()) return 64;
    return mode == "mark" ? mark_all(cases) : mode == "trace" ? trace_all(cases) : 64;
}
