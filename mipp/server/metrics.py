"""Counts of a server for Prometheus: requests, bytes, rounds, comparisons, seconds. Nothing about what was asked."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..errors import MippError
from ..mpc.session import Counters

__all__ = ["Metrics"]

_log = logging.getLogger("mipp.requests")
#: phases of a ranking, by the kinds of messages that end their rounds
_PHASES = {
    "product": "product", "hello": "agree", "check": "agree", "confirm": "agree", "done": "agree",
    "reshare": "shuffle", "shuffle": "shuffle", "split": "compare", "generate": "compare", "and": "compare",
    "open": "compare",
}  # fmt: skip
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class _Now(Collector):
    """Values that are read when somebody asks."""

    def __init__(self, read: Callable[[], Mapping[str, tuple[str, Mapping[str, float]]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, (text, values) in self._read().items():
            labelled = any(values)
            label_name = "worker" if name.startswith("mipp_worker_") else "server"
            family = GaugeMetricFamily(name, text, labels=[label_name] if labelled else [])
            for label, value in values.items():
                family.add_metric([label] if labelled else [], value)
            yield family

    def describe(self) -> list[Any]:
        return []


class Metrics:
    """The counts of one server.

    Parameters
    ----------
    now : callable
        Gauges as they are now: by name, a text and values by the server (its number) or worker (its address) that they
        are about, or "".
    """

    def __init__(self, now: Callable[[], Mapping[str, tuple[str, Mapping[str, float]]]]) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Now(now))
        self._requests = Counter(
            "mipp_requests", "Signed requests by kind and outcome.", ["kind", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "mipp_request_seconds", "Seconds to answer a signed request.", ["kind"], buckets=_SECONDS, registry=registry
        )
        self._rankings = Counter("mipp_rankings", "Rankings by outcome.", ["outcome"], registry=registry)
        self._ranking_seconds = Histogram(
            "mipp_ranking_seconds", "Seconds of a ranking, scores included.", buckets=_SECONDS, registry=registry
        )
        self._rounds = Counter("mipp_ranking_rounds", "Rounds of rankings.", registry=registry)
        self._comparisons = Counter(
            "mipp_ranking_comparisons", "Secret comparisons of rankings, with padding.", registry=registry
        )
        self._phases = Counter(
            "mipp_ranking_phase_seconds",
            "Seconds of rankings by phase, waiting for other servers included: product (of rows and queries), agree "
            "(on parameters, queries in range, the result), shuffle, compare.",
            ["phase"], registry=registry,
        )  # fmt: skip
        self._bytes = Counter(
            "mipp_ranking_sent_bytes", "Payload that rankings sent to the other servers, by kind of message.", ["kind"],
            registry=registry,
        )  # fmt: skip

        self._suspected = Counter(
            "mipp_suspected", "Users' reports of wrong answers, by server that is in every set which failed.",
            ["server"], registry=registry,
        )  # fmt: skip

    def suspected(self, servers: Sequence[int]) -> None:
        """Count a user's report of wrong answers.

        Parameters
        ----------
        servers : sequence of int
            Numbers of the servers that it suspects.
        """
        for server in servers:
            self._suspected.labels(str(server)).inc()

    @contextlib.contextmanager
    def request(self, kind: str, random: bytes, party: bytes) -> Iterator[None]:
        """Count a request while it is answered, and log it when it was.

        Parameters
        ----------
        kind : str
            Kind of the message.
        random : bytes
            The random bytes of its envelope, which name it in the log.
        party : bytes
            Id of who signed it.
        """
        began, outcome = time.perf_counter(), "ok"
        try:
            yield
        except BaseException as error:
            outcome = type(error).__name__ if isinstance(error, MippError) else "unexpected"
            raise
        finally:
            took = time.perf_counter() - began
            self._requests.labels(kind, outcome).inc()
            self._seconds.labels(kind).observe(took)
            facts = {"request": random[:8].hex(), "kind": kind, "party": party.hex(), "outcome": outcome}
            _log.info("request", extra={"facts": facts | {"ms": round(1e3 * took, 3)}})

    def ranking(self, counters: Counters, seconds: float, outcome: str) -> None:
        """Count a ranking that has ended.

        Parameters
        ----------
        counters : Counters
            What this server sent.
        seconds : float
            How long it took.
        outcome : str
            ``ok``, or the type of the error that ended it.
        """
        self._rankings.labels(outcome).inc()
        self._ranking_seconds.observe(seconds)
        self._rounds.inc(counters.rounds)
        self._comparisons.inc(counters.comparisons)
        for what, took in counters.seconds.items():
            self._phases.labels(_PHASES.get(what, what)).inc(took)
        for kind, size in counters.payload.items():
            self._bytes.labels(kind).inc(size)

    def page(self) -> bytes:
        """The page for Prometheus, in its text format."""
        text: bytes = generate_latest(self._registry)
        return text
