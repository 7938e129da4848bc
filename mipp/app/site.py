"""The page's server: what the page asks for, checked and passed on."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from ..client.user import User
from ..deployment import ConnectedDeployment, Deployment
from ..errors import MippError, NotFoundError, ParameterError
from ..io.display import PICTURE_TYPE, picture, shown
from . import finding, owning
from .desk import Desk
from .fields import Fields
from .finding import Found
from .guard import HELLO, OPEN, PROOF, Access, Guard
from .jobs import Job
from .listening import LARGEST_BODY

__all__ = ["make_site"]

_log = logging.getLogger("mipp.app")
_STATIC = Path(__file__).parent / "static"
_ANOTHER = "this page was opened by another link; open a new one"
#: seconds that a search waits for the check of rows that were uploaded before
_PATIENCE = 5.0
_MOST_FETCHED = 200
_ROLES = {"CloudServer": "cloud", "KeyCentre": "key centre"}


def make_site(desk: Desk, guard: Guard, stop: Callable[[], None], alive: Callable[[str], None]) -> Flask:
    """Make the WSGI application.

    Parameters
    ----------
    desk : Desk
        What it works with.
    guard : Guard
        Who may ask.
    stop : callable
        Ends the program; called by the page's button.
    alive : callable
        Called at each request of a session, with the port that it came from.

    Returns
    -------
    Flask
    """
    site = Flask("mipp.app", static_folder=None)
    site.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    site.json.sort_keys = False  # type: ignore[attr-defined]

    @site.before_request
    def guarded() -> Response | tuple[Response, int] | None:
        problem = guard.refusal(request)
        if problem:
            return jsonify(error=problem), 403
        if request.path == HELLO or request.path.startswith(guard.page):
            return None
        # the target as it was sent: that is what was proved
        access = guard.take(request.method, request.environ.get("REQUEST_URI", ""), _header)
        if access is None or access.link != (request.path == OPEN):
            return jsonify(error=_ANOTHER), 401
        if hashlib.sha256(request.get_data()).hexdigest() != access.digest:
            return jsonify(error=_ANOTHER), 401
        g.access = access
        alive(request.environ.get("REMOTE_PORT", ""))
        return None

    @site.after_request
    def proved(response: Response) -> Response:
        access: Access | None = g.get("access")
        if access is not None:
            response.headers[PROOF] = access.proof(response.status_code, response.get_data())
        return guard.sealed(response)

    @site.errorhandler(Exception)
    def failed(error: Exception) -> tuple[Response, int]:
        if isinstance(error, HTTPException):
            return jsonify(error=shown(error.description or "refused", 300)), error.code or 500
        if isinstance(error, NotFoundError):
            return jsonify(error=shown(str(error), 2000)), 404
        if isinstance(error, (MippError, OSError)):
            return jsonify(error=shown(str(error), 2000)), 400
        _log.error("a request of the page failed: %s", type(error).__name__)
        return jsonify(error=f"this program failed ({type(error).__name__}); please report it"), 500

    @site.get(guard.page)
    def index() -> Response:
        return send_from_directory(_STATIC, "index.html")

    @site.get(f"{guard.page}<name>")
    def static(name: str) -> Response:
        return send_from_directory(_STATIC, name)

    @site.get(HELLO)
    def hello() -> tuple[Response, int]:
        told = guard.hello(_header)
        if told is None:
            return jsonify(error="this link was used already, or is not of this program"), 401
        return jsonify(told), 200

    @site.post(OPEN)
    def session() -> Response:
        return jsonify(opened=True)

    _desk_routes(site, desk, stop)
    _user_routes(site, desk)
    _owner_routes(site, desk)
    return site


def _header(name: str) -> str:
    return request.headers.get(name, "")


def _fields() -> Fields:
    try:
        return Fields(request.get_json(force=False, silent=True))
    except RecursionError:
        raise ParameterError("the fields of a request are nested too deeply") from None


def _started(job: Job) -> tuple[Response, int]:
    return jsonify(job.told()), 202


def _desk_routes(site: Flask, desk: Desk, stop: Callable[[], None]) -> None:
    """The deployment, who is open, work under way."""

    @site.get("/api/state")
    def state() -> Response:
        return jsonify(
            **desk.facts(),
            jobs=[job.told() for job in desk.jobs.running()],
            searches=[{"number": n, **found.headline()} for n, found in list(desk.found.items())],
        )

    @site.post("/api/open")
    def open_party() -> tuple[Response, int]:
        fields = _fields()
        kind, name = fields.text("kind", most=8), fields.text("name", most=64)
        passphrase = fields.optional("passphrase")
        # a job, as the key of a passphrase takes its time, and servers are asked
        return _started(desk.jobs.start(f"opening {name}", lambda job: desk.open(kind, name, passphrase)))

    @site.post("/api/servers")
    def servers() -> tuple[Response, int]:
        return _started(desk.jobs.start("asking the servers", lambda job: _servers(desk.deployment)))

    @site.get("/api/jobs/<identity>")
    def job(identity: str) -> Response:
        return jsonify(desk.jobs.get(identity).told())

    @site.post("/api/jobs/<identity>/cancel")
    def cancel(identity: str) -> Response:
        return jsonify(desk.jobs.cancel(identity).told())

    @site.get("/api/jobs/<identity>/file")
    def file(identity: str) -> Response:
        return _download(*desk.jobs.take_file(identity))

    @site.post("/api/close")
    def close() -> Response:
        threading.Timer(0.2, stop).start()  # after the reply
        return jsonify(closed=True)


def _download(name: str, media: str, content: bytes) -> Response:
    response = Response(content, mimetype=media)
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def _picture(content: bytes | None) -> Response:
    if content is None:
        raise NotFoundError("there is no picture")
    return Response(content, mimetype=PICTURE_TYPE)


def _servers(deployment: Deployment | ConnectedDeployment) -> list[dict[str, Any]]:
    """How each server stands."""
    if isinstance(deployment, ConnectedDeployment):
        return [
            {
                "number": number, "name": shown(s["name"], 64), "url": shown(s["url"], 200), "ready": s["ready"],
                "changes": s["takes_changes"], "reasons": [shown(r, 300) for r in s["reasons"]],
            }
            for number, s in deployment.server_states().items()
        ]  # fmt: skip
    status = deployment.status()
    agree = [] if status["servers_agree"] else ["the servers do not agree on what is stored"]
    return [
        {
            "number": int(n),
            "name": _ROLES.get(str(kind), str(kind)),
            "url": "",
            "ready": True,
            "changes": True,
            "reasons": agree,
        }
        for n, kind in status["servers"].items()
    ]


def _user_routes(site: Flask, desk: Desk) -> None:
    """Searches, what they found, exports."""

    def ready() -> None:
        desk.deployment.wait_certified(_PATIENCE)

    @site.post("/api/user/<name>/searchable")
    def searchable(name: str) -> tuple[Response, int]:
        user, turn = desk.user(name)
        return _started(desk.jobs.start("asking whom you may search", lambda job: finding.searchable(user), turn))

    @site.post("/api/user/<name>/cost")
    def cost(name: str) -> tuple[Response, int]:
        (user, turn), fields = desk.user(name), _fields()
        return _started(desk.jobs.start("cost", lambda job: finding.cost(user, fields), turn))

    @site.post("/api/user/<name>/search")
    def search(name: str) -> tuple[Response, int]:
        user, turn = desk.user(name)
        fields = Fields({**request.args.to_dict(), "owners": request.args.getlist("owners")})
        content = request.get_data(cache=False)
        if not content:
            raise ParameterError("the file is empty")
        return _started(
            desk.jobs.start(
                "search", lambda job: finding.run_search(job, user, content, fields, desk.keep, ready), turn,
                cancellable=False,
            )
        )  # fmt: skip

    def begin(
        number: int, what: str, work: Callable[[Job, User, Found], Any], cancellable: bool = True
    ) -> tuple[Response, int]:
        """Begin work on a search that was made before."""
        found = desk.search(number)
        user, turn = desk.user(found.user)
        return _started(desk.jobs.start(what, lambda job: work(job, user, found), turn, cancellable=cancellable))

    @site.post("/api/searches/<int:number>/like")
    def like(number: int) -> tuple[Response, int]:
        fields = _fields()
        hit, openly = fields.whole("hit"), fields.flag("openly")

        def work(job: Job, user: User, found: Found) -> int:
            content = finding.content_of(job, user, found, hit, openly, desk.kept)
            return finding.run_search(job, user, content, fields, desk.keep, ready)

        return begin(number, "search", work)

    @site.get("/api/searches/<int:number>")
    def one(number: int) -> Response:
        fields = Fields(request.args.to_dict())
        found, count = desk.search(number), fields.whole("count", finding.PAGE, high=1000)
        return jsonify(number=number, **found.told(fields.whole("start", 0), count))

    @site.delete("/api/searches/<int:number>")
    def forget(number: int) -> Response:
        desk.forget(number)
        return jsonify(forgotten=True)

    @site.post("/api/searches/<int:number>/names")
    def names(number: int) -> tuple[Response, int]:
        start = _fields().whole("start", 0)
        return begin(
            number,
            "names and pictures",
            lambda job, user, found: finding.fetch_previews(job, user, found, start),
            False,
        )

    @site.post("/api/searches/<int:number>/originals")
    def originals(number: int) -> tuple[Response, int]:
        fields = _fields()
        given = fields.numbers("hits", most=_MOST_FETCHED), fields.flag("openly"), desk.kept
        return begin(
            number, "fetching images", lambda job, user, found: finding.fetch_originals(job, user, found, *given)
        )

    @site.post("/api/searches/<int:number>/export")
    def export(number: int) -> tuple[Response, int]:
        fields = _fields()
        kind, openly = fields.text("kind", most=8), fields.flag("openly")
        numbers = fields.numbers("hits", most=_MOST_FETCHED if kind == "zip" else finding.MOST_HITS)

        def work(job: Job, user: User, found: Found) -> None:
            with desk.jobs.making_file(job):
                finding.export(job, user, found, numbers, kind, openly, desk.kept)

        return begin(number, "export", work)

    @site.get("/api/searches/<int:number>/query")
    def query_picture(number: int) -> Response:
        return _picture(desk.search(number).query)

    @site.get("/api/searches/<int:number>/pictures")
    def hit_pictures(number: int) -> Response:
        fields = Fields(request.args.to_dict())
        start, count = fields.whole("start", 0), fields.whole("count", finding.PAGE, high=1000)
        return Response(desk.search(number).packed_pictures(start, count), mimetype="application/octet-stream")

    @site.get("/api/searches/<int:number>/originals/<int:hit>")
    def large(number: int, hit: int) -> Response:
        found = desk.search(number)
        window = desk.deployment.config.window
        return _picture(picture(found.original(hit).content, finding.LARGE, window=window))

    @site.get("/api/searches/<int:number>/files/<int:hit>")
    def original_file(number: int, hit: int) -> Response:
        image = desk.search(number).original(hit)
        return _download(image.name, "application/octet-stream", image.content)


def _owner_routes(site: Flask, desk: Desk) -> None:
    """An owner's images and grants."""

    @site.post("/api/folders")
    def folders() -> Response:
        return jsonify(owning.folders(_fields().text("path", "")))

    def begin(name: str, what: str, work: Callable[[Job, Any], Any], cancellable: bool = True) -> tuple[Response, int]:
        owner, turn = desk.owner(name)
        return _started(desk.jobs.start(what, lambda job: work(job, owner), turn, cancellable=cancellable))

    @site.post("/api/owner/<name>/add")
    def add(name: str) -> tuple[Response, int]:
        folder = _fields().text("folder")
        return begin(name, "adding images", lambda job, owner: owning.add_folder(job, owner, folder))

    @site.post("/api/owner/<name>/images")
    def images(name: str) -> tuple[Response, int]:
        fields = _fields()
        start, wanted = fields.whole("start", 0), fields.text("filter", "", most=500)
        return begin(name, "listing images", lambda job, owner: owning.images(job, owner, start, wanted))

    @site.post("/api/owner/<name>/annotate")
    def annotate(name: str) -> tuple[Response, int]:
        fields = _fields()
        identity, values = fields.text("id", most=100), dict(fields.mapping("fields"))
        return begin(name, "annotating", lambda job, owner: owning.annotate(owner, identity, values), False)

    @site.post("/api/owner/<name>/delete")
    def delete(name: str) -> tuple[Response, int]:
        ids = _fields().texts("ids")
        return begin(name, "deleting", lambda job, owner: owning.delete(owner, ids), False)

    @site.post("/api/owner/<name>/grants")
    def grants(name: str) -> tuple[Response, int]:
        return begin(name, "listing grants", lambda job, owner: owning.grants(owner, desk.user_names()))

    @site.post("/api/owner/<name>/grant")
    def grant(name: str) -> tuple[Response, int]:
        fields = _fields()
        return begin(name, "granting", lambda job, owner: owning.give(owner, fields), False)

    @site.post("/api/owner/<name>/revoke")
    def revoke(name: str) -> tuple[Response, int]:
        user = _fields().text("user", most=128)
        return begin(name, "revoking", lambda job, owner: owner.revoke(user), False)

    @site.post("/api/owner/<name>/audit")
    def audit(name: str) -> tuple[Response, int]:
        sample = _fields().number("sample")
        part = 1.0 if sample is None else sample
        return begin(name, "audit", lambda job, owner: owning.audit(owner, part), False)
