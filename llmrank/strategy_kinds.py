"""The sections `strategy` and `prompt` of a configuration go in, a strategy comes out.

Each kind has a template of its own by default, and a form of answer; a template of a folder that asks for something else
(`llmrank.prompt_kinds`) is refused. The wrappers (``self-consistency``, ``calibrated``) hold another strategy in `of`, which
the section `prompt` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llmrank.errors import ConfigError
from llmrank.prompt_kinds import folder_of
from llmrank.sections import kind_of, make, mapping_of, take
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.choice import Chooser, Read
from llmrank.strategies.likelihood import Likelihood, LikelihoodOptions
from llmrank.strategies.lists import Lists, TextLists, TextOptions, TokenLists
from llmrank.strategies.listwise import Listwise, ListwiseOptions, SingleToken, SingleTokenOptions
from llmrank.template import Templates
from llmrank.writer import PromptOptions, PromptWriter

Section: TypeAlias = dict[str, Any]


def build_strategy(section: Mapping[str, Any], prompt: Mapping[str, Any] | None = None) -> BuiltStrategy:
    """Builds a strategy.

    Args:
        section: The section `strategy`: its `kind`, and options beside it.
        prompt: The section `prompt`.

    Raises:
        ConfigError: a key is unknown (the nearest is named), a value is wrong, or the template is one of another kind.
        TemplateError: there is no such template, or it is broken.
    """
    options = dict(section)
    kind = kind_of(options, "strategy", tuple(KINDS))
    return KINDS[kind](options, dict(prompt or {}))


def _listwise(options: Section, prompt: Section) -> BuiltStrategy:
    listwise = make(ListwiseOptions, options, "strategy", also=("kind",))
    return Listwise(_orders(prompt), listwise, repairer=_repairer(listwise, prompt))


def _single_token(options: Section, prompt: Section) -> BuiltStrategy:
    return SingleToken(_labels(prompt), make(SingleTokenOptions, options, "strategy", also=("kind",)))


def _tourrank(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.tourrank import TourRank, TourRankOptions

    tourrank = make(TourRankOptions, options, "strategy", also=("kind",))
    return TourRank(_lists(tourrank.read, tourrank, prompt), tourrank)


def _top_down(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.top_down import TopDown, TopDownOptions

    top_down = make(TopDownOptions, options, "strategy", also=("kind",))
    return TopDown(_lists(top_down.read, top_down, prompt), top_down)


def _likelihood(options: Section, prompt: Section) -> BuiltStrategy:
    likelihood = make(LikelihoodOptions, options, "strategy", also=("kind",))
    return Likelihood(_writer(prompt, "likelihood/next-line", history=10), likelihood)


def _query_likelihood(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.query_likelihood import QueryLikelihood, QueryLikelihoodOptions

    query_likelihood = make(QueryLikelihoodOptions, options, "strategy", also=("kind",))
    return QueryLikelihood(_writer(prompt, "query-likelihood/item-first", history=10), query_likelihood)


def _pointwise(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.pointwise import Pointwise, PointwiseOptions

    pointwise = make(PointwiseOptions, options, "strategy", also=("kind",))
    return Pointwise(_writer(prompt, f"pointwise/{pointwise.method}", answer="label"), pointwise)


def _pairwise(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.pairwise import Pairwise, PairwiseOptions

    pairwise = make(PairwiseOptions, options, "strategy", also=("kind",))
    return Pairwise(_writer(prompt, "pairwise/next", answer="label"), pairwise)


def _setwise(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.setwise import Setwise, SetwiseOptions

    setwise = make(SetwiseOptions, options, "strategy", also=("kind",))
    return Setwise(_writer(prompt, "setwise/next", answer="label"), setwise)


def _self_consistency(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.self_consistency import SelfConsistency, SelfConsistencyOptions

    of = take(options, "of")
    self_consistency = make(SelfConsistencyOptions, options, "strategy", also=("kind", "of"))
    return SelfConsistency(_inner(of, prompt), self_consistency)


def _calibrated(options: Section, prompt: Section) -> BuiltStrategy:
    from llmrank.strategies.calibrated import Calibrated, CalibratedOptions

    of = take(options, "of")
    calibrated = make(CalibratedOptions, options, "strategy", also=("kind", "of"))
    inner = _inner(of, prompt)
    # What stands for items without content is text that a model reads, so it comes from a template, too.
    directories = make(PromptOptions, prompt, "prompt").directories
    return Calibrated(inner, Templates(*directories).get(calibrated.content_free), calibrated)


def _inner(of: Section, prompt: Section) -> BuiltStrategy:
    """The strategy that a wrapper holds in `of`; what is wrong with it is named as it stands there."""
    inner = mapping_of(of.get("of"), "strategy.of")
    if not inner:
        raise ConfigError("is missing", field="strategy.of", fix="name the strategy to wrap: {of: {kind: listwise}}")
    try:
        return build_strategy(inner, prompt)
    except ConfigError as error:
        section, dot, key = error.field.partition(".")
        if section != "strategy":
            raise
        raise ConfigError(error.message, field=f"strategy.of{dot}{key}", value=error.value, fix=error.fix) from error


def _lists(read: Read, options: TextOptions, prompt: Section) -> Lists:
    """How lists of candidates are ordered: by text, or by one token."""
    if read == "text":
        return TextLists(_orders(prompt), options, repairer=_repairer(options, prompt))
    tokens, temperature, seed = options.max_tokens, options.temperature, options.seed
    return TokenLists(Chooser(_labels(prompt), read, max_tokens=tokens, temperature=temperature, seed=seed))


def _orders(prompt: Section) -> PromptWriter:
    """A writer whose prompts ask for all labels of a list in order."""
    return _writer(prompt, "listwise/sequential")


def _labels(prompt: Section) -> PromptWriter:
    """A writer whose prompts ask for one label out of a list."""
    return _writer(prompt, "single-token/sequential", answer="label")


def _repairer(options: TextOptions, prompt: Section) -> PromptWriter | None:
    return _writer({**prompt, "template": "listwise/repair"}, "listwise/repair") if options.repair else None


def _writer(prompt: Section, template: str, **defaults: Any) -> PromptWriter:
    """Writes the prompts of one kind of strategy.

    Args:
        prompt: The section `prompt`.
        template: The kind's own template, where none is named. One that is named may not come from a folder of another kind.
        defaults: What else holds for this kind where nothing is said.
    """
    options = make(PromptOptions, {"template": template, **defaults, **prompt}, "prompt")
    found, own = folder_of(options.template), folder_of(template)
    if found not in (None, own):
        raise ConfigError(
            f"a template under {found}/ asks for something else than this strategy reads",
            field="prompt.template",
            value=options.template,
            fix=f"leave it out, or use one under {own}/",
        )
    return PromptWriter(options, Templates(*options.directories))


KINDS: Mapping[str, Callable[[Section, Section], BuiltStrategy]] = {
    "listwise": _listwise,
    "single-token": _single_token,
    "tourrank": _tourrank,
    "top-down": _top_down,
    "likelihood": _likelihood,
    "query-likelihood": _query_likelihood,
    "pointwise": _pointwise,
    "pairwise": _pairwise,
    "setwise": _setwise,
    "self-consistency": _self_consistency,
    "calibrated": _calibrated,
}
"""Builds each kind of strategy from its section (without `kind`) and the section `prompt`."""
