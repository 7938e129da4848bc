"""The same work by other libraries, in turn: ``python -m benchmarks.peers [--quick] [--json FILE] [--html FILE]``.

numpy, faiss, SPU, phe and TenSEAL; one that is not installed is left out with a word. Times are medians, ratios medians
of pairs measured A B B A in this run; both sides have the threads named. ``--quick`` uses sizes of seconds whose
figures mean nothing.
"""

from __future__ import annotations

import os

# numpy's library reads it once, when it is loaded; more threads are asked for by threadpoolctl
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

import mipp
from benchmarks import machine, pages, plots
from benchmarks.common import Call, Pairs, blas_threads, fastest, in_turns, numpy_products, random_words, seconds
from mipp import ring

DIM = 128
SCHEMA = "mipp-peers-1"


class Missing(Exception):
    """A peer is not installed; the message names what it needs."""


@dataclass
class Row:
    """One work by both sides."""

    work: str
    peer: str
    threads: int
    sizes: dict[str, int]
    ms: float
    peer_ms: float
    #: ours / peer, median of pairs: below 1 we are faster
    ratio: float
    rounds: int
    notes: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, work: str, peer: str, threads: int, sizes: dict, pairs: Pairs, **notes) -> Row:
        ours, theirs = pairs.medians(1e3, 6)
        return cls(work, peer, threads, sizes, ours, theirs, pairs.ratio, len(pairs.ours), notes)


