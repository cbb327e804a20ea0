"""Checks a template: a Template goes in, findings come out. Errors make prompts that cannot work, warnings weaker ones.

Two ways together: the syntax tree of every file that the template is made of (variables that nobody defines), and
the prompt itself, rendered for made-up requests of every shape (with and without a history or a sentence, one candidate, many,
every form of answer). What a prompt has to show is told by its folder (`llmrank.prompt_kinds`). The made-up data is in
``prompts/_sample.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal, TypeAlias

from jinja2 import Environment, meta, nodes

from llmrank.errors import TemplateError, nearest
from llmrank.labels import make_labels
from llmrank.prompt_kinds import PromptKind, kind_of
from llmrank.template import ITEM_PARTIAL, RefusedError, Rendered, Step, Template, packaged_directory
from llmrank.types import AnswerFormat, Message
from llmrank.wish import WISH_MEMBERS
from llmrank.writer import TEMPLATE_VALUES, ShownAttribute, ShownCandidate, ShownEvent

Severity: TypeAlias = Literal["error", "warning"]

ANSWER_PARTIAL = "_answer.jinja"
"""The partial that says how to answer; the packaged templates and lint both go by it."""

_VERDICT = ("zig", "zag")  # words that no template has by itself
_SENTENCES = ((False, False), (True, False), (True, True))
"""Whether a request has a sentence, and whether it was taken apart."""
_SAMPLE_FILE = "_sample.json"
_LABEL = r"(?:[A-Z]|\d{1,3})"
# How llmrank.answer reads labels: in brackets, in an order, at the start of a line. The model's echo of such words, or
# its reasoning about them, would be read as a ranking.
_CLASHES = (
    (re.compile(rf"\[{_LABEL}\]"), "a label in brackets"),
    (re.compile(rf"(?<![\w\[]){_LABEL} ?> ?{_LABEL}(?![\w\]])"), "an order of labels"),
    (re.compile(rf"^[ \t]*\(?{_LABEL}[.):](?=\s)", re.MULTILINE), "a line that starts with a label"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which template, how bad, a short name for its kind, and what it is in words."""

    template: str
    severity: Severity
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.template}: {self.severity}: {self.message} ({self.code})"


def lint(template: Template, variables: Mapping[str, object] | None = None) -> tuple[Finding, ...]:
    """Checks one template.

    Codes: ``undefined-variable``, ``does-not-render``, ``wrong-block``, ``no-output-instruction``, ``label-clash``,
    ``candidate-not-shown``, ``query-not-shown``, ``attribute-not-shown``, ``no-lines`` (errors); ``history-order``,
    ``history-not-shown``, ``open-prefix`` (warnings). What keeps a template from being read at all (syntax, a computed file
    name, a missing file) is a TemplateError from `Templates.get`.

    Args:
        template: The template.
        variables: The variables that the configuration will define (`prompt.variables`).

    Returns:
        The findings, each kind once, errors first.
    """
    variables = dict(variables or {})
    kind = kind_of(template.name)
    if kind.block not in (None, template.kind):
        folder = template.name.partition("/")[0]
        wanted = "a block named text" if kind.block == "text" else "blocks named system and user"
        message = f"what stands under {folder}/ is a {kind.block}, and this is a {template.kind}: use {wanted}"
        return (Finding(template.name, "error", "wrong-block", message),)
    known = TEMPLATE_VALUES | variables.keys() if kind.request else frozenset[str]()
    undefined = list(_undefined(template, known))
    found = [
        Finding(
            template.name,
            "error",
            "undefined-variable",
            f"{file} line {line}: nobody defines {name!r}; {nearest(name, known) if known else 'no value is given here'}",
        )
        for file, line, name in undefined
    ]
    # A stand-in for what is undefined, so that one mistake is one finding and hides no other.
    found += _rendered(template, variables | {name: "..." for _, _, name in undefined})
    once = {(finding.code, finding.message): finding for finding in found}.values()
    return tuple(sorted(once, key=lambda finding: finding.severity))


