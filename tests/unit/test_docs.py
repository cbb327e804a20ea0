"""The documents are true: every configuration key stands there with its default, every template, and the errors raised."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from llmrank import Catalog, Event, Item, Limits, Ranker, config, errors, fusion_kinds, ranker, strategy_kinds
from llmrank.backends.local import LocalOptions
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.backends.replay import ReplayOptions
from llmrank.backends.vllm import VLLMOptions
from llmrank.backends.vllm_inprocess import VLLMInProcessOptions
from llmrank.errors import LLMRankError
from llmrank.evaluation.data.protocol import CandidateOptions, ProtocolOptions
from llmrank.evaluation.fitting.options import FitOptions
from llmrank.evaluation.measures.measure import FAMILIES
from llmrank.evaluation.running.baselines import NAMES
from llmrank.evaluation.suite import MemorizationOptions, StabilityOptions, Suite
from llmrank.experiment.spec import RepeatOptions, SelectionOptions, SequentialOptions, Spec
from llmrank.fusion import PARTS, Fusion
from llmrank.fusion_kinds import FusionOptions
from llmrank.retrieval.collaborative import MODEL_KINDS
from llmrank.retrieval.graph import ApproximateOptions
from llmrank.retrieval.lists import ListsOptions
from llmrank.retrieval.openai import OpenAIEmbedderOptions
from llmrank.retrieval.precomputed import PrecomputedOptions
from llmrank.retrieval.prefilter import PrefilterOptions
from llmrank.retrieval.wordllama import WordLlamaOptions
from llmrank.retriever_kinds import KINDS as RETRIEVERS
from llmrank.strategies.calibrated import CalibratedOptions
from llmrank.strategies.likelihood import Likelihood, LikelihoodOptions
from llmrank.strategies.listwise import Listwise, ListwiseOptions, SingleTokenOptions
from llmrank.strategies.pairwise import PairwiseOptions
from llmrank.strategies.pointwise import PointwiseOptions
from llmrank.strategies.query_likelihood import QueryLikelihoodOptions
from llmrank.strategies.self_consistency import SelfConsistencyOptions
from llmrank.strategies.setwise import SetwiseOptions
from llmrank.strategies.top_down import TopDownOptions
from llmrank.strategies.tourrank import TourRankOptions
from llmrank.strategy_kinds import KINDS, build_strategy
from llmrank.template import Templates
from llmrank.understanding import UnderstandingOptions
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
STRATEGIES = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
EXPERIMENTS = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
COLLABORATIVE = (ROOT / "docs" / "collaborative.md").read_text(encoding="utf-8")

REQUIRED = "required"
"""What stands in the column of defaults where there is none."""

ON_ERROR = inspect.signature(Ranker).parameters["on_error"].default

# Which class reads the keys under each heading, and the keys there that `llmrank.config` reads by itself.
SECTIONS: Mapping[str, tuple[type | None, Mapping[str, object]]] = {
    "backend": (config._Concurrency, {"kind": REQUIRED}),
    "backend: {kind: openai}": (OpenAIOptions, {}),
    "backend: {kind: vllm}": (VLLMOptions, {}),
    "backend: {kind: vllm-inprocess}": (VLLMInProcessOptions, {}),
    "backend: {kind: local}": (LocalOptions, {}),
    "backend: {kind: replay}": (ReplayOptions, {}),
    "prompt": (PromptOptions, {}),
    "strategy: {kind: listwise}": (ListwiseOptions, {}),
    "strategy: {kind: single-token}": (SingleTokenOptions, {}),
    "strategy: {kind: tourrank}": (TourRankOptions, {}),
    "strategy: {kind: top-down}": (TopDownOptions, {}),
    "strategy: {kind: likelihood}": (LikelihoodOptions, {}),
    "strategy: {kind: query-likelihood}": (QueryLikelihoodOptions, {}),
    "strategy: {kind: pointwise}": (PointwiseOptions, {}),
    "strategy: {kind: pairwise}": (PairwiseOptions, {}),
    "strategy: {kind: setwise}": (SetwiseOptions, {}),
    "strategy: {kind: self-consistency}": (SelfConsistencyOptions, {"of": REQUIRED}),
    "strategy: {kind: calibrated}": (CalibratedOptions, {"of": REQUIRED}),
    "prefilter": (PrefilterOptions, {"by": ["embedding"], "embedder": {"kind": "wordllama"}, "index": {"kind": "exact"}}),
    "prefilter.embedder": (config._Store, {"kind": "wordllama", "store": "embeddings"}),
    "prefilter.embedder: {kind: wordllama}": (WordLlamaOptions, {}),
    "prefilter.embedder: {kind: openai}": (OpenAIEmbedderOptions, {}),
    "prefilter.embedder: {kind: precomputed}": (PrecomputedOptions, {"fallback": None}),
    "prefilter.index": (None, {"kind": "exact"}),
    "prefilter.index: {kind: approximate}": (ApproximateOptions, {}),
    "understanding": (UnderstandingOptions, {}),
    "fusion": (FusionOptions, dict.fromkeys(PARTS, 0)),
    "limits": (Limits, {"on_error": ON_ERROR}),
    "cache": (config._Cache, {}),
    "catalog": (config._CatalogFile, {}),
}


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading and before the next one, without its head."""
    below = re.split(rf"^#+ `?{re.escape(heading)}`?$", text, flags=re.MULTILINE)
    assert len(below) == 2, heading
    rows = re.findall(r"^\|(.*)\|$", re.split(r"^#", below[1], flags=re.MULTILINE)[0], flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def documented(heading: str, text: str = CONFIGURATION) -> dict[str, object]:
    """The keys of a table of a document, of the configuration's by default, with their defaults as YAML reads them."""
    rows = table(text, heading)
    assert all(len(row) == 3 and row[2] for row in rows), heading
    keys = {key.strip("`"): default for key, default, _ in rows}
    assert len(keys) == len(rows), heading
    return {
        key: yaml.safe_load(quoted[1]) if (quoted := re.match(r"`(.*?)`", default)) else default
        for key, default in keys.items()
    }


def in_code(cls: type | None) -> dict[str, object]:
    """The keys that a class reads, with their defaults as YAML would give them."""
    keys: dict[str, object] = {}
    for field in dataclasses.fields(cls) if cls is not None and dataclasses.is_dataclass(cls) else ():
        if field.default_factory is not dataclasses.MISSING:
            keys[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            keys[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
        else:
            keys[field.name] = REQUIRED
    return keys


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    """A key that is new, renamed, gone or has another default makes this fail until docs/configuration.md says so."""
    cls, others = SECTIONS[heading]
    assert documented(heading) == {**in_code(cls), **others}


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("A suite", Suite),
        ("protocol", ProtocolOptions),
        ("protocol.candidates", CandidateOptions),
        ("stability", StabilityOptions),
        ("memorization", MemorizationOptions),
        ("Fitting a fusion", FitOptions),
    ],
)
def test_every_key_of_a_suite_is_documented_with_its_default(heading: str, cls: type) -> None:
    """As for a configuration: docs/evaluation.md names every key, with its default."""
    # Nested options are documented in a section of their own; where they are named they say what is not their default.
    code = {key: value for key, value in in_code(cls).items() if not dataclasses.is_dataclass(value)}
    told = documented(heading, EVALUATION)
    assert {key: value for key, value in told.items() if key in code} == code
    assert set(told) == set(in_code(cls))


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("Offline", Spec),
        ("repeats", RepeatOptions),
        ("selection", SelectionOptions),
        ("sequential", SequentialOptions),
    ],
)
def test_every_key_of_an_experiment_is_documented_with_its_default(heading: str, cls: type) -> None:
    """docs/experiments.md names every key, with its default, and the class that reads it."""
    code = {key: value for key, value in in_code(cls).items() if not dataclasses.is_dataclass(value)}
    told = documented(heading, EXPERIMENTS)
    assert {key: value for key, value in told.items() if key in code} == code
    assert set(told) == set(in_code(cls))
    assert f"`{cls.__module__}.{cls.__name__}`" in EXPERIMENTS


