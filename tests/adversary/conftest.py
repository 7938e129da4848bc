"""The command line, as in tests/cli."""

from tests.cli.conftest import mipp_command

__all__ = ["mipp_command"]
