"""Ways to run all parties. Now: embedded, in one process and folder."""

from .embedded import Deployment

__all__ = ["Deployment"]
