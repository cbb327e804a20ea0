"""`llmrank prompts`: template names go in; their list, their text, what is wrong with them and how two differ come out."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from llmrank.errors import InputError, TemplateError, nearest
from llmrank.lint import Finding, lint, sample_values
from llmrank.prompt_kinds import kind_of
from llmrank.template import Template, Templates, packaged_directory

prompts_app = typer.Typer(
    help="The templates: every word that a model reads.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

Directories = Annotated[
    list[Path] | None, typer.Option("--dir", "-d", help="A folder of your own templates; may be given again, the first wins.")
]
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
    name: Annotated[str, typer.Argument(help="A template's name, for instance listwise/recency.")],
    rendered: Annotated[bool, typer.Option("--rendered", help="Show what a model would read, for a made-up user.")] = False,
    answer: Answer = None,
    variable: Variables = None,
    directory: Directories = None,
) -> None:
    """Show a template: the text of every file that it is made of, or with --rendered the prompts it makes."""
    template = _templates(directory).get(name)
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
    first: Annotated[str, typer.Argument(help="A template's name.")],
    second: Annotated[str, typer.Argument(help="Another one's; or the same, to compare your version with the packaged one.")],
    source: Annotated[bool, typer.Option("--source", help="Compare the files instead of the rendered prompts.")] = False,
    answer: Answer = None,
    variable: Variables = None,
    directory: Directories = None,
) -> None:
    """Show how two templates differ in what a model reads (a unified diff), and their fingerprints."""
    templates = _templates(directory)
    # The same name twice asks how a user's own version differs from ours.
    pair = (Templates().get(first) if first == second else templates.get(first), templates.get(second))
    texts = [_source(each) if source else _rendered(each, answer, variable) for each in pair]
    headers = [f"{each.name}  {each.fingerprint}" for each in pair]
    old, new = (text.splitlines() for text in texts)
    lines = list(difflib.unified_diff(old, new, fromfile=headers[0], tofile=headers[1], lineterm=""))
    typer.echo("\n".join(lines) if lines else f"{headers[0]} and {headers[1]}: no difference")


def _templates(directories: list[Path] | None) -> Templates:
    return Templates(*(directories or ()))


def _variables(pairs: list[str] | None) -> dict[str, object]:
    """The --var options as values."""
    values: dict[str, object] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise InputError("is not of the form name=value", field="--var", value=pair, fix="for instance --var domain=movies")
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
