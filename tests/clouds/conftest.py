"""The command line, as the tests of its own room call it."""

from tests.cli.conftest import mipp_command

__all__ = ["mipp_command"]