@pytest.mark.parametrize(
    ("heading", "cls"), [*((kind, model.options_type) for kind, model in MODEL_KINDS.items()), ("lists", ListsOptions)]
)
def test_every_option_of_a_collaborative_model_is_documented(heading: str, cls: type) -> None:
    """docs/collaborative.md has a table for each kind, with the defaults and the name of the class."""
    assert documented(heading, COLLABORATIVE) == in_code(cls)
    assert f"`{cls.__module__}.{cls.__name__}`" in COLLABORATIVE
    kinds = [row[0].strip("`") for row in table(COLLABORATIVE, "Collaborative models")]
    assert kinds == list(MODEL_KINDS)


def test_every_measure_is_documented() -> None:
    """docs/evaluation.md has a row for each measure, which says what it needs and whether it is of the whole run."""
    rows = {name.strip("`").removesuffix("@k"): (what, needs) for name, what, needs in table(EVALUATION, "Measures")}
    assert set(rows) == set(FAMILIES)
    for name, family in FAMILIES.items():
        what, needs = rows[name]
        assert what.startswith("run: ") == (family.about == "run"), name
        assert (family.needs or "") in needs, name
        assert bool(family.needs) == bool(needs), name


def test_every_baseline_is_documented() -> None:
    """docs/evaluation.md has a row for each."""
    named = [re.search(r"baseline: (\w+)", row[0]) for row in table(EVALUATION, "Baselines")]
    assert [match[1] for match in named if match] == list(NAMES)


