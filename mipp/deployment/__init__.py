"""Ways to run all parties: embedded in one process and folder, or connected to servers over a network."""

from .connected import ConnectedDeployment, is_connected
from .embedded import DEFAULT_BITS, Deployment
from .results import DeploymentStatus, RepairReport, VerifyReport

__all__ = [
    "DEFAULT_BITS",
    "ConnectedDeployment",
    "Deployment",
    "DeploymentStatus",
    "RepairReport",
    "VerifyReport",
    "is_connected",
]
