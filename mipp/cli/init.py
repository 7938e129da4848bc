"""``mipp init``: chooses the encoding for the rankings that the index is for, and says what it chose.

``mipp deployment assemble`` chooses with the same options.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import numpy as np
from click.core import ParameterSource

from .. import schemes
from ..client.row_ids import batch_rows
from ..deployment import Deployment
from ..encoding import METRICS, Encoding
from ..encoding.clusters import Clusters
from ..errors import ParameterError, ScoreRangeError
from ..features import DEFAULT
from ..io.layouts import suffix_of
from ..io.vectors import SUFFIXES as VECTOR_SUFFIXES
from ..rpc.description import DeploymentConfig
from ..rpc.grants import offered_rankings
from .common import (
    deployment_option,
    json_option,
    scheme_option,
    show,
    walked,
    window_option,
)  # fmt: skip
from .outputs import warn

__all__ = ["ChosenIndex", "chosen_index", "index_facts", "index_lines", "index_options", "init_command"]

F = TypeVar("F", bound=Callable[..., Any])

#: rows of a sample that recall is measured on, at most
_MEASURED = 20_000
_RECALL_AT = 10
#: clusters that take seconds to find
_MANY_CLUSTERS = 1024
#: bytes of records of an index of images, unless others are chosen
PREVIEW_SIZE = 8192
_HINT = "see --ring, --bits, --query-bits, --fit with --tune; --ranking user makes an index that users rank"


def index_options(command: F) -> F:
    """The options that choose the encoding of a new index, for :func:`chosen_index`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return scheme_option(window_option(command), by_clouds=True)


_OPTIONS = (
    click.option("--descriptor", default=DEFAULT, show_default=True, help="Features of images, parts joined by +."),
    click.option(
        "--vectors", "dim", type=int, help="Instead of a descriptor: vectors of this many numbers that users bring."
    ),
    click.option("--metric", type=click.Choice(METRICS), default="cosine", show_default=True, help="With --vectors."),
    click.option("--levels", type=int, default=0, help="With --vectors and metric l1: values are 0 .. levels-1."),
    click.option(
        "--ring", type=click.Choice(["16", "32", "64"]), default="32", show_default=True, help="Bits of a stored word."
    ),
    click.option("--bits", type=int, default=8, show_default=True, help="Bits of a stored feature."),
    click.option("--query-bits", type=int, default=8, show_default=True, help="Bits of a query feature."),
    click.option(
        "--fit",
        "sample",
        type=click.Path(path_type=Path),
        help="Public images (folder) or vectors (file) to fit scales on.",
    ),
    click.option(
        "--tune", is_flag=True, help="With --fit: choose bits, clipping and scales by the sample's recall at 10."
    ),
    click.option(
        "--project", type=click.IntRange(1), help="With --fit of vectors: to so many principal directions; tunes."
    ),
    click.option(
        "--ranking",
        "rankings",
        type=click.Choice(["server", "user", "threshold"]),
        multiple=True,
        help="Ranking that owners may grant, the default first; may be repeated. Default: all that the scheme has. "
        "Ranking by servers and thresholds take half the range of scores; --ranking user alone leaves it to finer "
        "steps.",
    ),
    click.option(
        "--preview-size",
        type=int,
        help="Bytes of each row's record, which holds metadata and a thumbnail: 0 (none), or 256 to 65536 in steps of "
        "64. Default 8192 for images, 0 for vectors and with one cloud.",
    ),
    click.option(
        "--clusters",
        type=click.IntRange(2),
        help="With --fit: lay large batches out in so many clusters of its rows, so that mipp search --probe can look "
        "at some of them; see the page on selection.",
    ),
    click.option(
        "--centroids",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help=f"Instead of --clusters: public vectors to take as centroids ({', '.join(VECTOR_SUFFIXES)}).",
    ),
    click.option(
        "--groups", type=click.IntRange(1), help="With --clusters or --centroids: a query looks at one cluster in each."
    ),
)


