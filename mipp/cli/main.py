"""Commands of the deployment as a whole; owners' and users' commands are in the modules beside this one."""

from __future__ import annotations

import io
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import __version__, cpu
from ..errors import MippError, ParameterError
from ..features import DEFAULT
from . import owner_grants, owner_images, owner_records, owner_reencode, owner_sync  # noqa: F401  (their commands)
from .app import app_command
from .backups import server_group
from .ceremony import connect_command, deployment_group, invite_command, registrar_group
from .common import (
    collected_warnings,
    deployment_option,
    json_option,
    key_bits_option,
    labelled,
    opened_embedded,
    own_text,
    progress,
    scheme_option,
    show,
    walked,
    warn_of_key_bits,
)  # fmt: skip
from .completion import complete_names
from .deployment_info import info_command as deployment_info_command
from .evaluate import evaluate_command, weights_command
from .init import init_command
from .outputs import check_output_folder, printable, warn
from .owner import owner_group
from .search import search_command
from .status import status_command
from .user import user_group
from .warm_up import show_notices, warm_up_command

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mipp")
def cli() -> None:
    """Search over encrypted image features of many owners."""
    show_notices()


cli.add_command(init_command)
cli.add_command(server_group)
deployment_group.add_command(deployment_info_command)
cli.add_command(deployment_group)
cli.add_command(registrar_group)
cli.add_command(invite_command)
cli.add_command(connect_command)
cli.add_command(status_command)
cli.add_command(owner_group)
cli.add_command(user_group)
cli.add_command(search_command)
cli.add_command(app_command)
cli.add_command(evaluate_command)
cli.add_command(weights_command)
cli.add_command(warm_up_command)