def test_every_retriever_is_documented() -> None:
    """docs/configuration.md has a row for each kind."""
    kinds = [kind for row in table(CONFIGURATION, "retrievers") for kind in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(kinds) == sorted(RETRIEVERS)


def test_every_class_of_options_is_compared() -> None:
    """Each class that a section of a configuration is made into is one of those above, so a new kind cannot be forgotten."""
    trees = [ast.parse(inspect.getsource(module)) for module in (config, fusion_kinds, strategy_kinds)]
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "make"
    ]
    made = {call.args[0].id for call in calls if isinstance(call.args[0], ast.Name)}
    assert len(made) > 10
    assert made == {cls.__name__ for cls, _ in SECTIONS.values() if cls is not None}
    # The keys that are read beside those of a class.
    others = {
        key
        for call in calls
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Tuple)
        for key in ast.literal_eval(keyword.value)
    }
    assert {"embedder", "on_error"} <= others
    assert others <= {"kind"}.union(*(documented(heading) for heading in SECTIONS))
    assert {heading.partition(".")[0].partition(":")[0] for heading in SECTIONS} | {"strategy", "retrievers"} == set(
        config.KEYS
    )
    kinds = {f"backend: {{kind: {kind}}}" for kind in (*config.CAPABILITIES, "replay")}
    assert kinds == {heading for heading in SECTIONS if heading.startswith("backend: ")}
    strategies = {f"strategy: {{kind: {kind}}}" for kind in KINDS}
    assert strategies == {heading for heading in SECTIONS if heading.startswith("strategy: ")}


def test_the_document_has_no_other_section() -> None:
    """Nothing is documented that does not exist, and each public class is named where its keys are."""
    found = re.findall(r"^##+ `(.*)`$", CONFIGURATION, flags=re.MULTILINE)
    assert sorted(found) == sorted([*SECTIONS, "strategy", "retrievers"])
    for heading, (cls, _) in SECTIONS.items():
        section = re.split(r"^#", CONFIGURATION.split(f"# `{heading}`\n", 1)[1], flags=re.MULTILINE)[0]
        if cls is not None and not cls.__name__.startswith("_"):
            assert f"`{cls.__module__}.{cls.__name__}`" in section or f"`llmrank.{cls.__name__}`" in section, heading


def test_the_whole_configuration_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's example has every section, and is one that a Ranker can be built from."""
    pytest.importorskip("wordllama", reason="the prefilter's default embedder is in the extra `local`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    Path("items.jsonl").write_text('{"id": "1", "title": "One", "year": 2001}\n', encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", CONFIGURATION, flags=re.MULTILINE | re.DOTALL)
    example = yaml.safe_load(block)
    assert set(example) == set(config.KEYS)
    with Ranker.from_config(example) as built:
        assert built.on_error == "fallback"
        assert built.prefilter is not None
        assert built.catalog is not None


