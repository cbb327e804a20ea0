"""`llmrank ab assign`: an experiment's file and users' ids go in, each user's variant and the reason for it come out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrank.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from llmrank.experiment.online.assignment import OnlineOptions


def assign(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    users: Annotated[list[str] | None, typer.Argument(metavar="[USER]...", help="Ids of users.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file with one id a line; - for standard input.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    check: Annotated[
        int | None, typer.Option("--check", min=1, metavar="N", help="Instead: the variants' shares of so many made-up ids.")
    ] = None,
) -> None:
    """Say which variant of an online experiment each user gets, and why. No model is loaded, and nothing is logged.

    A line has the id, the variant and the reason: `assigned` takes part; the others are `holdout`, `other layer`,
    `outside traffic`, `disabled` and `forced`.
    """
    from llmrank.experiment.online import assignment
    from llmrank.experiment.spec import load_spec

    if (check is None) == (not users and file is None):
        fix = "give ids, --file FILE or --check N" if check is None else "give either ids or --check N"
        raise ConfigError("there is nobody to assign" if check is None else "stands beside ids", field="USER", fix=fix)
    spec = load_spec(experiment)
    options = assignment.online_of(spec.online, tuple(spec.variants), spec.base, spec.name)
    if check is not None:
        _check(options, check, as_json=as_json)
        return
    for user in chain(users or (), _lines(file) if file is not None else ()):
        found = assignment.assign(options, user)
        typer.echo(json.dumps(asdict(found)) if as_json else f"{found.unit}\t{found.variant}\t{found.reason}")


def _check(options: OnlineOptions, count: int, *, as_json: bool) -> None:
    """Prints what part of made-up ids each variant gets beside the part that it should get, and why the others are out."""
    from llmrank.experiment.online.assignment import assign as assigned

    found = [assigned(options, f"made-up-{number}") for number in range(count)]
    taking_part = Counter(each.variant for each in found if each.exposed)
    out = Counter(each.reason for each in found if not each.exposed)
    total = sum(taking_part.values())
    if as_json:
        rows = [{"variant": name, "weight": share, "ids": taking_part[name]} for name, share in options.shares.items()]
        typer.echo(json.dumps({"ids": count, "variants": rows, "out": dict(out)}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("variant", box=None, pad_edge=False)
    for heading in ("weight", "share", "ids"):
        table.add_column(heading, justify="right")
    for name, share in options.shares.items():
        ids = taking_part[name]
        table.add_row(name, f"{share:.2%}", f"{ids / total:.2%}" if total else "-", f"{ids:,}")
    Console(highlight=False).print(table)
    for reason, ids in out.most_common():
        typer.echo(f"{reason}: {ids:,} of {count:,} ids ({ids / count:.2%})")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not empty, without the white space around them; read as they are needed."""
    try:
        with nullcontext(sys.stdin) if str(path) == "-" else path.open(encoding="utf-8") as lines:
            yield from (stripped for line in lines if (stripped := line.strip()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetError(f"cannot be read ({reason})", field="--file", value=str(path), fix="check the path") from error
    except UnicodeDecodeError as error:
        raise DatasetError("is not UTF-8", field="--file", value=str(path), fix="write one id a line, as UTF-8") from error