@cli.command("demo")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images; default: rendered ones.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="CSV file with columns path,label."
)
@click.option("--owners", type=click.IntRange(1), default=4, show_default=True)
@click.option("--queries", type=click.IntRange(1), default=50, show_default=True)
@click.option("--k", type=click.IntRange(1), default=10, show_default=True)
@click.option("--descriptor", default=DEFAULT, show_default=True)
@click.option("--ring", type=click.Choice(["16", "32", "64"]), default="32", show_default=True)
@scheme_option
@click.option(
    "--ranking", type=click.Choice(["server", "user"]), help="Default: the servers, where the scheme allows it."
)
@key_bits_option
@click.option("--servers", is_flag=True, help="Run each server as a process of its own, reached over loopback TLS.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the sheet and the deployment; default: a new temporary one.",
)
@json_option
def demo_command(
    images: Path | None,
    labels: Path | None,
    owners: int,
    queries: int,
    k: int,
    descriptor: str,
    ring: str,
    scheme: str,
    ranking: str | None,
    key_bits: str,
    servers: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run the main job: encrypt, upload, search, decrypt, on rendered images or a folder of real ones."""
    from ..demo.run import DemoImage, render_to, run_demo

    if out is not None:
        check_output_folder(out)
    out = out if out is not None else Path(tempfile.mkdtemp(prefix="mipp-demo-"))
    out.mkdir(parents=True, exist_ok=True)
    if labels is not None:
        items = [DemoImage(path, label) for path, label in labelled(labels, images)]
    elif images is not None:
        items = [DemoImage(path, "") for path in walked(images)[0]]
    else:
        rendered = out / "images"
        rendered.mkdir(exist_ok=True)
        items = render_to(rendered)
    if not items:
        raise ParameterError(f"no images in {images}")
    warn_of_key_bits(scheme)
    counted = {"upload": 0, "search": 0, "fetch": 0}

    def told(stage: str, done: int, of: int) -> None:
        counted[stage], before = done, counted[stage]
        advance(done - before)

    # of fewer images there are fewer queries
    with progress("demo", owners + 2 * min(queries, len(items)), as_json) as advance:
        result = run_demo(
            items,
            out,
            owners=owners,
            queries=queries,
            k=k,
            descriptor=descriptor,
            ring_bits=int(ring),
            scheme=scheme,
            ranking=ranking,
            key_bits=int(key_bits),
            servers=servers,
            progress=told,
        )
    show(result, as_json, lambda: _demo_lines(result))
    if not result["exact_match"]:
        raise click.ClickException("the encrypted ranking differs from the plaintext's")


def _demo_lines(r: dict[str, Any]) -> list[str]:
    from ..demo.run import spread

    lines = [
        f"{r['images']} images of {r['owners']} owners, {r['descriptor']}, {r['queries']} queries, "
        f"ranked by the {'servers' if r['ranking'] == 'server' else 'user'}, {r['scheme']} scheme"
    ]
    lines += [f"left out {path}: {own_text(path, text)}" for path, text in r["errors"]]
    for query, hits in spread(list(zip(r["query_images"], r["hits"], strict=True)), 5):
        lines.append(f"query {Path(query).name}: nearest others")
        lines += [f"  {i + 1:2d}  {h['owner']:<10} score {h['score']:>9}  {h['id']}" for i, h in enumerate(hits[:5])]
    lines.append("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in r["seconds"].items()))
    lines.append(f"sent: {sum(r['bytes'].values()):,} bytes in {r['rounds']} rounds")
    if "p_at_k" in r:
        lines.append(f"P@{r['k']} {r['p_at_k']:.3f}")
    lines.append(f"encrypted ranking equals the plaintext's: {'yes' if r['exact_match'] else 'NO'}")
    lines.append(f"contact sheet: {r['sheet']}")
    if "commands" in r:
        lines += ["the servers have stopped; to go on with them:", *(f"  {line}" for line in r["commands"])]
    return lines


@cli.command("info")
@json_option
def info_command(as_json: bool) -> None:
    """Version, processor level and tiers, threads."""
    data = {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "level": cpu.level(),
        "levels": list(cpu.levels()),
        "tiers": cpu.active(),
        "threads": cpu.threads(),
    }
    show(data, as_json, lambda: [f"{name}: {value}" for name, value in data.items()])


@cli.command("verify")
@deployment_option
@json_option
def verify_command(folder: Path, as_json: bool) -> None:
    """Read all files of all servers and compare their checksums; wait until the range of all rows was checked."""
    with opened_embedded(folder, "mipp server verify") as deployment:
        data = deployment.verify()
    show(data, as_json, lambda: [*data["problems"], f"{data['files']} files, {len(data['problems'])} problems"])
    if data["problems"]:
        sys.exit(1)


@cli.command("repair")
@deployment_option
@json_option
def repair_command(folder: Path, as_json: bool) -> None:
    """Read all files of all servers, and rebuild those that are missing or damaged from the other servers' files."""
    with opened_embedded(folder, "mipp server repair") as deployment:
        data = deployment.repair()
    show(data, as_json, lambda: [
        *data["problems"], f"files that were rebuilt: {data['files']}; that were not: {len(data['problems'])}"
    ])  # fmt: skip
    if data["problems"]:
        sys.exit(1)


complete_names(cli)  # when all commands are there


def main() -> None:
    """Entry point: exit code 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what the terminal's encoding does not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with collected_warnings():
        code = _run()
    sys.exit(code)


def _run() -> int:
    code: Any = 0
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:
        # also what click makes of a "no" and of the end of the input
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            click.echo("mipp: interrupted", err=True)
            code = 130
        else:
            click.echo("mipp: refused at the prompt; nothing was changed", err=True)
            code = 1
    except click.ClickException as error:
        error.message = "\n".join(map(printable, error.message.splitlines()))  # type: ignore[misc]
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        click.echo("mipp: interrupted", err=True)
        code = 130
    except (MippError, OSError) as error:
        warn(f"error: {error}")
        code = 1
    return code if isinstance(code, int) else 0
