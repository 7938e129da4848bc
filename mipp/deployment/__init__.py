"""Ways to run all parties. So far one: embedded, in one process and folder."""

from .embedded import DEFAULT_BITS, Deployment
from .results import DeploymentStatus, VerifyReport

__all__ = ["DEFAULT_BITS", "Deployment", "DeploymentStatus", "VerifyReport"]
