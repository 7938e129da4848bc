"""``mipp owner reencode``: another index out of one that an owner has."""

from __future__ import annotations

from pathlib import Path

import click

from ..client.reencoding import reencode
from ..errors import ParameterError
from .common import deployment_option, json_option, opened, own_text, progress, show
from .outputs import warn
from .owner import load_owner, owner_group
from .passphrases import passphrase_option


@owner_group.command("reencode")
@click.argument("name")
@click.option(
    "--from", "old", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="Folder of the old deployment, with this owner's key file.",
)  # fmt: skip
@click.option(
    "--originals", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with the image files: take these, and fetch no image from the old deployment.",
)  # fmt: skip
@click.option("--preview-size", type=click.IntRange(0), help="Most bytes of a thumbnail; default as much as fits.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode and extract; default all cores.")
@passphrase_option
@deployment_option
@json_option
def reencode_command(
    name: str, old: Path, originals: Path | None, preview_size: int | None, workers: int | None, folder: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Add what this owner has in another deployment to this one, whose encoding or descriptor may be another.

    The owner exists in both (mipp owner create). The passphrase of --passphrase-file or MIPP_PASSPHRASE is that of both
    key files; from standard input (-), the old one's line comes first. Images are fetched back from the old servers and
    decrypted, and their features extracted anew. Vectors come back as they were quantised, and are quantised again.
    Metadata, paths and thumbnails move along. Nothing in the old deployment changes. Call it again to resume, or to add
    what came to the old one since. Exit code 1 if something was left out.
    """
    if old.resolve() == folder.resolve():
        raise ParameterError("--from and --deployment are the same folder")
    with opened(old) as before, opened(folder) as after:
        source, target = load_owner(before, name), load_owner(after, name)
        if before.config.record_bytes and not after.config.record_bytes:
            warn("the new deployment keeps no records: paths, thumbnails and metadata of vectors stay behind")
        rows = sum(batch.live for batch in source.batches())
        with progress("reencode", rows, as_json) as advance:
            report = reencode(
                source, target, originals=originals, preview_size=preview_size, workers=workers, progress=advance
            )
    errors = [{"row": row, "error": own_text(row, text)} for row, text in report.left_out]
    data = {
        "owner": name, "added": report.added, "skipped": report.skipped, "left_out": errors,
        "quantised_twice": report.twice,
    }  # fmt: skip
    show(data, as_json, lambda: [
        *(f"left out {e['row']}: {e['error']}" for e in errors),
        f"{report.added} added, {report.skipped} already there, {len(errors)} left out",
        *(["vectors were quantised twice: errors of both encodings add up"] * report.twice),
    ])  # fmt: skip
    if errors:
        raise click.exceptions.Exit(1)
