"""Finds, renders and fingerprints templates: a name and values go in, chat messages or raw text come out.

A template is a file ``prompts/<strategy>/<name>.jinja``, or a folder of numbered files (``1-preferences.jinja``,
``2-ranking.jinja``), the steps of one conversation with the model. Files and folders that start with ``_`` are partials.
Its blocks are what the model reads: blocks named ``system``, ``user`` or ``assistant`` (or ``user_2`` and so on) become chat
messages in the order in which they stand; a block named ``text`` becomes raw text. `prompts/README.md` says what templates see.

A `Template` keeps the sources that it was read from and renders from these alone, so that its fingerprint is the
fingerprint of what the model saw, whatever happens to the files afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias, cast

from jinja2 import FunctionLoader, StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateRuntimeError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmrank.errors import TemplateError, nearest
from llmrank.types import Message, Role

Kind: TypeAlias = Literal["chat", "text"]
Rendered: TypeAlias = tuple[Message, ...] | str

SUFFIX = ".jinja"
ITEM_PARTIAL = "_item.jinja"
"""The partial that turns an item into a line; it is part of every template's fingerprint."""

_STEP_FILE = re.compile(r"(?P<folder>.+)/(?P<number>\d+)-(?P<step>[^/]+)\.jinja")
_ROLE_BLOCK = re.compile(r"(system|user|assistant)(?:_\d+)?")
_TEXT_BLOCK = "text"
# Control characters mark where a block begins and ends in the rendered text; `sanitize` removes them from all data.
_MARK = re.compile("\x02([a-z/]*)\x03")


class RefusedError(TemplateRuntimeError):
    """A template called ``fail(message)``: the request lacks something that the template needs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question to the model: its name, its file, and the files it is made of (extends, include and import, all levels)."""

    name: str
    file: str
    files: tuple[str, ...]
    blocks: tuple[str, ...]

    @property
    def follow_up(self) -> bool:
        """True if it continues a chat: its first message is the model's own earlier answer."""
        return bool(self.blocks) and self.blocks[0].startswith("assistant")


@dataclass(frozen=True, slots=True)
class Template:
    """A template, read and checked once.

    Attributes:
        name: For instance ``listwise/recency``.
        kind: ``chat`` renders to messages, ``text`` to one raw text.
        steps: In the order in which the model is asked; a template of one file has one, named after the file.
        sources: The text of every file it is made of, by file name.
        origin: The directory its first file was found in.
        description: The first line of the comment at its top.
        fingerprint: 12 hexadecimal digits of the SHA-256 over names and texts of all `sources`.
    """

    name: str
    kind: Kind
    steps: tuple[Step, ...]
    sources: Mapping[str, str] = field(hash=False, repr=False)
    origin: Path
    description: str
    fingerprint: str
    _environment: _Environment = field(hash=False, repr=False, compare=False)

    def step(self, name: str | None = None) -> Step:
        """The step of that name; the last one if no name is given.

        Raises:
            TemplateError: there is no such step.
        """
        if name is None:
            return self.steps[-1]
        for step in self.steps:
            if step.name == name:
                return step
        raise TemplateError(
            "no such step", field=f"template {self.name}", value=name, fix=nearest(name, [step.name for step in self.steps])
        )

    def render(self, values: Mapping[str, object], step: str | None = None) -> Rendered:
        """Renders one step: messages of a chat template (empty ones left out), the text of a text template.

        Raises:
            TemplateError: a variable is not defined, the sandbox refuses something, or the template itself
                refuses the request by ``fail``; file and line are named.
        """
        file = self.step(step).file
        text = self._render_file(file, values)
        parts = list(_split(text, f"template {self.name}"))
        if self.kind == "text":
            return "".join(content for _, content in parts)
        messages = ((block.partition("_")[0], re.sub(r"\n{3,}", "\n\n", content).strip()) for block, content in parts)
        return tuple(Message(cast(Role, role), content) for role, content in messages if content)

    def uses(self, name: str) -> bool:
        """True if one of its files reads a variable of that name that it does not set itself."""
        return any(name in _undeclared(text) for text in self.sources.values())

    def render_item(self, values: Mapping[str, object]) -> str:
        """Renders ``_item.jinja``: the text of one item."""
        return self._render_file(ITEM_PARTIAL, values)

    def render_partial(self, file: str, values: Mapping[str, object]) -> str:
        """Renders one of `sources` by itself, for `llmrank.lint`."""
        return self._render_file(file, values)

    def _render_file(self, file: str, values: Mapping[str, object]) -> str:
        try:
            return self._environment.get_template(file).render(values)
        except Exception as error:  # a template may raise whatever an expression in it can raise
            raise _explain(error, self.name, self.sources) from error