def test_the_values_that_a_key_may_have_are_named() -> None:
    """Where a key takes one of a few words, its line names each of them."""
    lines = {(heading, row[0].strip("`")): row[2] for heading in SECTIONS for row in table(CONFIGURATION, heading)}
    choices: dict[tuple[str, str], object] = {
        ("prompt", "labels"): PromptOptions.__annotations__["labels"],
        ("backend: {kind: vllm}", "constrain"): VLLMOptions.__annotations__["constrain"],
        ("strategy: {kind: likelihood}", "normalize"): LikelihoodOptions.__annotations__["normalize"],
    }
    for place, annotation in choices.items():
        module = inspect.getmodule(SECTIONS[place[0]][0])
        words = get_args(eval(str(annotation), vars(module)))  # noqa: S307  # an annotation of our own
        assert len(words) > 1, place
        assert [word for word in words if f"`{word}`" not in lines[place]] == [], place
    for word in get_args(ranker.OnError):
        assert f"`{word}`" in lines["limits", "on_error"]


def test_the_short_table_of_the_readme_names_real_keys() -> None:
    """Each section of the configuration has a row, and each key in it is one of that section."""
    rows = table(README, "Configuration")
    rows = rows[: next(number for number, row in enumerate(rows) if row[0] == "backend")]
    assert [row[0].strip("`") for row in rows] == list(config.KEYS)
    for section, _, keys in rows:
        name = section.strip("`")
        known = {key for heading in SECTIONS if re.match(rf"{name}(: |$)", heading) for key in documented(heading)}
        if name == "retrievers":
            known = {"kind", *(key for row in table(CONFIGURATION, name) for key in re.findall(r"`(\w+)`", row[2]))}
        named = set(re.findall(r"`(\w+)`", keys))
        assert named
        assert named <= known | ({"kind"} if name == "strategy" else set())
    assert "(docs/configuration.md)" in README


def test_the_table_of_backends_tells_what_they_can_do() -> None:
    """The columns `generates` and `scores` say what `llmrank.config` says, for every kind."""
    rows = table(README, "Configuration")
    rows = rows[next(number for number, row in enumerate(rows) if row[0] == "backend") + 2 :]
    said = {kind: row[1:3] for row in rows for kind in re.findall(r"`([a-z-]+)`", row[0])}
    assert said == {
        kind: ["yes" if each in can else "no" for each in ("generate", "score")] for kind, can in config.CAPABILITIES.items()
    }