class ChosenIndex(NamedTuple):
    """What the options chose: arguments of :meth:`mipp.Deployment.create`, and recall on the sample, if any."""

    encoding: Encoding
    descriptor: str
    scheme: str
    window: tuple[float, float] | None
    rankings: tuple[str, ...]
    recall: float | None
    preview_size: int = 0
    clusters: Clusters | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments beside the encoding."""
        return {
            "descriptor": self.descriptor, "scheme": self.scheme, "window": self.window, "rankings": self.rankings,
            "preview_size": self.preview_size, "clusters": self.clusters,
        }  # fmt: skip


@contextlib.contextmanager
def chosen_index(
    context: click.Context,
    descriptor: str,
    dim: int | None,
    metric: str,
    levels: int,
    ring: str,
    bits: int,
    query_bits: int,
    sample: Path | None,
    tune: bool,
    project: int | None,
    rankings: tuple[str, ...],
    preview_size: int | None,
    clusters: int | None,
    centroids: Path | None,
    groups: int | None,
    window: tuple[float, float] | None,
    scheme: str | None,
    clouds: int | None,
) -> Iterator[ChosenIndex]:
    """The choice of :func:`index_options`; refusals of it inside the block name the options that help.

    ``clouds``: their number, if it is known; without a scheme it decides which.
    """
    scheme = schemes.of_clouds(clouds) if scheme is None else scheme
    offered = offered_rankings(schemes.get(scheme).params(32))
    rankings = tuple(dict.fromkeys(rankings)) or offered
    if not set(rankings) <= set(offered):
        raise click.UsageError(f"in the {scheme} scheme users rank: --ranking user")
    options: dict[str, Any] = {"ring_bits": int(ring), "bits": bits, "query_bits": query_bits}
    of_vectors = dim is not None or (sample is not None and suffix_of(sample) in VECTOR_SUFFIXES)
    given = {n for n in context.params if context.get_parameter_source(n) == ParameterSource.COMMANDLINE}
    if (tune or project) and sample is None:
        raise click.UsageError("--tune and --project need --fit")
    if (tune or project) and given & {"bits", "query_bits"}:
        raise click.UsageError("--tune and --project choose the bits: leave --bits and --query-bits out")
    if of_vectors and (window is not None or "descriptor" in given):
        raise click.UsageError("--window and --descriptor are for images")
    if not of_vectors and (project or given & {"metric", "levels"}):
        raise click.UsageError("--metric, --levels and --project are for --vectors, or vectors to --fit on")
    clustered = clusters is not None or centroids is not None
    if (clustered or groups is not None) and "server" not in offered:
        raise click.UsageError(f"an index with one cloud has no clusters: users rank it ({scheme} scheme)")
    if clusters is not None and (sample is None or centroids is not None):
        raise click.UsageError("--clusters needs --fit; or name --centroids instead")
    if clustered and groups is None:
        raise click.UsageError("--clusters and --centroids need --groups G: a query looks at one cluster in each")
    if groups is not None and not clustered:
        raise click.UsageError("--groups needs --clusters C, with --fit, or --centroids FILE")
    by_servers = rankings != ("user",)
    try:
        if of_vectors:
            descriptor = ""
            encoding, fitted = _vector_encoding(dim, metric, levels, sample, options, tune, project, by_servers)
        else:
            encoding, fitted = _descriptor_encoding(descriptor, sample, options, tune, window, by_servers)
        recall = None if fitted is None else _recall(encoding, fitted)
        if preview_size is None:
            preview_size = PREVIEW_SIZE if descriptor and scheme == "shares" else 0
        dealt = None if groups is None else _clusters(encoding, fitted, clusters, centroids, groups)
        yield ChosenIndex(encoding, descriptor, scheme, window, rankings, recall, preview_size, dealt)
    except ScoreRangeError as error:
        raise ScoreRangeError(f"{error}; {_HINT}" if by_servers else str(error)) from None


@click.command("init")
@deployment_option
@index_options
@click.option(
    "--clouds", type=int, help="Clouds: 1, 2 or 3. 1 in the schemes lattice and paillier, 2 (default) or 3 in shares."
)
@json_option
@click.pass_context
def init_command(context: click.Context, /, folder: Path, clouds: int | None, as_json: bool, **options: Any) -> None:
    """Make an embedded deployment: all servers in one folder."""
    with chosen_index(context, clouds=clouds, **options) as chosen:
        made = Deployment.create(folder, chosen.encoding, clouds=clouds, **chosen.arguments)
    with made as deployment:
        data = {"deployment": str(folder.resolve()), "id": deployment.config.id.hex()}
        data |= index_facts(chosen, deployment.config)
    show(data, as_json, lambda: [f"deployment {data['id']} in {data['deployment']}", *index_lines(data)])


def index_facts(chosen: ChosenIndex, config: DeploymentConfig) -> dict[str, Any]:
    """Facts of a new index, for people and programs."""
    encoding = chosen.encoding
    return {
        "scheme": chosen.scheme,
        "clouds": len(config.params.clouds),
        "descriptor": chosen.descriptor,
        "metric": encoding.metric,
        "dim": encoding.dim,
        "stored_dim": encoding.encoded_dim,
        "ring": encoding.ring_bits,
        "bits": encoding.bits,
        "query_bits": encoding.query_bits,
        "recall": chosen.recall,
        "preview_size": config.record_bytes,
        "rankings": list(config.possible),
        "clusters": None if config.clusters is None else config.clusters.count,
        "groups": None if config.clusters is None else config.clusters.groups,
        "clustered_from": None if config.clusters is None else config.clusters.fewest_rows,
        "batch_rows": batch_rows(config),
    }


def index_lines(data: dict[str, Any]) -> list[str]:
    """Lines for a person, of :func:`index_facts`."""
    lines = [
        f"{data['descriptor'] or 'vectors'}: {data['dim']} values, {data['stored_dim']} stored words of {data['ring']} "
        f"bits, metric {data['metric']}",
    ]
    if data["metric"] not in ("l1", "hamming"):
        lines.append(f"bits: {data['bits']} of a stored feature, {data['query_bits']} of a query feature")
    if data["recall"] is not None:
        lines.append(f"recall at {_RECALL_AT} on the sample: {data['recall']:.3f}")
    if data["clusters"] is not None:
        lines.append(
            f"clusters: {data['clusters']} in {data['groups']} groups, for searches with --probe; in batches of "
            f"{data['clustered_from']:,} rows or more"
        )
        if data["batch_rows"] < data["clustered_from"]:
            lines.append(
                f"warning: vectors are added in batches of {data['batch_rows']:,} rows, which have no clusters until "
                "mipp owner compact merges them; fewer clusters would need fewer rows"
            )
    first, *others = data["rankings"]
    if data["preview_size"]:
        lines.append(f"records: {data['preview_size']:,} bytes a row, for metadata and a thumbnail")
    lines.append(f"ranking: {', '.join([f'{first} (default)', *others])}")
    return lines


def _clusters(
    encoding: Encoding, sample: np.ndarray | None, count: int | None, centroids: Path | None, groups: int
) -> Clusters:
    from ..io.vectors import load_vectors

    if (count or 0) >= _MANY_CLUSTERS:
        warn(f"finding {count} clusters of the sample; that may take minutes")
    if centroids is not None:
        return Clusters.of(encoding, np.asarray(load_vectors(centroids)), groups, sample=sample)
    return Clusters.fit(encoding, np.asarray(sample), count or 0, groups)


def _vector_encoding(
    dim: int | None,
    metric: str,
    levels: int,
    sample: Path | None,
    options: dict[str, Any],
    tuned: bool,
    project: int | None,
    by_servers: bool,
) -> tuple[Encoding, np.ndarray | None]:
    """The encoding, and the sample that it was fitted to."""
    from ..encoding import tune
    from ..io.vectors import load_vectors

    if metric == "l1":
        options["levels"] = levels
    elif levels:
        raise click.UsageError("--levels is for the metric l1")
    if sample is None:
        return Encoding(metric, int(dim or 0), **options), None
    data = np.asarray(load_vectors(sample))
    if dim is not None and data.shape[1] != dim:
        raise ParameterError(f"{sample} holds vectors of {data.shape[1]} numbers, not {dim}")
    if tuned or project:
        ring = options["ring_bits"]
        return tune(metric, data, ring_bits=ring, out_dim=project or 0, server_ranking=by_servers).encoding, data
    return Encoding.fit(metric, data, server_ranking=by_servers, **options), data


def _descriptor_encoding(
    descriptor: str,
    sample: Path | None,
    options: dict[str, Any],
    tuned: bool,
    window: tuple[float, float] | None,
    by_servers: bool,
) -> tuple[Encoding, np.ndarray | None]:
    from ..features.encoding import descriptor_encoding

    data = None if sample is None else _embedded(sample, descriptor, window)
    encoding = descriptor_encoding(descriptor, **options, sample=data, tuned=tuned, server_ranking=by_servers)
    return encoding, data


def _embedded(folder: Path, descriptor: str, window: tuple[float, float] | None) -> np.ndarray:
    from .. import features

    got = features.extract(walked(folder)[0], descriptor, window=window)
    if not len(got.values):
        raise ParameterError(f"{folder} holds no readable image to fit on")
    return np.asarray(features.get(descriptor).embed(got.values))


def _recall(encoding: Encoding, sample: np.ndarray) -> float | None:
    """Recall on the sample, or on some of it; None for metrics that are exact, and for few rows."""
    from ..encoding import recall

    if encoding.metric in ("l1", "hamming") or encoding.weights or len(sample) < 2 * _RECALL_AT:
        return None
    rows = np.arange(min(len(sample), _MEASURED)) * len(sample) // min(len(sample), _MEASURED)
    return round(recall(encoding, sample[rows], _RECALL_AT), 4)