class Templates:
    """The templates of the given directories, then those that llmrank brings.

    A file in an earlier directory stands for the file of the same name in a later one, partials included: a user's
    ``_domain.jinja`` changes the words of every packaged template that uses it (and all their fingerprints).

    Args:
        directories: Folders of templates, most important first.

    Raises:
        TemplateError: a directory does not exist.
    """

    def __init__(self, *directories: str | Path) -> None:
        self._files: dict[str, Path] = {}
        self._rank: dict[str, int] = {}
        self._cache: dict[str, Template] = {}
        folders = [Path(directory) for directory in directories]
        for folder in folders:
            if not folder.is_dir():
                raise TemplateError("no such directory", field="prompt.directories", value=str(folder), fix="create it")
        for rank, folder in enumerate([*folders, packaged_directory()]):
            for path in sorted(folder.rglob(f"*{SUFFIX}")):
                file = path.relative_to(folder).as_posix()
                if file not in self._files:
                    self._files[file], self._rank[file] = path, rank

    def names(self) -> tuple[str, ...]:
        """The names of all templates, sorted; partials are none."""
        return tuple(sorted(self._steps()))

    def get(self, name: str) -> Template:
        """Reads a template and all it is made of.

        Raises:
            TemplateError: there is none of that name (the nearest is named), it does not compile, it includes a file that
                does not exist or whose name is computed, or it has neither role blocks nor a text block.
        """
        if name not in self._cache:
            steps = self._steps()
            if name not in steps:
                raise TemplateError("no such template", field="prompt.template", value=name, fix=nearest(name, steps))
            self._cache[name] = self._read(name, steps[name])
        return self._cache[name]

    def _steps(self) -> dict[str, list[str]]:
        """Each template's name with its step files in order."""
        numbered: dict[str, dict[int, str]] = {}
        single: dict[str, list[str]] = {}
        for file in self._files:
            if any(part.startswith("_") for part in file.split("/")):
                continue
            match = _STEP_FILE.fullmatch(file)
            if match is None:
                single[file.removesuffix(SUFFIX)] = [file]
                continue
            steps = numbered.setdefault(match["folder"], {})
            other = steps.setdefault(int(match["number"]), file)
            if other != file:
                raise TemplateError(
                    f"{other} and {file} have the same step number",
                    field=f"template {match['folder']}",
                    fix="number the steps in the order in which they run, or give the folder another name",
                )
        folders = {name: [files[number] for number in sorted(files)] for name, files in numbered.items()}
        for name in single.keys() & folders.keys():
            file_rank, folder_rank = self._rank[single[name][0]], min(self._rank[file] for file in folders[name])
            if file_rank == folder_rank:
                raise TemplateError("is both a file and a folder of steps", field=f"template {name}", fix="rename one of them")
            # The earlier directory wins here as everywhere.
            del (folders if file_rank < folder_rank else single)[name]
        return single | folders

    def _read(self, name: str, step_files: list[str]) -> Template:
        sources: dict[str, str] = {}
        environment = _Environment(sources)
        trees: dict[str, nodes.Template] = {}
        steps = []
        for file in step_files:
            match = _STEP_FILE.fullmatch(file)
            step_name = match["step"] if match else name.rpartition("/")[2]
            files = self._closure(name, file, environment, trees)
            steps.append(Step(step_name, file, files, _message_blocks(file, trees)))
        self._closure(name, ITEM_PARTIAL, environment, trees)
        kinds = {_kind(name, step) for step in steps}
        if len(kinds) > 1:
            raise TemplateError("some steps are chats and some raw text", field=f"template {name}", fix="use one kind")
        digest = hashlib.sha256()
        for file in sorted(sources):
            for part in (file, sources[file]):
                digest.update(f"{len(part)}:{part}".encode())
        file = step_files[0]
        origin = self._files[file]
        for _ in file.split("/"):
            origin = origin.parent
        description = _description(sources[file])
        return Template(name, kinds.pop(), tuple(steps), sources, origin, description, digest.hexdigest()[:12], environment)

    def _closure(self, name: str, file: str, environment: _Environment, trees: dict[str, nodes.Template]) -> tuple[str, ...]:
        """Reads `file` and all that it extends, includes or imports into the environment's sources and `trees`."""
        seen: list[str] = []
        waiting = [file]
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.append(current)
            if current not in trees:
                environment.sources[current] = self._source(name, current)
                try:
                    trees[current] = environment.parse(environment.sources[current], current, current)
                except TemplateSyntaxError as error:
                    raise _explain(error, name, environment.sources) from error
            for reference in trees[current].find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
                waiting += self._referenced(name, current, reference)
        return tuple(seen)

    def _referenced(self, name: str, file: str, reference: nodes.Node) -> list[str]:
        """The files that an extends, include or import tag names; only constants can be fingerprinted."""
        where = f"template {name}, {file} line {reference.lineno}"
        expression = cast("nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport", reference).template
        items = expression.items if isinstance(expression, nodes.Tuple | nodes.List) else [expression]
        found = []
        for item in items:
            if not (isinstance(item, nodes.Const) and isinstance(item.value, str)):
                raise TemplateError(
                    "a computed file name cannot be fingerprinted",
                    field=where,
                    fix="name the file as a constant; choose between files with {% if %}",
                )
            found.append(item.value)
        present = [file for file in found if file in self._files]
        if not present and not (isinstance(reference, nodes.Include) and reference.ignore_missing):
            raise TemplateError("no such file", field=where, value=found[0], fix=nearest(found[0], self._files))
        return present

    def _source(self, name: str, file: str) -> str:
        try:
            # Universal newlines: a checkout with CRLF has the same fingerprint and the same prompt.
            return self._files[file].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"cannot be read: {error}", field=f"template {name}, {file}") from error


