"""Public description of a deployment, known to every party."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import hmac
import json
import math
from typing import Any

from ..encoding import Encoding
from ..encoding.bounds import QueryRule, RowRule, query_rule, row_rule
from ..encoding.clusters import Clusters
from ..errors import DeploymentError, ParameterError
from ..io.window import check_window
from ..params import FINITE, INFINITY, Params
from .addresses import Address, require_distinct
from .grants import PROBE, offered_rankings
from .records import check_record_bytes
from .strict_json import canonical, read_object

__all__ = ["Address", "DeploymentConfig", "ServerKeys", "check_clusters", "check_fingerprint"]

#: formats by whether servers have addresses, and whether the index has clusters: a program that does not know of these
#: would add rows without their layout
_FORMATS = {(False, False): 2, (True, False): 3, (False, True): 4, (True, True): 5}
_SHAPES = {number: shape for shape, number in _FORMATS.items()}
#: most bytes of a description: an encoding's projection alone may have 64 MiB
MAX_DESCRIPTION_BYTES = 1 << 27
_MAX_VERSION = 1 << 31
#: 32 characters of 5 bits, which nobody mistakes for each other
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FINGERPRINT = 32


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
    ``addresses`` say where servers are reached; empty in an embedded deployment. ``registrar`` is the Ed25519 public
    key that signs invitations; empty: parties register without one. ``version`` counts the descriptions of one
    deployment, from 1; a later one is signed by servers of the one before (:mod:`mipp.rpc.membership`): ``signatures``
    by number of the server. ``record_bytes``: size of each row's record (:mod:`mipp.rpc.records`), 0 for none.
    ``clusters``: how rows lie in large batches (:mod:`mipp.encoding.clusters`), or None.
    """

    id: bytes
    params: Params
    encoding: Encoding
    descriptor: str
    servers: dict[int, ServerKeys]
    window: tuple[float, float] | None = None
    descriptor_version: int = 0
    rankings: tuple[str, ...] = ()
    addresses: dict[int, Address] = dataclasses.field(default_factory=dict)
    registrar: bytes = b""
    version: int = 1
    signatures: dict[int, bytes] = dataclasses.field(default_factory=dict)
    record_bytes: int = 0
    clusters: Clusters | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the whole description, for people to compare: 8 groups of 4 characters.

        It is 160 bits of SHA-256. Who makes a description chooses much of it, its id for one, and could look for two
        that have the same fingerprint, one for each listener: that takes 2^80 hashes. Another description with the
        fingerprint of a given one takes 2^160.
        """
        digest = hashlib.sha256(b"mipp v1 description" + self.unsigned).digest()
        number = int.from_bytes(digest[: 5 * _FINGERPRINT // 8], "big")
        text = "".join(_ALPHABET[number >> 5 * i & 31] for i in reversed(range(_FINGERPRINT)))
        return "-".join(text[i : i + 4] for i in range(0, _FINGERPRINT, 4))

    @property
    def unsigned(self) -> bytes:
        """The whole description but its signatures, in one canonical form."""
        return canonical(dataclasses.replace(self, signatures={})._data())

    @property
    def joined(self) -> int | None:
        """Number of the cloud that joined with this version of the description; None for the first version."""
        return max(self.servers) if self.version > 1 else None

    @property
    def offered(self) -> tuple[str, ...]:
        """Rankings that searches may name, the default first; a grant may name them, too."""
        return self.rankings or offered_rankings(self.params)

    @property
    def grantable(self) -> tuple[str, ...]:
        """Names of rankings that a grant may allow: those that are offered, and ``probe`` in an index with clusters."""
        return self.offered if self.clusters is None else (*self.offered, PROBE)

    @property
    def possible(self) -> tuple[str, ...]:
        """Those of :attr:`offered` that the encoding allows, too."""
        return tuple(r for r in self.offered if r == "user" or self.certifies)

    @functools.cached_property
    def certifies(self) -> bool:
        """Whether the servers can rank, so that they check the range of rows and queries."""
        return self.params.compares and self.params.t == 1 and self.encoding.allows_server_ranking

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

    @functools.cached_property
    def score_width(self) -> int:
        """Bits that hold every score of queries and rows in range, to which servers may cut score shares of such rows.

        0 if these are all bits of a word, or nobody tests rows.
        """
        bits = self.query_rule.score_bits if self.certifies else self.params.ring_bits
        return bits if bits < self.params.ring_bits else 0

    @property
    def checked_range(self) -> tuple[int, int]:
        """Least and largest score that a user accepts of rows that passed the range test, else the encoding's."""
        return (self.query_rule.low, self.query_rule.high) if self.certifies else self.encoding.score_range

    @property
    def params_hash(self) -> bytes:
        """SHA-256 that every stored file carries: deployment, layout of rows, and encoding.

        In the form ``infinity`` it does not change when a cloud joins.
        """
        p = self.params
        form = b" infinity" if p.sharing == INFINITY else b""
        sizes = bytes([*p.layout, p.ring_bits])
        return hashlib.sha256(b"mipp v1 params" + form + self.id + sizes + self.encoding.hash).digest()

    @functools.cached_property
    def probe_hash(self) -> bytes:
        """Hash of encoding and clusters, 32 bytes: headers of queries that choose clusters carry it.

        ParameterError for an index without clusters.
        """
        if self.clusters is None:
            raise ParameterError("this index has no clusters to choose: search all rows, without probes")
        return hashlib.sha256(b"mipp v1 probe" + self.encoding.hash + self.clusters.hash).digest()

    def to_json(self) -> str:
        return json.dumps(self._data(), indent=1) + "\n"

    def _data(self) -> dict[str, Any]:
        """The description as JSON holds it; that of an embedded deployment has no entries of format 3."""
        p = self.params
        addressed = bool(self.addresses or self.registrar or self.version != 1)
        params: dict[str, Any] = {"n": p.n, "t": p.t, "k": p.ring_bits, "scheme": p.scheme}
        if p.sharing == INFINITY:  # the first descriptions had no such word
            params["sharing"] = p.sharing
        data: dict[str, Any] = {
            "format": "mipp deployment",
            "version": _FORMATS[addressed, self.clusters is not None],
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
        if self.record_bytes:
            data["record_bytes"] = self.record_bytes
        if self.clusters is not None:
            data["clusters"] = self.clusters.to_dict()
        if addressed:
            data["addresses"] = {
                str(i): {"name": a.name, "url": a.url, "certificate": base64.b64encode(a.certificate).decode()}
                for i, a in self.addresses.items()
            }
            data["registrar"] = self.registrar.hex()
            data["description_version"] = self.version
        if self.signatures:
            data["signatures"] = {str(i): signature.hex() for i, signature in sorted(self.signatures.items())}
        return data

    @classmethod
    def from_json(cls, text: str | bytes, *, version: int | None = None) -> DeploymentConfig:
        """Inverse of :meth:`to_json`; DeploymentError for anything else.

        ``version``: of the format, default those that this program writes; 1 had no ``sign`` keys, which are empty
        then. Those with addresses are read strictly: as text that :meth:`to_json` could have written, but for spaces
        and order.
        """
        data = read_object(text, MAX_DESCRIPTION_BYTES, "the description of the deployment")
        if data.get("format") != "mipp deployment":
            raise DeploymentError("this is no description of a deployment")
        found = data.get("version")
        if type(found) is not int or found not in (_SHAPES if version is None else (version,)):
            raise DeploymentError("the deployment is of another format version")
        addressed, clustered = _SHAPES.get(found, (False, False))
        extra = _addressed(data) if addressed else {}
        if not extra and set(data) & {"addresses", "registrar", "description_version", "signatures"}:
            raise DeploymentError("the description of the deployment is corrupt: its format has no addresses")
        if clustered != ("clusters" in data):
            raise DeploymentError("the description of the deployment is corrupt: only its format tells of clusters")
        try:
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
                record_bytes=check_record_bytes(data.get("record_bytes", 0)),
                clusters=_clusters(data["clusters"]) if clustered else None,
                **extra,
            )
            if not set(config.rankings) <= set(offered_rankings(config.params)):
                raise DeploymentError("the description of the deployment names rankings that it cannot have")
            if config.clusters is not None:
                check_clusters(config.clusters, config.params, config.encoding)
        except DeploymentError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ParameterError):
            raise DeploymentError("the description of the deployment is corrupt") from None
        lengths = {(len(s.box), len(s.pair), len(s.sign)) for s in config.servers.values()}
        if lengths != {(32, 32, 0 if found == 1 else 32)}:
            raise DeploymentError("the description of the deployment is corrupt")
        if len(config.id) != 16 or sorted(config.servers) != list(range(1, config.params.n + 1)):
            raise DeploymentError("the description of the deployment is corrupt")
        if addressed:
            if config.addresses and sorted(config.addresses) != sorted(config.servers):
                raise DeploymentError("the description of the deployment names addresses of some servers only")
            keys = [key for s in config.servers.values() for key in (s.box, s.pair, s.sign)]
            require_distinct(config.addresses.values(), keys)
            if canonical(config._data()) != canonical(data):
                raise DeploymentError("the description of the deployment is corrupt")
        return config