@dataclass(frozen=True)
class Scale:
    """Sizes of a run."""

    quick: bool
    spu_python: str | None

    def __call__(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def faiss_index(vectors: np.ndarray):
    """An IndexFlatIP, and its search on one of its two paths: BLAS, or its own loops (the default at few queries)."""
    try:
        import faiss
    except ImportError:
        raise Missing("faiss is not installed: pip install faiss-cpu") from None
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(queries: np.ndarray, k: int, blas: bool, threads: int):
        faiss.omp_set_num_threads(threads)
        before = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = 1 if blas else 1 << 30
        try:
            return index.search(queries, k)
        finally:
            faiss.cvar.distance_compute_blas_threshold = before

    return search


def faster_path(search, queries: np.ndarray, k: int, threads: int) -> tuple[Call, str, dict[str, float]]:
    """faiss's faster path for these sizes, by one timed call of each after a first one."""
    paths: dict[str, Call] = {
        name: lambda blas=blas: search(queries, k, blas, threads) for name, blas in (("blas", True), ("loops", False))
    }
    spent = {}
    for name, call in paths.items():
        call()
        spent[name] = round(1e3 * seconds(call), 3)
    best = min(spent, key=spent.__getitem__)
    return paths[best], best, spent


def products(scale: Scale) -> Iterator[Row]:
    """All inner products of a batch of queries with all rows, one thread: numpy float32, and faiss."""
    rows = scale(500_000, 5_000)
    floats = np.random.default_rng(5).random((rows, DIM), np.float32)
    try:
        search = faiss_index(floats)
    except Missing as missing:
        print(f"left out: {missing}")
        search = None
    with blas_threads(1):
        for dtype in (np.uint32, np.uint16):
            stored = random_words((rows, DIM), dtype)
            for count in (1, 16, 256):
                columns, out = random_words((count, DIM), dtype, 6), np.zeros((count, rows), dtype)
                ours = lambda c=columns, o=out, s=stored: seconds(lambda: ring.matmul(s, c, out=o, threads=1))  # noqa: E731
                rounds = scale(15 if count < 256 else 5, 3)
                sizes = {"rows": rows, "dim": DIM, "queries": count, "ring_bits": 8 * np.dtype(dtype).itemsize}
                name = f"inner products, {count} queries, {np.dtype(dtype).name}"
                ways = numpy_products(floats, count)
                ours(), fastest(ways)
                yield Row.of(name, "numpy float32", 1, sizes, in_turns(ours, lambda w=ways: fastest(w), rounds))
                del ways
                if search is None:
                    continue
                queries = np.random.default_rng(6).random((count, DIM), np.float32)
                call, path, spent = faster_path(search, queries, 1, 1)
                pairs = in_turns(ours, lambda c=call: seconds(c), min(rounds, 7))
                note = "faiss also keeps the best row of each query"
                yield Row.of(name, "faiss IndexFlatIP", 1, sizes, pairs, path=path, paths_ms=spent, note=note)


def end_to_end(scale: Scale) -> Iterator[Row]:
    """The 10 nearest: an encrypted search by three parties, ranked by the user, and faiss in the clear."""
    rows, count, k, threads = scale(1_000_000, 5_000), scale(256, 8), 10, min(2, machine.cores())
    vectors = np.random.default_rng(1).normal(size=(rows, DIM)).astype(np.float32)
    queries = vectors[:: rows // count][:count] + np.float32(0.3) * np.random.default_rng(2).normal(
        size=(count, DIM)
    ).astype(np.float32)
    search = faiss_index(vectors)
    with tempfile.TemporaryDirectory() as folder, blas_threads(threads):
        encoding = mipp.Encoding.fit("ip", vectors[:10_000], ring_bits=16, bits=7, query_bits=6)
        with mipp.Deployment.create(Path(folder, "deployment"), encoding, threads=threads) as made:
            owner, user = made.create_owner("owner"), made.create_user("user")
            owner.grant(user.id, rankings=["user"])
            owner.add_vectors(vectors)
            nearest = user.nearest(queries, k, ranking="user")
            call, path, spent = faster_path(search, queries, k, threads)
            _, exact = search(queries, k, path == "blas", threads)
            found = [len(set(a) & set(b)) for a, b in zip(nearest.rows.tolist(), exact.tolist(), strict=True)]
            pairs = in_turns(
                lambda: seconds(lambda: user.nearest(queries, k, ranking="user")), lambda: seconds(call), scale(7, 2)
            )
            yield Row.of(
                f"nearest {k} of {rows} rows, {count} queries, encrypted, three parties", "faiss IndexFlatIP", threads,
                {"rows": rows, "dim": DIM, "queries": count, "ring_bits": 16, "k": k}, pairs,
                path=path, paths_ms=spent, recall_of_quantised=round(sum(found) / (count * k), 4),
            )  # fmt: skip


def spu(scale: Scale) -> Iterator[Row]:
    """Threshold and top-10 of shared scores by three parties in one process; sharing and opening included."""
    from benchmarks.protocol.spu_client import WORKS, Peer, scores_of

    if not scale.spu_python:
        raise Missing("SPU: --spu-python or MIPP_SPU_PYTHON names no interpreter with spu==0.9.5 (Python < 3.12)")
    rows = scale(100_000, 2_000)
    scores = scores_of(rows)
    with tempfile.TemporaryDirectory() as folder, Peer(scale.spu_python, scores, Path(folder)) as peer:
        for work, (function, expected) in WORKS.items():
            if not np.array_equal(function(scores), expected(scores)):
                raise RuntimeError(f"{work}: our result is wrong")
            for bits in (32, 64):
                name = f"{work}_fm{bits}"
                peer.seconds(name)
                ours = lambda f=function: seconds(lambda: f(scores))  # noqa: E731
                pairs = in_turns(ours, lambda n=name: peer.seconds(n), scale(11, 2))
                yield Row.of(
                    f"{work} of {rows} shared scores", f"SPU FM{bits}", machine.cores(), {"rows": rows}, pairs,
                    note="both use all cores",
                )  # fmt: skip


def paillier(scale: Scale) -> Iterator[Row]:
    """Encryption, decryption and an encrypted query times plain rows, per item, one thread."""
    from mipp.paillier import PrivateKey, PublicKey, decrypt, encrypt

    try:
        import phe
    except ImportError:
        raise Missing("phe is not installed: pip install phe gmpy2") from None
    bits = 2048
    their_public, their_private = phe.generate_paillier_keypair(n_length=bits)
    private, public = PrivateKey(their_private.p, their_private.q), PublicKey(their_public.n)
    public.prepare(threads=1)
    items, few, rows = scale(1024, 64), scale(4, 2), scale(1000, 64)
    rng = np.random.default_rng(0)
    values = rng.integers(-(2**31), 2**31, items)
    array, theirs = encrypt(public, values, threads=1), [their_public.encrypt(v) for v in values[:few].tolist()]
    x, query = rng.integers(-127, 128, (rows, DIM), dtype=np.int8), rng.integers(-127, 128, DIM, dtype=np.int8)
    encrypted, their_query = encrypt(public, query), [their_public.encrypt(v) for v in query.tolist()]

    def their_dot():
        total = their_query[0] * int(x[0, 0])
        for c, w in zip(their_query[1:], x[0, 1:].tolist(), strict=True):
            total = total + c * w

    works: dict[str, tuple[Call, int, Call, int]] = {
        "encryption": (
            lambda: encrypt(public, values, threads=1), items,
            lambda: [their_public.encrypt(v) for v in values[:few].tolist()], few,
        ),
        "decryption": (
            lambda: decrypt(private, array, threads=1), items, lambda: [their_private.decrypt(c) for c in theirs], few,
        ),
        f"encrypted query of {DIM} times a plain row": (lambda: encrypted.dot(x.T, threads=1), rows, their_dot, 1),
    }  # fmt: skip
    for name, (ours, count, peer, peer_count) in works.items():
        ours(), peer()
        pairs = in_turns(
            lambda f=ours, n=count: seconds(f) / n, lambda f=peer, n=peer_count: seconds(f) / n, scale(7, 2)
        )
        sizes = {"bits": bits, "items": count, "peer_items": peer_count}
        yield Row.of(f"Paillier {name}", "phe", 1, sizes, pairs, unit="per item")


def ckks(scale: Scale) -> Iterator[Row]:
    """An encrypted query times plain rows: exact by Paillier, approximate by CKKS (faster of dot and matmul)."""
    from mipp.paillier import decrypt, encrypt, generate_keypair

    try:
        import tenseal
    except ImportError:
        raise Missing("TenSEAL is not installed: pip install tenseal") from None
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1)
    context.global_scale = 2**40
    context.generate_galois_keys()
    rows, bits = scale(1000, 64), 2048
    private = generate_keypair(bits)
    rng = np.random.default_rng(1)
    x, query = rng.integers(-127, 128, (rows, DIM), dtype=np.int8), rng.integers(-127, 128, DIM, dtype=np.int8)
    ours, theirs = encrypt(private.public, query), tenseal.ckks_vector(context, query.tolist())
    assert np.array_equal(decrypt(private, ours.dot(x[:4].T)), x[:4].astype(int) @ query)
    plain, matrix = x[0].tolist(), x[:64].T.tolist()
    assert abs(theirs.dot(plain).decrypt()[0] - float(x[0].astype(int) @ query)) < 1

    def peer():
        return min(seconds(lambda: theirs.dot(plain)), seconds(lambda: theirs.matmul(matrix)) / 64)

    peer()
    pairs = in_turns(lambda: seconds(lambda: ours.dot(x.T, threads=1)) / rows, peer, scale(7, 2))
    sizes = {"rows": rows, "dim": DIM, "bits": bits, "ckks_degree": 8192}
    yield Row.of(f"encrypted query of {DIM} times a plain row", "TenSEAL CKKS", 1, sizes, pairs, unit="per row")