def test_the_table_of_templates_names_each_of_them() -> None:
    """prompts/README.md has one row for each packaged template and no other."""
    text = (ROOT / "prompts" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([a-z-]+/[a-z-]+)` \|", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(Templates().names())


CATALOG = Catalog([Item("603", "The Matrix"), Item("604", "The Matrix Reloaded"), Item("78", "Blade Runner")])
LISTWISE: Mapping[str, Any] = {"kind": "listwise"}


def scripted(window: int | None = None) -> Ranker:
    """A Ranker whose model answers the first label."""
    backend = ScriptedBackend(lambda prompt: " > ".join(f"[{label}]" for label in prompt.labels), window=window)
    return Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG)


def _unknown_item(folder: Path) -> None:
    with scripted() as built:
        built.rank(["603"], ["6O4"])


def _no_candidates(folder: Path) -> None:
    with scripted() as built:
        built.rank(["603"], [])


def _a_candidate_twice(folder: Path) -> None:
    with scripted() as built:
        built.rank(["603"], ["604", "604"])


def _a_broken_item_file(folder: Path) -> None:
    (folder / "items.jsonl").write_text('{"id": "1", "title": "One"}\n{"id": "2",\n', encoding="utf-8")
    Catalog.load(folder / "items.jsonl")


def _a_mistyped_key(folder: Path) -> None:
    Ranker.from_config({"backnd": {"kind": "local"}})


def _a_strategy_that_cannot_be_served(folder: Path) -> None:
    backend = OpenAIBackend(OpenAIOptions(model="m", base_url="http://127.0.0.1:9/v1"))
    Ranker(backend, Likelihood(PromptWriter(PromptOptions(template="likelihood/next-line"))))


def _a_template_that_fails(folder: Path) -> None:
    (folder / "mine.jinja").write_text("{% block user %}{{ histroy }}{% endblock %}", encoding="utf-8")
    writer = PromptWriter(PromptOptions(template="mine", directories=(str(folder),)))
    with Ranker(ScriptedBackend(), Listwise(writer), catalog=CATALOG) as built:
        built.rank(["603"], ["604", "78"])


def _a_window_too_small(folder: Path) -> None:
    with scripted(window=150) as built:
        built.rank(["603"], ["604", "78"])


def _a_missing_key(folder: Path) -> None:
    OpenAIBackend(OpenAIOptions(model="m", base_url="https://llm.example.com/v1", api_key_env="LLMRANK_TEST_NO_SUCH_KEY"))


def _no_server(folder: Path) -> None:
    backend = OpenAIBackend(OpenAIOptions(model="m", base_url="http://127.0.0.1:9/v1"))
    limits = Limits(max_attempts=2, initial_wait_s=0.0)
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG, limits=limits) as built:
        built.rank(["603"], ["604", "78"])


def _used_after_close(folder: Path) -> None:
    built = scripted()
    built.close()
    built.rank(["603"], ["604", "78"])


# In the order of the README's table; the text is part of the message.
MISTAKES: list[tuple[Callable[[Path], None], str, str]] = [
    (_unknown_item, "UnknownItemError", "did you mean '604'"),
    (_no_candidates, "RequestError", "candidates: there is nothing to rank"),
    (_a_candidate_twice, "RequestError", "candidates[1]: the same id stands twice"),
    (_a_broken_item_file, "CatalogError", "items.jsonl, line 2"),
    (_a_mistyped_key, "ConfigError", "did you mean 'backend'"),
    (_a_strategy_that_cannot_be_served, "CapabilityError", "backends that can: vllm, vllm-inprocess, local"),
    (_a_template_that_fails, "TemplateError", "histroy"),
    (_a_window_too_small, "BudgetError", "150"),
    (_a_missing_key, "SetupError", "set the environment variable LLMRANK_TEST_NO_SUCH_KEY"),
    (_no_server, "UnreachableError", "gave up after 2 attempts"),
    (_used_after_close, "ClosedError", "has been closed"),
]


@pytest.mark.parametrize(("mistake", "name", "part"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_each_mistake_gives_the_error_of_the_readme(
    mistake: Callable[[Path], None], name: str, part: str, tmp_path: Path
) -> None:
    """The error has the class that the README names, is one line that tells what to mend, and ends the command line with 2."""
    with pytest.raises(LLMRankError) as caught:
        mistake(tmp_path)
    assert type(caught.value) is getattr(errors, name)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_the_readme_names_each_of_these_errors() -> None:
    """The README's table has the errors above in their order, and none that nothing raises."""
    named = [name for row in table(README, "Errors") for name in re.findall(r"`(\w+Error)`", row[1])]
    assert named == list(dict.fromkeys(name for _, name, _ in MISTAKES))


def test_a_history_longer_than_the_window_is_no_error() -> None:
    """The oldest events are left out of the prompt, and `cut.history` counts them."""
    history = [Event(Item(f"h{number}", f"{number:03} {'a long title ' * 12}")) for number in range(20)]
    backend = ScriptedBackend(lambda prompt: " > ".join(f"[{label}]" for label in prompt.labels), window=700)
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG) as built:
        ranking = built.rank(history, ["604", "78"])
    shown = "\n".join(message.content for message in backend.prompts[0].messages)
    assert 0 < ranking.cut.history < 20
    assert [f"{number:03} a long" in shown for number in range(20)] == [number >= ranking.cut.history for number in range(20)]
    assert ranking.status == "ok"


def test_the_documents_lines_are_not_too_long() -> None:
    """128 characters, as in the code."""
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))):
        assert [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 128] == [], path


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_left_out_of_the_fusion_weighs_nothing(part: str) -> None:
    """Beside its options, the keys of `fusion` are the parts of `llmrank.Fusion`, and 0 is their default there."""
    assert "`llmrank.Fusion`" in CONFIGURATION
    assert Fusion({part: 1.0}).parts == (part,)


def test_the_page_of_strategies_tells_the_prompts_of_each_kind() -> None:
    """docs/strategies.md has a row for every kind, with the bounds that the strategy itself states for 20 candidates."""
    rows = {row[0].strip("`"): row[2] for row in table(STRATEGIES, "Strategies")}
    assert list(rows) == list(KINDS)
    wrappers = {"self-consistency": {"of": {"kind": "listwise"}}, "calibrated": {"of": {"kind": "single-token"}}}
    for kind, said in rows.items():
        calls = build_strategy({"kind": kind, **wrappers.get(kind, {})}).calls(20)
        least, _, most = said.partition(" to ")
        numbers = [math.prod(map(int, part.split(" x "))) for part in least.split(" + ")]
        assert (sum(numbers), int(most or sum(numbers))) == (calls.least, calls.most), kind