def check_clusters(clusters: Clusters, params: Params, encoding: Encoding) -> None:
    """Refuse clusters that are not of an index, or that its servers cannot search.

    Raises
    ------
    ParameterError
        Centroids of another encoding; a scheme, a form of sharing or an encoding whose servers do not rank.
    """
    clusters.check(encoding)
    if not (params.compares and params.t == 1 and params.sharing == INFINITY and encoding.allows_server_ranking):
        raise ParameterError("clusters are for an index that servers rank, in the scheme shares")
    rule = query_rule(encoding, params.padded(encoding.encoded_dim))
    if (rule.high - rule.low + 1).bit_length() >= encoding.ring_bits:
        raise ParameterError("scores of this encoding leave no room for one below the least, which clusters need")


def _clusters(data: Any) -> Clusters:
    try:
        return Clusters.from_dict(data)
    except ParameterError as error:
        raise DeploymentError(f"the description of the deployment: {error}") from None


def _params(n: int, t: int, k: int, scheme: str, sharing: str | None = None) -> Params:
    """Parameters as a description names them."""
    params = Params(
        n, t, k, "paillier" if scheme == "homomorphic" else scheme, sharing
    )  # the name of the first version
    if sharing is None and params.sharing == INFINITY:  # the first descriptions named no form, and meant this one
        return dataclasses.replace(params, sharing=FINITE)
    return params


