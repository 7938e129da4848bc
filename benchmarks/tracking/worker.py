"""A process with one build loaded, asked for samples: ``python worker.py BUILD WORKLOADS PACKAGE [count LIBRARY]``.

Stands alone: imports nothing of the benchmarks, so that only the build named is used. Each line read is a JSON object
with ``do``; each line written is the reply, ``{"error": ...}`` included.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import inspect
import json
import os
import sys
import time
from functools import partial

DEPTHS = 12


def load(path):
    """The workloads of a file, by name without ``bench_``."""
    spec = importlib.util.spec_from_file_location("mipp_workloads", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        name.removeprefix("bench_"): function
        for name, function in vars(module).items()
        if name.startswith("bench_") and inspect.isfunction(function)
    }


def counted(function):
    return "small" in inspect.signature(function).parameters


def deeper(depth, call):
    """``call()`` from some hundred bytes further down the stack for each of ``depth``.

    A kernel that keeps a part of its work on the stack is some percent slower where that part and its data have the
    same place in a page, which differs from process to process: every sample goes through all places.
    """
    return call() if not depth else next(map(partial(deeper, depth - 1), (call,)))


def levels():
    """The level of kernels in force, and all that this build has here; none without mipp."""
    try:
        from mipp import cpu
    except ImportError:
        return {"level": None, "levels": []}
    return {"level": cpu.level(), "levels": list(cpu.levels())}


class Worker:
    def __init__(self, workloads):
        self.depth = 0
        self.workloads = workloads
        self.call = None
        self.open = contextlib.ExitStack()

    def make(self, name, **options):
        """Call of a workload; what an earlier one held is released first."""
        self.drop()
        made = self.workloads[name](**options)
        if inspect.isgenerator(made):
            self.open.callback(next, made, None)
            made = next(made)
        self.call = made

    def drop(self):
        self.call = None
        self.open.close()
        gc.collect()

    def prepare(self, name):
        """Makes it again; seconds of a call, the fastest of some after a first one, and of making it."""
        begin = time.perf_counter()
        self.make(name)
        self.call()
        made = time.perf_counter() - begin
        return {**self.sample(3, 1, 1), "made": made}

    def timed(self, calls):
        call, clock = self.call, time.process_time
        begin = clock()
        for _ in range(calls):
            call()
        return clock() - begin

    def sample(self, runs, calls, warm):
        """Seconds of one call: the fastest of ``runs`` runs of ``calls``.

        Processor time of this process, all threads: another process on the core does not count, nor does waiting.
        Before, ``warm`` calls, while the core's caches still hold other data.
        """
        for _ in range(warm):
            self.call()
        best = float("inf")
        for _ in range(runs):
            self.depth = (self.depth + 1) % DEPTHS
            best = min(best, deeper(self.depth, lambda: self.timed(calls)))
        return {"seconds": best / calls}


def main():
    build, path, package = sys.argv[1:4]
    sys.path[0] = build
    loaded = importlib.import_module(package)
    if not os.path.realpath(loaded.__file__).startswith(os.path.realpath(build) + os.sep):
        sys.exit(f"{package} was imported from {loaded.__file__}, not from {build}")
    workloads = load(path)
    if sys.argv[4:5] == ["count"]:
        return count(Worker(workloads), ctypes.CDLL(sys.argv[5]), sys.argv[6:])
    # samples are read on this stream; what workloads print goes elsewhere
    replies, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(workloads)
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        try:
            if do == "list":
                reply = {"names": list(workloads), "counted": [n for n, f in workloads.items() if counted(f)]}
                reply |= levels()
            elif do == "prepare":
                reply = worker.prepare(**request)
            elif do == "sample":
                reply = worker.sample(**request)
            else:
                reply = worker.drop() or {}
        except Exception as error:  # said to the asker, which leaves the workload out
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
    worker.drop()


def count(worker, library, names):
    """Under valgrind: one dump of instructions for each name, of a single call."""
    gc.disable()
    for name in names:
        try:
            worker.make(name, small=True)
            worker.call()
            worker.call()
        except Exception as error:
            print(json.dumps({"name": name, "error": f"{type(error).__name__}: {error}"}), flush=True)
            continue
        call = worker.call
        library.count_begin()
        call()
        library.count_end(name.encode())
    worker.drop()


if __name__ == "__main__":
    main()
