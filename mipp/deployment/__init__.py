"""Ways to run all parties. Now: embedded, in one process and folder."""

from .embedded import DEFAULT_BITS, Deployment

__all__ = ["DEFAULT_BITS", "Deployment"]
