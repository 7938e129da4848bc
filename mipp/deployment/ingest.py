"""From files to an index: which encoding a descriptor gets, adding images and vector files, resumable in chunks."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import features
from ..encoding import Encoding, tune
from ..encoding.bounds import ranking_problem
from ..errors import DeploymentError, ImageError, MippError, ParameterError, ScoreRangeError
from ..roles.config import DeploymentConfig
from ..roles.owner import ImageOwner

__all__ = ["AddReport", "add_images", "add_vectors", "descriptor_encoding", "index_descriptor", "query_vector"]

IMAGE_CHUNK = 128
_VECTOR_CHUNK_BYTES = 1 << 26
Progress = Callable[[int], None]


@dataclass
class AddReport:
    """What was added: (file, image id) each; how many were there already; (file, reason) for what was left out."""

    added: list[tuple[str, tuple[bytes, int]]] = field(default_factory=list)
    skipped: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)


def descriptor_encoding(
    spec: str,
    *,
    ring_bits: int = 32,
    bits: int = 8,
    query_bits: int = 8,
    sample: np.ndarray | None = None,
    tuned: bool = False,
    server_ranking: bool = False,
) -> Encoding:
    """The encoding that realises a descriptor's distance.

    Scales come from the descriptor's declared value range, or from ``sample``, embedded features (N, dim) of public
    images. Codes of integers are held exactly, with more than ``bits`` where they need them. In a ring of 16 bits,
    where eight-bit features do not fit, ``l2`` scores come in steps, as fine as the declared range, or better the
    sample, lets them be. ``server_ranking`` leaves the room that servers need to rank, or raises ScoreRangeError.
    """
    found = _descriptor_encoding(
        spec, ring_bits=ring_bits, bits=bits, query_bits=query_bits, sample=sample, tuned=tuned, server=server_ranking
    )
    if server_ranking and (problem := ranking_problem(found)):
        raise ScoreRangeError(f"{problem}, so servers cannot rank: use a larger ring or fewer bits, or let users rank")
    return found


def _descriptor_encoding(
    spec: str, *, ring_bits: int, bits: int, query_bits: int, sample: np.ndarray | None, tuned: bool, server: bool
) -> Encoding:
    d = features.get(spec)
    code = d.code
    low, high = np.array(code.low), np.array(code.high)
    if code.metric == "l1":
        return Encoding("l1", code.dim, levels=code.levels, ring_bits=ring_bits)
    if code.metric == "hamming":
        return Encoding("hamming", code.dim, ring_bits=ring_bits)
    options: dict[str, Any] = {"ring_bits": ring_bits, "bits": bits, "query_bits": query_bits}
    if sample is not None:
        if ring_bits == 16 or tuned:
            return tune(code.metric, sample, ring_bits=ring_bits, server_ranking=server).encoding
        if not code.whole:
            center = code.metric == "l2"
            return Encoding.fit(code.metric, sample, center=center, server_ranking=server, **options)
    if code.metric in ("cosine", "hellinger"):
        return Encoding(code.metric, code.dim, **options)
    half = float(np.max((high - low) / 2 if code.metric == "l2" else np.maximum(abs(low), abs(high))))
    if code.metric != "l2":
        return Encoding(code.metric, code.dim, scale=(half / ((1 << (bits - 1)) - 1),), **options)
    options["offset"] = tuple((np.floor((low + high) / 2) if code.whole else (low + high) / 2).tolist())
    if code.whole:
        options["bits"] = max(bits, math.ceil(half).bit_length() + 1)
        options["query_bits"] = max(query_bits, options["bits"])
        options |= {"scale": (1.0,), "weights": code.weights}
    else:
        options["scale"] = (half / ((1 << (bits - 1)) - 1),)
    try:
        return Encoding("l2", code.dim, **options)
    except ScoreRangeError:
        if ring_bits != 16:
            raise
    return _stepped(code, server)


def _stepped(code: features.Code, server: bool) -> Encoding:
    """An l2 encoding in 16 bits for vectors within the code's radius, which servers can rank if ``server``."""
    w = np.array(code.weights) if code.weights else np.ones(code.dim)
    # a little more, for the last digit of float arithmetic
    radius = code.radius * (1 + 1e-9)
    t = radius**2 / (1 << (14 - server))
    while True:
        # a row step of about root(t) balances the roundings of rows and of scores
        scale = 0.7 * math.sqrt(t)
        stored = radius + scale / 2 * math.sqrt(float(w.sum()))
        asked = radius + t / (4 * scale) * math.sqrt(float((1 / w).sum()))
        try:
            found = Encoding(
                "l2", code.dim, bits=12, query_bits=20, ring_bits=16, scale=(scale,), query_scale=t, offset=code.centre,
                row_norm2=math.ceil(stored**2 / t), query_norm2=math.ceil(asked**2 / t), weights=code.weights,
            )  # fmt: skip
            # steps of so few bits are the last that are tried
            if not server or found.allows_server_ranking or t > radius**2:
                return found
        except ScoreRangeError:
            pass
        t *= 1.05


