"""The built extension. Use it through the modules above it (:mod:`mipp.ring`, :mod:`mipp.cpu`, ...)."""

from . import _core

# Refuses to go on when MIPP_CPU names a level that this machine lacks.
_core.cpu_check_environment()