def sample_values(
    template: Template,
    variables: Mapping[str, object] | None = None,
    *,
    events: int | None = None,
    candidates: int | None = None,
    query: bool = True,
    read: bool = False,
    answer: AnswerFormat | None = None,
    choices: Sequence[str] | None = None,
) -> dict[str, object]:
    """Made-up values for everything that a template sees.

    Args:
        template: Its steps name the earlier answers.
        variables: Further variables; they win over the sample's `domain`.
        events: The length of the history; by default the sample's. A longer one repeats it.
        candidates: The number of candidates; by default what prompts of this kind show.
        query: Whether there is a sentence.
        read: Whether it has been taken apart, into wishes and dislikes.
        answer: The form of answer; by default the usual one of this kind.
        choices: The words of a verdict; by default those of the sample that bear the template's last name, or its first ones.

    Returns:
        The values; `variables` alone for a kind of template that sees no request.
    """
    sample, kind = _sample(), kind_of(template.name)
    if not kind.request:
        return dict(variables or {})
    texts = _repeat(sample["candidates"], _shapes(kind)[0][0] if candidates is None else candidates)
    if choices is None and kind.asks == "verdict":
        known: dict[str, list[str]] = sample["choices"]
        choices = known.get(template.name.rpartition("/")[2], next(iter(known.values())))
    return {
        "history": tuple(ShownEvent(event["text"], event["rating"]) for event in _repeat(sample["history"], events)),
        "candidates": tuple(map(ShownCandidate, make_labels(len(texts)), texts)),
        "query": sample["query"] if query else None,
        "wishes": tuple(sample["wishes"]) if read else (),
        "dislikes": tuple(sample["dislikes"]) if read else (),
        "attributes": tuple(ShownAttribute(**each) for each in sample["attributes"]) if kind.asks == "wish" else (),
        "answer": answer or kind.answers[0],
        "choices": tuple(choices or ()),
        "answers": {step.name: "..." for step in template.steps} | sample["answers"],
        "domain": sample["domain"],
        **(variables or {}),
    }


def _shapes(kind: PromptKind) -> tuple[tuple[int, AnswerFormat], ...]:
    """How many candidates a prompt shows and which form of answer it asks for: every form, then the other numbers."""
    usual, *edges = kind.counts or (0,)
    return (*((usual, answer) for answer in kind.answers), *((count, kind.answers[0]) for count in edges))


@cache
def _sample() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((packaged_directory() / _SAMPLE_FILE).read_text(encoding="utf-8"))
    return values


def _repeat(values: list[Any], count: int | None) -> list[Any]:
    """`count` of the values; numbered second, third ... rounds keep texts apart."""
    if count is None:
        return values
    result = []
    for index in range(count):
        value, number = values[index % len(values)], index // len(values) + 1
        if number > 1:
            value = f"{value} {number}" if isinstance(value, str) else {**value, "text": f"{value['text']} {number}"}
        result.append(value)
    return result


def _undefined(template: Template, given: AbstractSet[str]) -> Iterator[tuple[str, int, str]]:
    """File, line and name of each name that no file sets, is not `given`, and no ``is defined`` or ``default`` guards."""
    environment = Environment()  # noqa: S701 - only parses
    trees = {file: environment.parse(source) for file, source in template.sources.items()}
    known = set(given | environment.globals.keys()) | {"fail", "loop", "super", "caller"}
    for tree in trees.values():
        known |= {name.name for name in tree.find_all(nodes.Name) if name.ctx in {"store", "param"}}
        known |= {macro.name for macro in tree.find_all(nodes.Macro)}
        known |= {imported.target for imported in tree.find_all(nodes.Import)}
        for imports in tree.find_all(nodes.FromImport):
            known |= {name if isinstance(name, str) else name[1] for name in imports.names}
        for guard in tree.find_all((nodes.Test, nodes.Filter)):
            if guard.name in {"defined", "undefined", "default", "d"} and isinstance(guard.node, nodes.Name):
                known.add(guard.node.name)
    for file, tree in trees.items():
        for name in sorted(meta.find_undeclared_variables(tree) - known - ({"fields"} if file == ITEM_PARTIAL else set())):
            line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), 0)
            yield file, line, name


def _rendered(template: Template, variables: Mapping[str, object]) -> Iterator[Finding]:
    """What is wrong with the prompts of made-up requests."""
    try:
        for fields in ({"title": "Alien", "year": "1979", "genres": ("Horror", "Sci-Fi")}, {"title": "Alien"}, {}):
            template.render_item({"fields": fields})
    except TemplateError as error:
        yield Finding(template.name, "error", "does-not-render", str(error))
    refused: TemplateError | None = None
    rendered_once = False
    kind = kind_of(template.name)
    choices = _VERDICT if kind.asks == "verdict" else ()
    for events, (query, read), (count, answer) in product((4, 0, 1), _SENTENCES, _shapes(kind)):
        values = sample_values(
            template, variables, events=events, candidates=count, query=query, read=read, answer=answer, choices=choices
        )
        try:
            for step in template.steps:
                rendered = template.render(values, step.name)
                rendered_once = True
                yield from _examine(template, kind, step, values, rendered)
        except TemplateError as error:
            if isinstance(error.__cause__, RefusedError):
                refused = error
                continue
            yield Finding(template.name, "error", "does-not-render", str(error))
            return
    if not rendered_once and refused is not None:
        yield Finding(template.name, "error", "does-not-render", f"refuses every request: {refused}")


