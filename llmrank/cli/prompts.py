"""`llmrank prompts`: template names go in; their list, text, faults and differences come out, and versions of a registry."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from llmrank.cli.values import pairs_of_option
from llmrank.errors import InputError, TemplateError, nearest
from llmrank.files import write_whole
from llmrank.lint import Finding, lint, sample_values
from llmrank.prompt_kinds import kind_of
from llmrank.registry import DEFAULT, Registry, Result, Version
from llmrank.template import Template, Templates, packaged_directory

prompts_app = typer.Typer(
    help="The templates: every word that a model reads.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

Directories = Annotated[
    list[Path] | None, typer.Option("--dir", "-d", help="A folder of your own templates; may be given again, the first wins.")
]
RegistryFile = Annotated[Path, typer.Option("--registry", help="The file of versions; see `register`.")]
Variables = Annotated[
    list[str] | None, typer.Option("--var", help="A variable of the template, as name=value; may be given again.")
]
Answer = Annotated[
    str | None,
    typer.Option("--answer", help="The form of answer to show: order, json, label or free; by default its usual one."),
]


@prompts_app.command("list")
def list_templates(directory: Directories = None) -> None:
    """List the templates: name, kind, fingerprint, steps, where from, what for."""
    templates = _templates(directory)
    rows = []
    for name in templates.names():
        template = templates.get(name)
        origin = "llmrank" if template.origin == packaged_directory() else str(template.origin)
        steps = f"{len(template.steps)} steps" if len(template.steps) > 1 else "1 step"
        rows.append((name, template.kind, template.fingerprint, steps, origin, template.description))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


@prompts_app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A template's name, for instance listwise/recency; or NAME@FINGERPRINT, a registered version.")
    ],
    rendered: Annotated[bool, typer.Option("--rendered", help="Show what a model would read, for a made-up user.")] = False,
    answer: Answer = None,
    variable: Variables = None,
    directory: Directories = None,
    registry: RegistryFile = Path(DEFAULT),
) -> None:
    """Show a template: the text of every file that it is made of, or with --rendered the prompts it makes."""
    template = _template(name, _templates(directory), registry)
    typer.echo(_rendered(template, answer, variable) if rendered else _source(template))


@prompts_app.command("lint")
def lint_templates(
    names: Annotated[list[str] | None, typer.Argument(help="Templates to check; all if none is named.")] = None,
    variable: Variables = None,
    directory: Directories = None,
) -> None:
    """Check templates. Exit status 1 if any has an error; warnings alone do not count."""
    templates = _templates(directory)
    known = templates.names()
    findings: list[Finding] = []
    chosen = names or list(known)
    for name in chosen:
        if name not in known:
            raise TemplateError("no such template", field="prompts lint", value=name, fix=nearest(name, known))
        try:
            findings += lint(templates.get(name), _variables(variable))
        except TemplateError as error:
            findings.append(Finding(name, "error", "unreadable", str(error)))
    for finding in findings:
        typer.echo(str(finding))
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo(f"{len(chosen)} templates checked: {errors} errors, {len(findings) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


@prompts_app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A template's name; or NAME@FINGERPRINT, a registered version.")],
    second: Annotated[str, typer.Argument(help="Another one's; or the same, to compare your version with the packaged one.")],
    source: Annotated[bool, typer.Option("--source", help="Compare the files instead of the rendered prompts.")] = False,
    answer: Answer = None,
    variable: Variables = None,
    directory: Directories = None,
    registry: RegistryFile = Path(DEFAULT),
) -> None:
    """Show how two templates differ in what a model reads (a unified diff), and their fingerprints."""
    templates = _templates(directory)
    # The same name twice asks how a user's own version differs from ours.
    old_templates = Templates() if first == second and "@" not in first else templates
    pair = (_template(first, old_templates, registry), _template(second, templates, registry))
    texts = [_source(each) if source else _rendered(each, answer, variable) for each in pair]
    headers = [f"{each.name}  {each.fingerprint}" for each in pair]
    old, new = (text.splitlines() for text in texts)
    lines = list(difflib.unified_diff(old, new, fromfile=headers[0], tofile=headers[1], lineterm=""))
    typer.echo("\n".join(lines) if lines else f"{headers[0]} and {headers[1]}: no difference")


@prompts_app.command()
def register(
    name: Annotated[str, typer.Argument(help="A template's name, for instance listwise/recency.")],
    note: Annotated[str, typer.Option("--note", help="What is to be remembered of this version.")] = "",
    directory: Directories = None,
    registry: RegistryFile = Path(DEFAULT),
) -> None:
    """Keep a template as it is now: its files, its fingerprint and a note, in a file that only grows.

    A version that is there already is not added again; a new note is.
    """
    template = _templates(directory).get(name)
    kept = Registry(registry)
    before = {(version.name, version.fingerprint) for version in kept.versions(name)}
    version = kept.add(template, note)
    for line in kept.told:
        typer.echo(line, err=True)
    state = "is in" if (version.name, version.fingerprint) in before else "added to"
    typer.echo(f"{version.reference} {state} {registry}")


@prompts_app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="A template's name; all if none is given.")] = None,
    registry: RegistryFile = Path(DEFAULT),
) -> None:
    """List the registered versions, newest last: when, which, its best-known result (from most users), its notes."""
    kept = Registry(registry)
    versions = kept.versions(name)
    if not versions:
        if name is not None and (known := {version.name for version in kept.versions()}):
            raise InputError("no such template in the registry", field="prompts history", value=name, fix=nearest(name, known))
        typer.echo(f"{registry} has no versions: llmrank prompts register NAME adds one")
        return
    rows = [(_moment(each.time), each.reference, _result(each.best_known), _said(each)) for each in versions]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


@prompts_app.command()
def export(
    reference: Annotated[str, typer.Argument(help="A registered version: NAME@FINGERPRINT.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that its files are written to.")],
    registry: RegistryFile = Path(DEFAULT),
) -> None:
    """Write the files of a registered version, as a folder for --dir or `prompt.directories`."""
    template = Registry(registry).template(reference)
    for file, text in template.sources.items():
        path = out / file
        # A registry may come from somebody else.
        if not path.resolve().is_relative_to(out.resolve()):
            raise InputError("a file of it would lie outside of the folder", field="prompts export", value=file)
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise InputError("is there already, with another text", field="--out", value=str(path), fix="name another folder")
    try:
        for file, text in template.sources.items():
            write_whole(out / file, [text])
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", field="--out", value=str(out), fix="check it") from error
    typer.echo(f"{len(template.sources)} files of {template.name}@{template.fingerprint} are in {out}")


def _template(name: str, templates: Templates, registry: Path) -> Template:
    """A template of the files, or with an @ in its name a registered version."""
    return Registry(registry).template(name) if "@" in name else templates.get(name)


def _moment(time: str) -> str:
    return time[:16].replace("T", " ")


def _said(version: Version) -> str:
    notes = "; ".join(" ".join(note.split()) for note in version.notes)
    return notes if version.intact else f"DAMAGED: its texts are not those of its fingerprint; {notes}".removesuffix("; ")


def _result(result: Result | None) -> str:
    if result is None:
        return "no result"
    interval = f" [{result.interval[0]:.3f}, {result.interval[1]:.3f}]" if result.interval else ""
    return (
        f"{result.measure} {result.value:.3f}{interval} from {result.users:,} users ({result.experiment}, {result.date[:10]})"
    )


def _templates(directories: list[Path] | None) -> Templates:
    return Templates(*(directories or ()))


def _variables(texts: list[str] | None) -> dict[str, object]:
    """The --var options as values."""
    values: dict[str, object] = {}
    for name, value in pairs_of_option(texts, "--var", example="domain=movies").items():
        if not name.isidentifier():
            fix = "use letters, digits and _: domain=movies"
            raise InputError("cannot be a variable's name", field="--var", value=name, fix=fix)
        values[name] = value
    return values


def _source(template: Template) -> str:
    """The step files first, then all others by name, each under its name."""
    steps = [step.file for step in template.steps]
    files = [*steps, *sorted(set(template.sources) - set(steps))]
    return "\n".join(f"==> {file} <==\n{template.sources[file].rstrip()}\n" for file in files).rstrip()


def _rendered(template: Template, answer: str | None, variable: list[str] | None) -> str:
    """Every step's messages for the sample user, each under its role."""
    known = kind_of(template.name).answers
    if answer is not None and answer not in known:
        raise InputError(f"no form that {template.name} asks for", field="--answer", value=answer, fix=nearest(answer, known))
    values = sample_values(template, _variables(variable), answer=answer)
    parts = []
    for step in template.steps:
        if len(template.steps) > 1:
            parts.append(f"==> {step.name} <==")
        rendered = template.render(values, step.name)
        if isinstance(rendered, str):
            parts.append(rendered.rstrip("\n"))
        else:
            parts += [f"[{message.role}]\n{message.content}\n" for message in rendered]
    return "\n".join(parts).rstrip()
