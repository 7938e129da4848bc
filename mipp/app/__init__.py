"""A page in the browser for owners and users, on their own machine (extra ``app``).

``mipp app`` starts it. The page speaks to the servers of a deployment through the same owners and users as the command
line; nothing it shows comes from, or goes to, another machine's web server. The README of this folder says what it
defends against.
"""

from __future__ import annotations

from .serving import AppServer

__all__ = ["AppServer"]