def _examine(
    template: Template, kind: PromptKind, step: Step, values: Mapping[str, Any], rendered: Rendered
) -> Iterator[Finding]:
    """What is wrong with one rendered prompt."""
    name, where = template.name, f"step {step.name}: " if len(template.steps) > 1 else ""
    text = rendered if isinstance(rendered, str) else "\n".join(message.content for message in rendered)
    yield from _examine_history(name, where, values, text, shown=kind.request and kind.history and not step.follow_up)
    if isinstance(rendered, str):
        if not text.strip():
            yield Finding(name, "error", "no-lines", f"{where}the text is empty")
        elif kind.request and not text.endswith(("\n", " ")):
            yield Finding(
                name, "warning", "open-prefix", f"{where}the text does not end a line, so a candidate continues its last word"
            )
        return
    labelled = [f"[{each.label}] {each.text}" for each in values["candidates"]] if kind.asks == "labels" else []
    if step == template.steps[-1] and kind.asks == "labels":
        yield from _examine_list(template, where, step, values, rendered, labelled)
    if step == template.steps[-1] and kind.asks == "verdict":
        yield from _examine_verdict(name, where, values, rendered)
    if step == template.steps[-1] and kind.asks == "wish":
        yield from _examine_wish(name, where, values, rendered)
    own = "\n".join(line for line in text.splitlines() if line not in labelled)
    for pattern, what in _CLASHES:
        match = pattern.search(own)
        if match is not None:
            yield Finding(
                name,
                "error",
                "label-clash",
                f"{where}{match[0].strip()!r} in the template's own words is {what}: an echo of it would be read as an answer",
            )


def _examine_list(
    template: Template,
    where: str,
    step: Step,
    values: Mapping[str, Any],
    rendered: tuple[Message, ...],
    labelled: Sequence[str],
) -> Iterator[Finding]:
    """What is wrong with a prompt that asks for labels."""
    lines = [line for message in rendered for line in message.content.splitlines()]
    if not step.follow_up and any(lines.count(line) != 1 for line in labelled):
        yield Finding(
            template.name,
            "error",
            "candidate-not-shown",
            f"{where}each candidate must stand once on a line of its own after its label, as _candidates.jinja writes it",
        )
    if not _asks(template, step, values, rendered):
        yield Finding(
            template.name,
            "error",
            "no-output-instruction",
            f'{where}the last message does not say how to answer: {{% include "{ANSWER_PARTIAL}" %}} in it',
        )


def _examine_verdict(name: str, where: str, values: Mapping[str, Any], rendered: tuple[Message, ...]) -> Iterator[Finding]:
    """What is wrong with a prompt that asks for a verdict about one candidate."""
    text = "\n".join(message.content for message in rendered)
    if any(text.count(candidate.text) != 1 for candidate in values["candidates"]):
        yield Finding(name, "error", "candidate-not-shown", f"{where}the text of the one candidate must stand once in it")
    last = rendered[-1].content if rendered else ""
    if any(choice not in last for choice in (values["choices"][0], values["choices"][-1])):
        yield Finding(
            name,
            "error",
            "no-output-instruction",
            f"{where}the last message does not say which words may be answered: name `choices` in it, the first and the last "
            "at least",
        )


def _examine_wish(name: str, where: str, values: Mapping[str, Any], rendered: tuple[Message, ...]) -> Iterator[Finding]:
    """What is wrong with a prompt that asks what a sentence says."""
    text = "\n".join(message.content for message in rendered)
    if values["query"] and values["query"] not in text:
        yield Finding(name, "error", "query-not-shown", f'{where}the sentence must stand in it: {{% include "_wish.jinja" %}}')
    missing = [member for member in WISH_MEMBERS if member not in text]
    if missing:
        message = f"{where}the prompt does not ask for {', '.join(missing)}: name each member of the object"
        yield Finding(name, "error", "no-output-instruction", message)
    if any(each.name not in text for each in values["attributes"]):
        message = f"{where}not every attribute that constraints may use is named: show `attributes`"
        yield Finding(name, "error", "attribute-not-shown", message)


def _examine_history(name: str, where: str, values: Mapping[str, Any], text: str, *, shown: bool) -> Iterator[Finding]:
    if not shown:
        return
    texts = [event.text for event in values["history"]]
    if any(event not in text for event in texts):
        yield Finding(name, "warning", "history-not-shown", f"{where}not every event of the history is shown")
        return
    position = 0
    for event in texts:
        position = text.find(event, position) + 1
        if position == 0:
            yield Finding(name, "warning", "history-order", f"{where}the history does not stand oldest first")
            return


def _asks(template: Template, step: Step, values: Mapping[str, Any], rendered: tuple[Message, ...]) -> bool:
    """True if the last message holds what the answer partial renders to."""
    if ANSWER_PARTIAL not in step.files or not rendered:
        return False
    return template.render_partial(ANSWER_PARTIAL, values).strip() in rendered[-1].content
