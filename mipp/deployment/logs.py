"""The log of a server: JSON lines on standard error. It holds facts on requests and peers, never what is secret."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["JsonLines", "begin_log"]


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, and the type of an unexpected error.

    Tracebacks are left out: frames of them can hold what is secret.
    """

    def format(self, record: logging.LogRecord) -> str:
        data = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            data["error"] = record.exc_info[0].__name__
            data["where"] = _where(record)
        return json.dumps(data)


def _where(record: logging.LogRecord) -> str:
    """File and line of an unexpected error."""
    at = record.exc_info[2] if record.exc_info else None
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f"{at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno}"


def begin_log(level: str) -> None:
    """Write the log of this process to standard error.

    Parameters
    ----------
    level : str
        Least level of lines: ``debug``, ``info``, ``warning`` or ``error``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("mipp")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level.upper())
