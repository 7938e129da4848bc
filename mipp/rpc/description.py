"""Public description of a deployment, known to every party."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

from ..encoding import Encoding
from ..encoding.bounds import QueryRule, RowRule, query_rule, row_rule
from ..errors import DeploymentError, ParameterError
from ..io.window import check_window
from ..params import FINITE, INFINITY, Params
from .grants import offered_rankings

__all__ = ["DeploymentConfig", "ServerKeys"]

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class ServerKeys:
    """Public keys of a server: ``box`` (X25519) for sealed secrets, ``pair`` (X25519) for the pairwise keys, ``sign``
    (Ed25519) for its votes on changes."""

    box: bytes
    pair: bytes
    sign: bytes


@dataclasses.dataclass(frozen=True)
class DeploymentConfig:
    """Public description of a deployment: id, parameters, encoding, descriptor, servers' public keys.

    ``descriptor`` is a spec such as ``csd64+ehd``, or empty when users bring vectors; ``descriptor_version``
    is the version of its values: those of another version are not comparable. ``window`` is what
    :func:`mipp.io.images.load_image` applies to deep gray images, or None: owners and users must read images alike.
    ``rankings`` are those that the index was made for, the default first; empty: all that the scheme has.
    """

    id: bytes
    params: Params
    encoding: Encoding
    descriptor: str
    servers: dict[int, ServerKeys]
    window: tuple[float, float] | None = None
    descriptor_version: int = 0
    rankings: tuple[str, ...] = ()

    @property
    def offered(self) -> tuple[str, ...]:
        """Rankings that grants may name, the default first."""
        return self.rankings or offered_rankings(self.params)

    @property
    def possible(self) -> tuple[str, ...]:
        """Those of :attr:`offered` that the encoding allows, too."""
        return tuple(r for r in self.offered if r == "user" or self.certifies)

    @functools.cached_property
    def certifies(self) -> bool:
        """Whether the servers can rank, so that they check the range of rows and queries."""
        return (self.params.n, self.params.t) == (3, 1) and self.encoding.allows_server_ranking

    @functools.cached_property
    def largest_distance(self) -> float:
        """Distance in the encoding's unit that no two images exceed; infinite where users bring vectors."""
        if not self.descriptor:
            return math.inf
        from .. import features

        code = features.get(self.descriptor).code
        # a little more, for what rounding adds
        return (2.0 * code.radius) ** 2 * (1.0 + 1e-6) if code.metric == "l2" else math.inf

    @functools.cached_property
    def row_rule(self) -> RowRule:
        """Bounds that rows must keep; ScoreRangeError if servers cannot check it."""
        return row_rule(self.encoding, self.params.padded(self.encoding.encoded_dim))

    @functools.cached_property
    def query_rule(self) -> QueryRule:
        """Bounds that queries must keep; ScoreRangeError if servers cannot check it."""
        return query_rule(self.encoding, self.params.padded(self.encoding.encoded_dim))

    @property
    def params_hash(self) -> bytes:
        """SHA-256 that every stored file carries: deployment, layout of rows, and encoding.

        In the form ``infinity`` it does not change when a cloud joins.
        """
        p = self.params
        form = b" infinity" if p.sharing == INFINITY else b""
        sizes = bytes([*p.layout, p.ring_bits])
        return hashlib.sha256(b"mipp v1 params" + form + self.id + sizes + self.encoding.hash).digest()

    def to_json(self) -> str:
        p = self.params
        params = {"n": p.n, "t": p.t, "k": p.ring_bits, "scheme": p.scheme}
        if p.sharing == INFINITY:  # the first descriptions had no such word
            params["sharing"] = p.sharing
        data = {
            "format": "mipp deployment",
            "version": FORMAT,
            "id": self.id.hex(),
            "params": params,
            "descriptor": self.descriptor,
            "encoding": self.encoding.to_dict(),
            "servers": {
                str(i): {"box": s.box.hex(), "pair": s.pair.hex(), "sign": s.sign.hex()}
                for i, s in self.servers.items()
            },
        }
        if self.window is not None:
            data["window"] = list(self.window)
        if self.descriptor:
            data["descriptor_version"] = self.descriptor_version
        if self.rankings:
            data["rankings"] = list(self.rankings)
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, version: int = FORMAT) -> DeploymentConfig:
        """Inverse of :meth:`to_json`; DeploymentError for anything else.

        ``version``: of the format; 1 had no ``sign`` keys, which are empty then.
        """
        try:
            data: Any = json.loads(text)
            if data["format"] != "mipp deployment" or data["version"] != version:
                raise DeploymentError("the deployment is of another format version")
            config = cls(
                bytes.fromhex(data["id"]),
                _params(**data["params"]),
                Encoding.from_dict(data["encoding"]),
                str(data["descriptor"]),
                {
                    int(i): ServerKeys(*(bytes.fromhex(s.get(name, "")) for name in ("box", "pair", "sign")))
                    for i, s in data["servers"].items()
                },
                check_window(data.get("window")),
                # the first descriptors were all of version 1, and it was not written
                int(data.get("descriptor_version", 1 if data["descriptor"] else 0)),
                tuple(data.get("rankings", ())),
            )
            if not set(config.rankings) <= set(offered_rankings(config.params)):
                raise DeploymentError("the description of the deployment names rankings that it cannot have")
        except DeploymentError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, ParameterError):
            raise DeploymentError("the description of the deployment is corrupt") from None
        lengths = {(len(s.box), len(s.pair), len(s.sign)) for s in config.servers.values()}
        if lengths != {(32, 32, 32 if version == FORMAT else 0)}:
            raise DeploymentError("the description of the deployment is corrupt")
        if len(config.id) != 16 or sorted(config.servers) != list(range(1, config.params.n + 1)):
            raise DeploymentError("the description of the deployment is corrupt")
        return config


def _params(n: int, t: int, k: int, scheme: str, sharing: str | None = None) -> Params:
    """Parameters as a description names them."""
    params = Params(
        n, t, k, "paillier" if scheme == "homomorphic" else scheme, sharing
    )  # the name of the first version
    if sharing is None and params.sharing == INFINITY:  # the first descriptions named no form, and meant this one
        return dataclasses.replace(params, sharing=FINITE)
    return params