WORKS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "products": products, "end_to_end": end_to_end, "spu": spu, "paillier": paillier, "ckks": ckks,
}  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the installed libraries that took part."""
    found = {"mipp": mipp.__version__, "python": platform.python_version()}
    for name in ("numpy", "faiss-cpu", "phe", "gmpy2", "tenseal"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--spu-python", default=os.environ.get("MIPP_SPU_PYTHON"), help="interpreter that has SPU")
    pages.add_options(parser)
    asked = parser.parse_args(arguments)
    earlier = pages.check(parser, asked, SCHEMA)
    facts = machine.facts()
    print(machine.line(facts))
    if busy := machine.busy():
        print(busy)
    scale = Scale(asked.quick, asked.spu_python)
    results: list[Row] = []
    left_out: dict[str, str] = {}
    print(f"{'work':66} {'peer':18} threads {'ours':>12} {'peer':>12}  times as fast", flush=True)
    for name in asked.only:
        try:
            for row in WORKS[name](scale):
                results.append(row)
                print(
                    f"{row.work:66} {row.peer:18} {row.threads:7} {row.ms:9.3f} ms {row.peer_ms:9.3f} ms "
                    f"{1 / row.ratio:10.2f}  {row.notes.get('path', row.notes.get('unit', ''))}", flush=True,
                )  # fmt: skip
        except Missing as missing:
            left_out[name] = str(missing)
            print(f"left out: {missing}")
    content = {
        **machine.head(SCHEMA, quick=asked.quick, busy=busy),
        "versions": versions(),
        "results": [asdict(row) for row in results],
        "left_out": left_out,
    }
    if asked.json:
        asked.json.write_text(json.dumps(content, indent=1))
        print("JSON:", asked.json)
    if asked.html:
        pages.write(asked.html, pages.PEERS, content, earlier, "benchmarks.peers")
    if asked.plot and results:
        plot(results, asked.plot, machine.line(facts))
    return 0


def plot(results: Sequence[Row], path: Path, title: str) -> None:
    """Bars: how many times as fast as each peer, on a logarithmic axis."""
    made, axes = plots.figure(figsize=(11, 1.5 + 0.32 * len(results)))
    axis = axes[0, 0]
    times = [1 / row.ratio for row in results]
    axis.barh(range(len(results)), [t - 1 for t in times], left=1, color=["C0" if t >= 1 else "C3" for t in times])
    axis.set_yticks(range(len(results)), [f"{row.work} / {row.peer}" for row in results], fontsize=7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.invert_yaxis()
    axis.set_xlabel("times as fast as the peer (right of 1: mipp is faster)")
    axis.set_title(title, fontsize=6)
    plots.save(made, path)


if __name__ == "__main__":
    sys.exit(main())
