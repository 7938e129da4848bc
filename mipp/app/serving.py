"""Serves the page on loopback until it is closed."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from .. import features
from ..deployment import ConnectedDeployment, Deployment
from ..errors import MippError, ParameterError, missing_extra

try:
    from .desk import Desk
    from .guard import Guard
    from .listening import Listener, fresh_address
    from .site import make_site
except ImportError as error:
    if (error.name or "").split(".")[0] not in ("waitress", "flask", "werkzeug"):
        raise
    raise missing_extra("the page needs Flask and waitress", "app") from None

__all__ = ["AppServer"]

_IDLE_MINUTES = 30.0


class AppServer:
    """The page's server on a loopback address of this machine, another one each time where the system has several.

    Parameters
    ----------
    deployment : Deployment or ConnectedDeployment
        Open. It stays open when the page is closed.
    port : int
        Port of that address; 0 for a free one.
    idle_minutes : float
        Minutes after which it stops by itself when no page asks anything any more.

    Attributes
    ----------
    desk : Desk
        What is open on the page. Secret.
    host, port : str, int
        Where it listens: an address 127.x.y.z that was drawn at random for this run, so that browsers hold nothing of
        other programs for it; 127.0.0.1 on systems that have no other (macOS). Other accounts can see both.

    Raises
    ------
    MissingExtraError
        Flask or waitress is not installed (when this module is imported).
    ParameterError
        The port cannot be used.

    Examples
    --------
    >>> import tempfile, mipp
    >>> from mipp.app import AppServer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
    ...         page = AppServer(deployment)
    ...         page.start()
    ...         link = page.link()
    ...         page.stop()
    >>> link.startswith(f"http://{page.host}:{page.port}/") and "/#open=" in link
    True
    """

    def __init__(
        self,
        deployment: Deployment | ConnectedDeployment,
        *,
        port: int = 0,
        idle_minutes: float = _IDLE_MINUTES,
    ) -> None:
        self.desk, self._guard = Desk(deployment), Guard()
        self._idle = idle_minutes * 60
        self._heard = time.monotonic()
        self._stopping = threading.Event()
        logging.getLogger("waitress").setLevel(logging.CRITICAL)  # it logs names of files that a page asked for
        site = make_site(self.desk, self._guard, self._stopping.set, self._alive)
        try:
            self.host = fresh_address()
            self._server = Listener(site, self._guard, self.host, port)
        except (OSError, ValueError, OverflowError) as error:
            raise ParameterError(f"port {port} of this machine's loopback cannot be used: {error}") from None
        self.port: int = int(self._server.effective_port)
        self._guard.host, self._guard.port = self.host, self.port
        self._preparing = threading.Thread(target=_prepare, args=(deployment,), name="mipp app start", daemon=True)
        self._thread = threading.Thread(target=self._server.run, name="mipp app", daemon=True)

    def __repr__(self) -> str:
        return f"AppServer(port={self.port})"

    def link(self) -> str:
        """Make a link that opens the page, once.

        Returns
        -------
        str
            Secret until it was used: whoever opens it first is the person at the page.
        """
        return self._guard.link()

    def start(self) -> None:
        """Begin to serve, and to prepare what the first search would wait for."""
        self._thread.start()
        self._preparing.start()

    def wait(self, seconds: float) -> bool:
        """Wait until the page was closed, or was idle too long.

        Parameters
        ----------
        seconds : float
            At most so long.

        Returns
        -------
        bool
            Whether it is time to :meth:`stop`.
        """
        if self.desk.jobs.running():
            self._alive()
        return self._stopping.wait(seconds) or time.monotonic() - self._heard > self._idle

    def stop(self) -> None:
        """Stop serving, cancel what runs, forget everything."""
        self._stopping.set()
        self._server.end()
        for thread in (self._thread, self._preparing):
            if thread.ident is not None:
                thread.join(10)
        self.desk.close()

    def _alive(self, port: str = "") -> None:
        self._heard = time.monotonic()
        if port:
            self._server.prove(port)


def _prepare(deployment: Deployment | ConnectedDeployment) -> None:
    """Compile what extracts features, and read files of records ahead; a search tells what is wrong with either."""
    with contextlib.suppress(MippError):
        if deployment.config.descriptor:
            features.warm_up(deployment.config.descriptor)
        if isinstance(deployment, Deployment):
            deployment.read_ahead()