def packaged_directory() -> Path:
    """Where llmrank's own templates are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "prompts"
    return inside if inside.is_dir() else package.parent / "prompts"


class _MarkingGenerator(CodeGenerator):
    """Compiles role and text blocks so that their rendered text stands between marks."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802 - the name of the hook that Jinja calls
        for block in node.find_all(nodes.Block):
            if _ROLE_BLOCK.fullmatch(block.name) or block.name == _TEXT_BLOCK:
                marks = [nodes.Output([nodes.TemplateData(f"\x02{name}\x03")]) for name in (_mark_name(block.name), "/")]
                for mark in marks:
                    mark.set_lineno(block.lineno).set_environment(self.environment)
                block.body = [marks[0], *block.body, marks[1]]
        super().visit_Template(node, frame)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that loads nothing but the sources it is given, and treats an unknown variable as an error."""

    code_generator_class = _MarkingGenerator

    def __init__(self, sources: dict[str, str]) -> None:
        super().__init__(
            # The file's name as its "path" makes Jinja's tracebacks name it.
            loader=FunctionLoader(lambda file: (sources[file], file, None) if file in sources else None),
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,  # so that a blank line after an include tag is a blank line in the prompt
            auto_reload=False,
        )
        self.sources = sources
        self.globals["fail"] = _fail


@lru_cache(maxsize=512)  # strategies ask the same of the same few files whenever a Ranker is built
def _undeclared(text: str) -> frozenset[str]:
    """The variables that a file reads and does not set itself."""
    return frozenset(meta.find_undeclared_variables(_Environment({}).parse(text)))


def _fail(message: str) -> NoReturn:
    raise RefusedError(str(message))


def _mark_name(block: str) -> str:
    return block.partition("_")[0]


def _split(text: str, where: str) -> Iterator[tuple[str, str]]:
    """The marked parts of a rendered template; a block inside a block (``super()``) belongs to the outer one."""
    depth, block, content = 0, "", ""
    pieces = _MARK.split(text)
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            if depth:
                content += piece
            elif piece.strip():
                raise TemplateError(
                    "text outside of the blocks would never reach the model",
                    field=where,
                    value=piece.strip(),
                    fix="move it into a block, or into a comment",
                )
        elif piece == "/":
            depth -= 1
            if depth == 0:
                yield block, content
        else:
            depth += 1
            if depth == 1:
                block, content = piece, ""


def _message_blocks(file: str, trees: Mapping[str, nodes.Template]) -> tuple[str, ...]:
    """The blocks that become messages or text, in the order in which the outermost base template places them."""
    chain = [file]
    while (extends := trees[chain[-1]].find(nodes.Extends)) is not None:
        parent = cast(nodes.Const, extends.template).value
        if parent in chain:  # it extends itself; rendering says so
            break
        chain.append(parent)
    blocks = trees[chain[-1]].find_all(nodes.Block)
    return tuple(block.name for block in blocks if _ROLE_BLOCK.fullmatch(block.name) or block.name == _TEXT_BLOCK)


def _kind(name: str, step: Step) -> Kind:
    is_text = _TEXT_BLOCK in step.blocks
    if is_text == any(block != _TEXT_BLOCK for block in step.blocks):
        raise TemplateError(
            "has both a text block and role blocks" if is_text else "has no block that a model could read",
            field=f"template {name}, {step.file}",
            fix="use blocks named system, user and assistant for a chat, or one named text for raw text",
        )
    return "text" if is_text else "chat"


def _description(source: str) -> str:
    """The first line of the comment that a template starts with."""
    match = re.match(r"\s*\{#-?\s*([^\n]*?)\s*(?:-?#\}|\n)", source)
    return match[1] if match else ""


def _explain(error: Exception, name: str, sources: Mapping[str, str]) -> TemplateError:
    """One line for whatever went wrong in a template: its name, the file, the line, the reason."""
    file, line = "", 0
    if isinstance(error, TemplateSyntaxError):
        file, line = error.name or "", error.lineno
    else:
        trace = error.__traceback__
        while trace is not None:
            frame_file = trace.tb_frame.f_code.co_filename
            if frame_file in sources:
                file, line = frame_file, trace.tb_lineno
            trace = trace.tb_next
    where = f"template {name}" + (f", {file} line {line}" if file else "")
    reason = getattr(error, "message", None) or str(error) or type(error).__name__
    if isinstance(error, KeyError | TypeError | ValueError | ArithmeticError | RecursionError):
        reason = f"{type(error).__name__}: {reason}"
    return TemplateError(reason, field=where)
