#include "pool.h"

#include <pthread.h>
#include <signal.h>

#include "quota.h"
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <new>
#include <thread>

namespace mipp {
namespace {

struct Job {
    PoolBody body;
    void* context;
    std::size_t count, step;
    std::atomic<std::size_t> next{0};
    std::atomic<int> status{static_cast<int>(Status::ok)};

    Job(PoolBody b, void* c, std::size_t n, std::size_t s) : body(b), context(c), count(n), step(s) {}

    void work() {
        while (status.load(std::memory_order_relaxed) == static_cast<int>(Status::ok)) {
            const std::size_t begin = next.fetch_add(step, std::memory_order_relaxed);
            if (begin >= count) return;
            const Status s = body(context, begin, begin + std::min(step, count - begin));
            if (s != Status::ok) {
                int expected = static_cast<int>(Status::ok);
                status.compare_exchange_strong(expected, static_cast<int>(s));
                return;
            }
        }
    }

    Status result() const { return static_cast<Status>(status.load()); }
};

// One job at a time. Workers take seats of the job that is on; the caller closes the seats and waits for those taken.
class Pool {
  public:
    bool try_acquire() { return !busy_.exchange(true, std::memory_order_acquire); }

    void run(Job& job, int helpers) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (workers_ < helpers && start_worker()) ++workers_;
            job_ = &job;
            helpers = seats_ = std::min(helpers, workers_);
        }
        if (helpers > 1) {
            wake_.notify_all();
        } else {
            wake_.notify_one();
        }
        job.work();
        {
            std::unique_lock<std::mutex> lock(mutex_);
            seats_ = 0;
            done_.wait(lock, [this] { return running_ == 0; });
            job_ = nullptr;
        }
        busy_.store(false, std::memory_order_release);
    }

  private:
    bool start_worker() {
        // Workers take no signals, so that a handler runs where Python expects it; those of their own faults excepted.
        sigset_t all, before;
        sigfillset(&all);
        for (const int fault : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP}) sigdelset(&all, fault);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        bool started = true;
        try {
            std::thread(&Pool::loop, this).detach();
        } catch (...) {
            started = false;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return started;
    }

    void loop() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return seats_ > 0; });
            --seats_;
            ++running_;
            Job* job = job_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<bool> busy_{false};
    Job* job_ = nullptr;
    int seats_ = 0, running_ = 0, workers_ = 0;
};

// Never deleted: workers wait in it until the process ends. A forked child has no workers and perhaps a locked mutex,
// so it forgets the pool and makes its own.
std::atomic<Pool*> the_pool{nullptr};

Pool* pool() {
    static const int hooked = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
    (void)hooked;
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return current;
    Pool* fresh = new (std::nothrow) Pool;
    if (fresh == nullptr) return nullptr;
    if (the_pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return fresh;
    delete fresh;
    return current;
}

struct Defaults {
    bool valid = true;
    int threads = 1;

    Defaults() {
        threads = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) == 0) threads = CPU_COUNT(&set);
        const int quota = quota_processors("");
        if (quota > 0) threads = std::min(threads, quota);
#endif
        threads = std::max(1, std::min(threads, pool_max_threads));
        const char* text = std::getenv("MIPP_NUM_THREADS");
        if (text == nullptr || *text == '\0') return;
        char* end = nullptr;
        errno = 0;
        const long value = std::strtol(text, &end, 10);
        valid = errno == 0 && *end == '\0' && value >= 1 && value <= pool_max_threads;
        if (valid) threads = static_cast<int>(value);
    }
};

const Defaults& defaults() {
    static const Defaults d;
    return d;
}

}  // namespace

bool pool_threads(int wanted, int* threads) {
    *threads = wanted == 0 ? defaults().threads : wanted;
    return wanted == 0 ? defaults().valid : wanted > 0 && wanted <= pool_max_threads;
}

Status pool_run(std::size_t count, std::size_t grain, int threads, PoolBody body, void* context) {
    if (count == 0) return Status::ok;
    if (grain == 0) return Status::bad_argument;
    const std::size_t grains = count / grain + (count % grain != 0);
    threads = static_cast<int>(std::min<std::size_t>(std::max(1, std::min(threads, pool_max_threads)), grains));
    if (threads == 1) return body(context, 0, count);

    // About eight ranges a thread: even out what other processes take, without many hand-outs.
    const std::size_t ranges = std::min<std::size_t>(grains, static_cast<std::size_t>(threads) * 8);
    Job job(body, context, count, (grains + ranges - 1) / ranges * grain);
    Pool* p = pool();
    if (p == nullptr || !p->try_acquire()) {
        job.work();
    } else {
        p->run(job, threads - 1);
    }
    return job.result();
}

}  // namespace mipp