def _addressed(data: dict[str, Any]) -> dict[str, Any]:
    """The fields that tell of servers with addresses."""
    try:
        addresses = {
            int(i): Address(str(a["name"]), str(a["url"]), base64.b64decode(a["certificate"], validate=True))
            for i, a in data["addresses"].items()
        }
        registrar, version = bytes.fromhex(data["registrar"]), data["description_version"]
        signatures = {int(i): bytes.fromhex(text) for i, text in data.get("signatures", {}).items()}
    except DeploymentError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeploymentError("the description of the deployment is corrupt") from None
    fits = len(registrar) in (0, 32) and type(version) is int and 1 <= version < _MAX_VERSION
    if not fits or any(len(s) != 64 for s in signatures.values()) or not (addresses or not signatures):
        raise DeploymentError("the description of the deployment is corrupt")
    return {"addresses": addresses, "registrar": registrar, "version": version, "signatures": signatures}


def check_fingerprint(config: DeploymentConfig, typed: str) -> None:
    """Compare a fingerprint that a person typed with a description's; case, dashes and spaces do not matter.

    Raises
    ------
    DeploymentError
        It is another description's, or not of the length of one: a part of a fingerprint is not accepted.
    """
    text = "".join(c for c in typed[:200].upper() if c != "-" and not c.isspace())
    text = text.translate(str.maketrans("OIL", "011"))  # as people read them
    if len(typed) > 200 or len(text) != _FINGERPRINT or not set(text) <= set(_ALPHABET):
        raise DeploymentError(
            f"a fingerprint has {_FINGERPRINT} letters and digits, in groups of 4; a part of it is not enough"
        )
    if not hmac.compare_digest(text, config.fingerprint.replace("-", "")):
        raise DeploymentError(
            f"this description has another fingerprint, {config.fingerprint}: ask an operator which one is right"
        )
