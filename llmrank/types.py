"""The values that walk through llmrank: a RankRequest goes in, Prompts and Completions in between, a Ranking out.

All are frozen: a value is replaced, never changed. Nothing here imports anything heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmrank.errors import BackendError, LLMRankError
from llmrank.usage import Usage as Usage  # one of the values, for all who import this module
from llmrank.wish import Constraint as Constraint
from llmrank.wish import Wish as Wish

Status: TypeAlias = Literal["ok", "repaired", "partial", "fallback", "error"]
"""How an order came about.

ok        the model ranked every candidate and the answer had the form asked for
repaired  the model ranked every candidate, but the answer had to be repaired to read it, or an earlier step gave no text
partial   the model ranked some candidates; `Ranking.filled` names the others
fallback  the model answered, but nothing in it could be read as a ranking: prefilter order
error     the backend did not answer: prefilter order, and `Ranking.error` says why
"""

Capability: TypeAlias = Literal["generate", "score", "label_logprobs"]
"""What a backend can do: generate text, score given continuations, tell the labels' log-probabilities at the first token."""

AnswerFormat: TypeAlias = Literal["free", "order", "json", "label", "object"]
"""What a prompt asks the model to write, which a backend may enforce while decoding.

free   any text (an intermediate step)
order  every label once, best first: ``[B] > [A] > [C]``
json   the same as ``{"ranking": ["B", "A", "C"]}``
label  exactly one label
object  one JSON object of the form of `Prompt.schema`
"""

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be ranked. `id` is never shown to a model; `title` and chosen `attributes` are."""

    id: str
    title: str
    attributes: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a history: an item (or its catalogue id), when (Unix seconds) and how it was liked."""

    item: Item | str
    timestamp: float | None = None
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class RankRequest:
    """What a caller asks.

    Args:
        history: What the user chose before, oldest first: catalogue ids, Items or Events. May be empty.
        candidates: What to rank: catalogue ids or Items. None stands for the whole catalogue.
        query: What the user says they want, in a sentence; for new users it replaces the history.
        user_id: Comes back on the Ranking; never shown to a model.
        top_k: How many items to return; None for all that were ranked.
        constraints: What every item returned has to be; candidates that do not meet them are left out before anything is asked.
    """

    history: Sequence[str | Item | Event] = ()
    candidates: Sequence[str | Item] | None = None
    query: str | None = None
    user_id: str | None = None
    top_k: int | None = None
    constraints: Sequence[Constraint] = ()


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A RankRequest after the catalogue: every id has become an Item. This is what strategies see.

    `history` is oldest first, its Events hold Items. `candidates` has no id twice and is never empty. `wish` is what was read
    from `query`, where something has read it.
    """

    history: tuple[Event, ...]
    candidates: Sequence[Item]
    query: str | None = None
    user_id: str | None = None
    top_k: int | None = None
    constraints: tuple[Constraint, ...] = ()
    wish: Wish | None = None

    @property
    def history_items(self) -> tuple[Item, ...]:
        """The history's items, oldest first."""
        return tuple(event.item for event in self.history if isinstance(event.item, Item))


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a backend: a chat to answer (`messages`), or continuations to score after `prefix`.

    Attributes:
        messages: The chat; empty when continuations are scored.
        prefix: Raw text that precedes each continuation; no chat template is applied to it.
        continuations: The texts whose log-likelihood after `prefix` is wanted.
        labels: What the answer is made of: the labels shown to the model, in the order shown, or the words of a verdict about
            the one item in `item_ids`.
        item_ids: The items that the question is about; they never leave the process. They run parallel to labels that stand
            for items (or to `continuations`), and not to the words of a verdict.
        answer: The form of answer that the words of the prompt ask for.
        schema: For the form ``object``: the JSON Schema of the answer, an object whose members are all required.
        max_tokens: The most tokens the answer may have.
        temperature: 0 decodes greedily.
        seed: Passed to backends that know seeds.
        sample: Tells repeated samples of one prompt apart (it is part of the cache key).
        label_logprobs: True asks for the log-probability of each label as the answer's first token.
        fingerprint: The fingerprint of the template that made this prompt.
        shared: True for a question that is the same for every request, whose answer is worth keeping.
    """

    messages: tuple[Message, ...] = ()
    prefix: str = ""
    continuations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    item_ids: tuple[str, ...] = ()
    answer: AnswerFormat = "free"
    schema: Mapping[str, object] | None = field(default=None, hash=False)
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    sample: int = 0
    label_logprobs: bool = False
    fingerprint: str = ""
    shared: bool = False

    @property
    def kind(self) -> Literal["generate", "score"]:
        """Which of a backend's two methods this prompt is for."""
        return "score" if self.continuations else "generate"


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """The log-likelihood (natural logarithm, summed over `tokens`) of one continuation after the prompt's prefix."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A backend's answer to one Prompt.

    Attributes:
        text: The generated text; None if the model gave none. Reasoning that the server separated is in `reasoning`.
        finish_reason: ``stop``, ``length``, ``content_filter`` or what else the server said.
        scores: One per continuation, in order, when continuations were scored.
        label_logprobs: Natural-log probability of each label as the first token, when asked for. A label that the
            server did not report is absent.
        model: The model's name as the server reports it.
        notes: What the backend had to leave out or could not enforce, a sentence each.
        spared: What this answer had cost when it was computed, as far as it now came from the answer cache.
    """

    text: str | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    scores: tuple[ContinuationScore, ...] = ()
    label_logprobs: Mapping[str, float] | None = field(default=None, hash=False)
    reasoning: str | None = None
    model: str = ""
    notes: tuple[str, ...] = ()
    spared: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt and what came back: an answer or an error."""

    prompt: Prompt
    answer: Completion | BackendError


@dataclass(frozen=True, slots=True)
class Cut:
    """What a prompt does not show, and why.

    Attributes:
        history: Events (the oldest) that were left out because the window is too small for them. Events beyond the
            configured `prompt.history` are not counted here.
        item_texts: Ids of items whose text was shortened.
        seen: Ids of candidates left out because the user has them already.
        constrained: How many candidates do not meet the constraints of the request, or those read from its query.
        prefiltered: How many candidates the prefilter left out.
        assumed_window: The window in tokens that was assumed because neither the server nor the configuration names one.
    """

    history: int = 0
    item_texts: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    constrained: int = 0
    prefiltered: int = 0
    assumed_window: int | None = None


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One item at its place.

    Attributes:
        item: The item.
        rank: Its place, from 1.
        score: Higher is better; None where only an order is known.
        ranked_by: ``model``, or ``fallback`` where the model did not rank it.
        parts: After a fusion: what each part gave to `score`.
        scores: After a fusion: each part's own score, before it was brought to a common scale and weighed.
    """

    item: Item
    rank: int
    score: float | None = None
    ranked_by: Literal["model", "fallback"] = "model"
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """The item's id."""
        return self.item.id

    @property
    def title(self) -> str:
        """The item's title."""
        return self.item.title


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to a RankRequest: every candidate that was ranked, best first, and how that came about.

    Attributes:
        items: Best first; a permutation of the candidates that passed the prefilter, or its first `top_k`.
        status: See `Status`.
        repairs: What had to be repaired to read the answer, a sentence each.
        filled: Ids that the model did not rank. Those that an answer left out follow the ranked ones of their window in
            prefilter order; a window without a readable answer keeps its order, so its items may stand ahead of ranked ones.
        depth: How many first places the model was asked to put in order; it did not decide the order of what follows. None if
            it was asked for all places, and after a fusion.
        stability: Where several shuffles of the candidates were ranked: the mean of Kendall's tau over all pairs of the orders
            that came out, 1 if they are the same and 0 if they have nothing in common. Else None.
        invented: Labels or titles in the answer that name no candidate.
        cut: What the prompts did not show.
        usage: What was spent.
        spared: What the answers that came from the answer cache had cost when they were computed, and errors shared with an
            equal prompt of another ranking, which has their cost in `usage`.
        latency: Seconds that the model took: of each step's prompts, which are asked at once, the slowest, summed over steps.
            Waiting in our own queue does not count; an answer from the cache counts as long as it took when computed, a
            prompt that failed as long as was waited for it.
        shown: The candidates' ids in the order in which the strategy was given them, the prefilter's if there is one.
        error: Why there is no answer (status ``error``), or the last error of several prompts (status ``partial``).
        strategy, model: What ranked.
        fingerprint: The fingerprint of the template that made the prompts.
        user_id: From the request.
        notes: What the backend or the budget had to do without, a sentence each.
        wish: What was read from the query; None where nothing read it.
        trace: Every prompt with its raw answer.
    """

    items: tuple[RankedItem, ...]
    status: Status = "ok"
    repairs: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    depth: int | None = None
    stability: float | None = None
    invented: tuple[str, ...] = ()
    cut: Cut = Cut()
    usage: Usage = Usage()
    spared: Usage = Usage()
    latency: float = 0.0
    shown: tuple[str, ...] = ()
    error: LLMRankError | None = None
    strategy: str = ""
    model: str = ""
    fingerprint: str = ""
    user_id: str | None = None
    notes: tuple[str, ...] = ()
    wish: Wish | None = None
    trace: tuple[Exchange, ...] = field(default=(), repr=False)

    @property
    def item_ids(self) -> list[str]:
        """The ids, best first."""
        return [ranked.item.id for ranked in self.items]

    def raise_for_status(self) -> Ranking:
        """Returns the ranking itself, or raises its error if its status is ``error``."""
        if self.status == "error" and self.error is not None:
            raise self.error
        return self
