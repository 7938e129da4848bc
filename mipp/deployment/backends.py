"""Which backend a server's products run on, as its operator chose: this process, or workers of a Dask cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..backends import Backend, CpuBackend
from ..errors import DeploymentError, ParameterError
from ..params import Params

__all__ = ["BACKENDS", "BackendChoice"]

BACKENDS = ("cpu", "dask")
#: folder of a server's own certificate for the operator's cluster, and its files
_SCRATCH, _CLUSTER, _FILES = "workers", "cluster", ("ca.pem", "cert.pem", "key.pem")


@dataclass(frozen=True)
class BackendChoice:
    """An operator's choice of a backend.

    Parameters
    ----------
    name : str
        ``cpu``, or ``dask`` (extra ``dask``).
    workers : int
        Of ``dask``: worker processes to start on this machine; 0 for a cluster that is there.
    scheduler : str
        Of ``dask``: address of the cluster's scheduler, ``tls://HOST:PORT``; empty for own workers.

    Raises
    ------
    ParameterError
        An unknown backend; neither workers nor a scheduler, or both; options of ``dask`` for ``cpu``.

    Examples
    --------
    >>> from mipp.deployment.backends import BackendChoice
    >>> BackendChoice("dask", workers=4).workers
    4
    """

    name: str = "cpu"
    workers: int = 0
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.name not in BACKENDS:
            raise ParameterError(f"the backend is one of {', '.join(BACKENDS)}, not {self.name!r}")
        if self.name == "cpu" and (self.workers or self.scheduler):
            raise ParameterError("workers and a scheduler are of the backend dask; add --backend dask")
        if self.name == "dask" and bool(self.workers) == bool(self.scheduler):
            raise ParameterError("the backend dask has either workers on this machine (--workers) or a --scheduler")
        if not 0 <= self.workers <= 1024:
            raise ParameterError(f"a machine has 1 to 1024 workers, not {self.workers}")

    def make(self, folder: Path, params: Params, threads: int) -> Backend:
        """Make the backend. Workers start now; a cluster is met at the first product.

        Parameters
        ----------
        folder : Path
            The server's: its ``cluster`` has ``ca.pem``, ``cert.pem`` and ``key.pem`` for a scheduler.
        params : Params
            Of the deployment.
        threads : int
            Native threads of this process; workers on this machine share as many among them.

        Raises
        ------
        DeploymentError
            A file of the certificate is missing, or others than its owner may read the key.
        MissingExtraError
            Dask is not installed.
        """
        if self.name == "cpu":
            return CpuBackend(params, threads)
        from ..backends.dask import DaskBackend
        from ..backends.pool import Pool, local_cluster, operators_cluster

        if self.workers:
            # what a killed server's workers leave stays in its folder, and goes at the next start
            pool = Pool(local_cluster(self.workers, folder / _SCRATCH))
            pool.workers()
            return DaskBackend(params, threads, pool, max(1, threads // self.workers))
        files = [folder / _CLUSTER / name for name in _FILES]
        for file in files:
            if not file.is_file():
                raise DeploymentError(f"{file} is missing: a scheduler is reached with a certificate of its cluster")
        if files[2].stat().st_mode & 0o077:
            raise DeploymentError(f"others can read {files[2]}; make it readable for this account alone (chmod 600)")
        return DaskBackend(params, threads, Pool(operators_cluster(self.scheduler, *files)))