def index_descriptor(config: DeploymentConfig) -> features.Descriptor:
    """The descriptor of an index of images.

    Raises
    ------
    ParameterError, DeploymentError
        An index of vectors that users bring; one whose features are of another version than this program's.
    """
    if not config.descriptor:
        raise ParameterError("this index holds vectors that users bring; add or search with vectors")
    found = features.get(config.descriptor)
    if found.version != config.descriptor_version:
        raise DeploymentError(
            f"this index holds {config.descriptor} of version {config.descriptor_version}, this program makes version "
            f"{found.version}; features of both are not comparable: make the index anew"
        )
    return found


def query_vector(config: DeploymentConfig, image: str | Path) -> np.ndarray:
    """Embedded features (dim,) of one image file; ImageError if it cannot be read. Else as :func:`index_descriptor`."""
    descriptor = index_descriptor(config)
    got = features.extract([Path(image)], descriptor, window=config.window)
    if got.errors:
        raise ImageError(got.errors[0][2])
    return np.asarray(descriptor.embed(got.values))[0]


def add_images(
    owner: ImageOwner,
    paths: Sequence[Path],
    *,
    workers: int | None = None,
    chunk: int = IMAGE_CHUNK,
    progress: Progress | None = None,
    seconds: dict[str, float] | None = None,
) -> AddReport:
    """Extract, encode, encrypt and upload image files, ``chunk`` at a time.

    A file that the owner's journal knows with the same content is skipped, so an interrupted call is resumed by the
    same call. A broken file is reported and left out; the rest goes on.
    """
    descriptor = index_descriptor(owner.config)
    report = AddReport()
    for start in range(0, len(paths), chunk):
        names, labels, contents = [], [], []
        for path in paths[start : start + chunk]:
            try:
                content = path.read_bytes()
            except OSError as error:
                report.errors.append((str(path), error.strerror or "cannot be read"))
                continue
            label = f"{path.resolve()} {hashlib.sha256(content).hexdigest()}"
            if label in labels or (owner.journal is not None and owner.journal.has(label)):
                report.skipped += 1
            else:
                names.append(path)
                labels.append(label)
                contents.append(content)
        if names:
            began = time.perf_counter()
            got = features.extract(names, descriptor, workers=workers, window=owner.config.window)
            if seconds is not None:
                seconds["extract"] = seconds.get("extract", 0.0) + time.perf_counter() - began
            report.errors += [(str(names[i]), text) for i, _, text in got.errors]
            kept = [int(i) for i in got.kept]
            if kept:
                values = descriptor.embed(got.values)
                with owner.turn:  # another process may be adding the same files
                    new = [n for n, i in enumerate(kept) if owner.journal is None or not owner.journal.has(labels[i])]
                    report.skipped += len(kept) - len(new)
                    kept = [kept[n] for n in new]
                    images = [(names[i].name, contents[i]) for i in kept]
                    ids = owner.add_vectors(values[new], images, labels=[labels[i] for i in kept]) if kept else []
                report.added += [(str(names[i]), image) for i, image in zip(kept, ids, strict=True)]
        if progress is not None:
            progress(min(chunk, len(paths) - start))
    return report


def add_vectors(owner: ImageOwner, path: Path, data: np.ndarray, *, progress: Progress | None = None) -> AddReport:
    """Add the vectors of a file in chunks of about 64 MiB of shares; resumable like :func:`add_images`.

    ``data`` is what :func:`mipp.io.vectors.load_vectors` gave for ``path``, which names them in journal and report. All
    of it is checked against the encoding before the first chunk is sent.
    """
    encoding, params = owner.config.encoding, owner.config.params
    row_bytes = params.padded(encoding.encoded_dim) * params.k // 8
    chunk = max(1, min(_VECTOR_CHUNK_BYTES // row_bytes, 1 << 18))
    digest = hashlib.sha256()
    for start in range(0, len(data), chunk):
        part = np.ascontiguousarray(data[start : start + chunk])
        try:
            encoding.encode_rows(part)
        except MippError as error:
            raise type(error)(f"{path}, rows {start} to {start + len(part) - 1}: {error}") from None
        digest.update(part.data.cast("B"))
    report = AddReport()
    for start in range(0, len(data), chunk):
        part = np.ascontiguousarray(data[start : start + chunk])
        label = f"{path.resolve()} {digest.hexdigest()} rows {start}+{len(part)}"
        with owner.turn:  # another process may be adding the same file
            known = owner.journal is not None and owner.journal.has(label)
            ids = [] if known else owner.add_vectors(part, labels=[label])
        if known:
            report.skipped += len(part)
        else:
            report.added += [(f"{path}:{start + i}", image) for i, image in enumerate(ids)]
        if progress is not None:
            progress(len(part))
    return report
