"""``mipp user`` and ``mipp search``."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from ..deployment import Deployment
from ..errors import NotFoundError, ParameterError
from ..roles.user import FetchedImage, Hit, User
from .common import deployment_option, json_option, new_passphrase, opened, show, with_passphrase


@click.group("user")
def user_group() -> None:
    """A user's commands."""


@user_group.command("create")
@click.argument("name")
@click.option("--passphrase", is_flag=True, help="Protect the key file; asks, or takes MIPP_PASSPHRASE.")
@deployment_option
@json_option
def create_command(name: str, passphrase: bool, folder: Path, as_json: bool) -> None:
    """Make a user with keys of its own; owners then grant to it."""
    with opened(folder) as deployment:
        user = deployment.create_user(name, new_passphrase(passphrase))
        path = folder / "users" / f"{name}.key"
        show({"name": name, "id": user.id.hex(), "key_file": str(path)}, as_json, lambda: [f"user {name}: {path}"])


@click.command("search")
@click.argument("user")
@click.argument("image", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--vector",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with one vector instead of an image.",
)
@click.option("-k", "--k", "k", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--fetch", type=click.Path(path_type=Path, file_okay=False), help="Decrypt the images found into this folder."
)
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet PNG.")
@deployment_option
@json_option
def search_command(
    user: str,
    image: Path | None,
    vector: Path | None,
    k: int,
    fetch: Path | None,
    sheet: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Find the images nearest to IMAGE among those of all owners that granted USER."""
    if (image is None) == (vector is None):
        raise click.UsageError("give either IMAGE or --vector FILE")
    with opened(folder) as deployment:
        seeker: User = with_passphrase(lambda passphrase: deployment.user(user, passphrase))
        result = seeker.search(_query(deployment, image, vector), k)
        hits = [{"id": h.id, "owner": h.owner_name, "score": h.score, "value": h.value} for h in result.hits]
        files: list[FetchedImage] = seeker.fetch(result.hits) if fetch is not None or sheet is not None else []
        if fetch is not None:
            fetch.mkdir(parents=True, exist_ok=True)
            for rank, (hit, file) in enumerate(zip(hits, files, strict=True)):
                # the name comes from another party: keep its last part only
                target = fetch / f"{rank + 1:03d}-{Path(file.name).name}"
                target.write_bytes(file.content)
                hit["file"] = str(target)
        if sheet is not None:
            _write_sheet(sheet, image, result.hits, files)
    metric = deployment.config.encoding.metric
    show(
        {"hits": hits, "metric": metric},
        as_json,
        lambda: [
            *(
                f"{i + 1:3d}  {h['owner']:<16} score {h['score']:>10}  {metric} {h['value']:.6g}  {h['id']}"
                for i, h in enumerate(hits)
            ),
        ],
    )


def _query(deployment: Deployment, image: Path | None, vector: Path | None) -> np.ndarray:
    spec = deployment.config.descriptor
    if image is not None:
        if not spec:
            raise ParameterError("this index holds vectors; search with --vector FILE")
        from ..deployment.ingest import query_vector

        return query_vector(spec, image)
    from ..io.vectors import load_vectors

    data = np.asarray(load_vectors(vector if vector is not None else Path()))
    if len(data) != 1:
        raise ParameterError(f"{vector} holds {len(data)} vectors; a search takes one")
    return np.asarray(data[0])


def _write_sheet(path: Path, image: Path | None, hits: list[Hit], files: list[FetchedImage]) -> None:
    from ..demo.sheet import contact_sheet
    from ..io.images import load_image

    if image is None:
        raise NotFoundError("a contact sheet needs a query image")
    cells = [
        (load_image(file.content), [h.owner_name, f"score {h.score}"], None)
        for h, file in zip(hits, files, strict=True)
    ]
    contact_sheet([(load_image(image), cells)], path)
