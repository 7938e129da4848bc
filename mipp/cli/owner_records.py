"""``mipp owner``: records of rows, read and annotated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..client.image_ids import image_rows
from ..errors import ParameterError
from ..io.files import replace_whole
from .common import deployment_option, json_option, opened, show
from .outputs import RegularFile, printable
from .owner import load_owner, owner_group
from .passphrases import passphrase_option


def _check_ids(texts: Sequence[str]) -> None:
    """ParameterError in words of the command line for a text that is no image id."""
    for text in texts:
        try:
            image_rows([text])
        except ParameterError:
            raise ParameterError(f"{text[:100]} is no image id (batch:row); mipp owner list shows ids") from None


@owner_group.command("annotate")
@click.argument("name")
@click.argument("image", required=False)
@click.option("--set", "values", multiple=True, metavar="FIELD=TEXT", help="A field of IMAGE; may be repeated.")
@click.option(
    "--metadata", type=RegularFile(), help=".csv or .jsonl with a column or field id: images, and all their fields."
)
@passphrase_option
@deployment_option
@json_option
def annotate_command(
    name: str, image: str | None, values: tuple[str, ...], metadata: Path | None, folder: Path, as_json: bool
) -> None:
    """Replace the metadata of IMAGE (an id, see mipp owner list), or of the images that --metadata names.

    Fields of IMAGE that --set does not name stay as they are; a field without text is removed.
    """
    from ..io.metadata import read_metadata

    if (image is None) == (metadata is None) or bool(values) != (image is not None):
        raise click.UsageError("give IMAGE with --set, or --metadata FILE")
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        if image is not None:
            _check_ids([image])
            (record,) = owner.records([image])
            fields = dict((record.metadata if record is not None else None) or {})
            for value in values:
                field, equals, text = value.partition("=")
                if not equals or not field:
                    raise click.UsageError(f"--set takes FIELD=TEXT, not {value!r}")
                fields[field] = text
            told = {image: {field: text for field, text in fields.items() if text != ""}}
        else:
            told = read_metadata(metadata, key="id") if metadata is not None else {}
        count = owner.annotate(told)
    show({"annotated": count}, as_json, lambda: [f"{count} annotated"])


@owner_group.command("records")
@click.argument("name")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the thumbnails.")
@passphrase_option
@deployment_option
@json_option
def records_command(name: str, images: tuple[str, ...], out: Path | None, folder: Path, as_json: bool) -> None:
    """Show the records of IMAGES: path, metadata, size of the thumbnail."""
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        _check_ids(images)
        records = owner.records(list(images))
    shown = []
    for (batch, row), record in zip(image_rows(list(images)), records, strict=True):
        entry: dict[str, Any] = {"id": f"{batch.hex()}:{row}"}
        if record is not None:
            entry |= {"path": record.path, "metadata": record.metadata, "thumbnail_bytes": len(record.thumbnail)}
            if out is not None and record.thumbnail:
                out.mkdir(parents=True, exist_ok=True, mode=0o700)
                target = out / f"{batch.hex()}-{row}.webp"
                replace_whole(target, record.thumbnail, mode=0o600)
                entry["thumbnail"] = str(target)
        shown.append(entry)
    show({"records": shown}, as_json, lambda: [
        f"{e['id']}  {printable(e['path'])}  {printable(json.dumps(e['metadata'] or {}, ensure_ascii=False))}"
        if "path" in e else f"{e['id']}  (no record)" for e in shown
    ])  # fmt: skip
