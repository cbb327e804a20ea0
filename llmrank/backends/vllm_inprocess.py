"""Prompts go in, Completions come out, by vLLM inside this process: whole batches at a time, no server.

Where a module is run as a script, guard it with ``if __name__ == "__main__"``: vLLM starts a process for its engine, which
imports the script again.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from time import monotonic
from typing import Any, Final, Literal

from llmrank.backends._batching import Batcher
from llmrank.backends._constrained import Constraint, decode, is_constrained
from llmrank.backends._label_tokens import LabelSpelling, faint_notes, label_place
from llmrank.backends._openai_errors import window_in
from llmrank.backends.base import BackendBase
from llmrank.codec import require_json
from llmrank.errors import BackendError, BadRequestError, ConfigError, ContextLengthError, ServerError, SetupError
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, ContinuationScore, Message, Prompt, Usage

REMEDY: Final = "pip install 'llmrank[vllm]'"
NOTHING_SCORED: Final = ContinuationScore(0.0, 0)


@dataclass(frozen=True, slots=True)
class VLLMInProcessOptions:
    """Which model vLLM loads, and how.

    Attributes:
        model: A folder in the Hugging Face format, or a model's name there.
        context_window: The window in tokens; None for the model's own.
        dtype: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        gpu_memory_utilization: The part of the accelerator's memory (of this machine's, on a CPU) that vLLM takes.
        max_batch: The most prompts (for scoring: continuations) handed to the engine at once; it schedules them itself.
        constrain: ``auto`` lets only answers of the form asked for be decoded; ``off`` does not.
        temperature: Used in place of each prompt's own; None uses the prompt's.
        engine: Further arguments of ``vllm.LLM`` (``{"enforce_eager": True, "tensor_parallel_size": 2}``).

    Raises:
        ConfigError: a value is out of its range.
    """

    model: str
    context_window: int | None = None
    dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    max_batch: int = 256
    constrain: Literal["auto", "off"] = "auto"
    temperature: float | None = None
    engine: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("is empty", field="backend.model", fix="give a model's folder or name")
        if self.constrain not in ("auto", "off"):
            raise ConfigError("unknown", field="backend.constrain", value=self.constrain, fix="use auto or off")
        for name, value, least in (
            ("context_window", self.context_window, 1),
            ("max_batch", self.max_batch, 1),
            ("temperature", self.temperature, 0),
        ):
            if value is not None and not (math.isfinite(value) and value >= least):
                why = "is too small" if value < least else "is no finite number"
                raise ConfigError(why, field=f"backend.{name}", value=value, fix=f"give at least {least}")
        require_json(dict(self.engine), "backend.engine")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                "is no part of the memory",
                field="backend.gpu_memory_utilization",
                value=self.gpu_memory_utilization,
                fix="give a number above 0, at most 1",
            )


class VLLMInProcessBackend(BackendBase):
    """A model that vLLM runs in this process. Safe to use from many tasks and from several event loops.

    The model is loaded by the first question, in the one thread that touches the engine. Prompts that wait at the same time
    are answered as one batch; a prompt that cannot be answered fails alone.

    Args:
        options: Which model, and how.

    Raises:
        SetupError: vLLM is not installed; the message names the remedy.
    """

    def __init__(self, options: VLLMInProcessOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise SetupError(f"the package 'vllm' is missing: {REMEDY}")
        super().__init__("vllm-inprocess", options.model)
        self.options = options
        self._batcher: Batcher[_Engine, _Task, _Reply] = Batcher(
            lambda: _Engine(options), _Engine.run, _Engine.close, max_batch=options.max_batch
        )

    def __repr__(self) -> str:
        return f"VLLMInProcessBackend(model={self.model!r})"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All three."""
        return frozenset({"generate", "score", "label_logprobs"})

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that shapes an answer. Batches do not, beyond the last digits of a log-probability."""
        settings = asdict(self.options)
        return {"kind": self.kind, **{name: settings[name] for name in settings if name != "max_batch"}}

    @property
    def concurrency(self) -> int:
        """A whole batch."""
        return self.options.max_batch

    @property
    def remote(self) -> bool:
        """It runs here."""
        return False

    async def info(self) -> ModelInfo:
        """The window and the model's own tokenizer. Loads the model.

        As everywhere, `count` leaves out special tokens; `score` takes up to two tokens more than the texts: what the tokenizer
        puts before a prompt (its BOS), and the one that vLLM has to decode.

        Raises:
            SetupError: vLLM cannot load it.
        """
        engine = await asyncio.wrap_future(self._batcher.engine())
        return ModelInfo(engine.window, engine)

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat; with all formats but ``free`` only an answer of that form can be decoded.

        Raises:
            BackendError: one of its subclasses.
        """
        if self.options.constrain == "off" or not is_constrained(prompt):
            return await self._ask(prompt)
        answer, enforced = await decode(prompt, self._ask)
        if enforced:
            return answer
        return replace(
            answer, notes=(*answer.notes, f"vLLM did not enforce the answer's form ({prompt.answer}) while decoding")
        )

    async def score(self, prompt: Prompt) -> Completion:
        """The log-likelihood of each continuation after the prefix; the two are tokenized apart, as by the kind ``vllm``.

        Raises:
            ContextLengthError: the prefix and a continuation are longer than the window.
            BackendError: one of its other subclasses.
        """
        started = monotonic()
        tasks = [_Task(prefix=prompt.prefix, continuation=text) for text in prompt.continuations]
        replies = await asyncio.gather(*(self._answered(task) for task in tasks))
        return Completion(
            finish_reason="stop",
            usage=replace(reduce(Usage.__add__, (reply.usage for reply in replies), Usage()), seconds=monotonic() - started),
            scores=tuple(reply.score for reply in replies),
            model=self.model,
        )

    async def aclose(self) -> None:
        """Frees the engine and its memory. A later question loads the model again."""
        await asyncio.wrap_future(self._batcher.close())

    async def _ask(self, prompt: Prompt, constraint: Constraint | None = None, *, continued: bool = False) -> Completion:
        started = monotonic()
        temperature = prompt.temperature if self.options.temperature is None else self.options.temperature
        task = _Task(
            messages=prompt.messages,
            continued=continued,
            constraint=constraint,
            labels=prompt.labels if prompt.label_logprobs else (),
            max_tokens=prompt.max_tokens,
            temperature=temperature,
            seed=prompt.seed,
        )
        reply = await self._answered(task)
        return Completion(
            text=reply.text,
            finish_reason=reply.finish_reason,
            usage=replace(reply.usage, seconds=monotonic() - started),
            label_logprobs=reply.label_logprobs if prompt.label_logprobs else None,
            model=self.model,
            notes=faint_notes(reply.label_logprobs or {}),
        )

    async def _answered(self, task: _Task) -> _Reply:
        return await asyncio.wrap_future(self._batcher.submit(task))


@dataclass(frozen=True, slots=True)
class _Task:
    """One prompt for the engine: a chat to answer, or (where `messages` is empty) a continuation to score."""

    messages: tuple[Message, ...] = ()
    continued: bool = False
    constraint: Constraint | None = None
    labels: tuple[str, ...] = ()
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int | None = None
    prefix: str = ""
    continuation: str = ""


@dataclass(frozen=True, slots=True)
class _Reply:
    """What the engine made of a task."""

    usage: Usage = field(default_factory=Usage)
    text: str | None = None
    finish_reason: str | None = None
    label_logprobs: Mapping[str, float] | None = None
    score: ContinuationScore = NOTHING_SCORED


@dataclass(frozen=True, slots=True)
class _Ready:
    """A task in the engine's terms: token ids, sampling parameters, and how to read the output."""

    task: _Task
    ids: list[int]
    params: Any
    scored: int = 0
    label_ids: Mapping[int, str] = field(default_factory=dict)


class _Engine:
    """vLLM's ``LLM`` and its tokenizer; a TokenCounter. Opened, run and closed by one thread; counting is free to all.

    Raises:
        SetupError: the model cannot be loaded.
    """

    remote = False

    def __init__(self, options: VLLMInProcessOptions) -> None:
        import vllm

        sized = {} if options.context_window is None else {"max_model_len": options.context_window}
        try:
            self._llm = vllm.LLM(
                model=options.model,
                dtype=options.dtype,
                gpu_memory_utilization=options.gpu_memory_utilization,
                **sized,
                **options.engine,
            )
        except Exception as error:  # vLLM has no class for it: a missing folder, too little memory, a wrong argument
            raise SetupError(
                f"vLLM cannot load {options.model!r} ({_first_line(error)}); "
                "give the folder of a model in the Hugging Face format, and engine arguments that fit this machine"
            ) from error
        self._model = options.model
        self._tokenizer = self._llm.get_tokenizer()
        self._defaults: dict[str, Any] = dict(self._llm.model_config.get_diff_sampling_param())
        self.window: int = self._llm.model_config.max_model_len
        # Tokenizers change their own settings while they work, so two threads must not use one at once.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The model whose tokenizer counts."""
        return f"the tokenizer of {self._model}"

    def count(self, text: str) -> int:
        """The number of tokens of a text, without special tokens."""
        return len(self._ids(text, special=False))

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of prompt tokens of a chat, with all that the chat template adds."""
        return len(self._chat_ids(messages, continued=False))

    def close(self) -> None:
        """Ends the engine's process and frees its memory."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm

    def run(self, tasks: Sequence[_Task]) -> list[_Reply | Exception]:
        """Answers a batch; a task that cannot be answered has its error in its place."""
        from vllm.exceptions import VLLMClientError

        outcomes: list[_Reply | Exception] = [_Reply() for _ in tasks]
        ready: dict[int, _Ready] = {}
        for place, task in enumerate(tasks):
            if not task.messages and not task.continuation:
                continue  # an empty continuation is certain
            try:
                ready[place] = self._prepare(task)
            except BackendError as error:
                outcomes[place] = error
            except (VLLMClientError, ValueError, TypeError) as error:  # sampling parameters out of their range
                outcomes[place] = _refused(error)
        for place, outcome in zip(ready, self._generate(list(ready.values())), strict=True):
            outcomes[place] = outcome
        return outcomes

    def _generate(self, batch: list[_Ready]) -> list[_Reply | Exception]:
        from vllm.exceptions import VLLMClientError

        if not batch:
            return []
        try:
            outputs = self._llm.generate(
                [{"prompt_token_ids": ready.ids} for ready in batch], [ready.params for ready in batch], use_tqdm=False
            )
        except (VLLMClientError, ValueError, TypeError) as error:
            if len(batch) > 1:
                # vLLM refuses a batch for the sake of one prompt, and does not say which.
                return [outcome for ready in batch for outcome in self._generate([ready])]
            return [_refused(error)]
        except Exception as error:  # the engine's process died, or ran out of memory: nothing that vLLM has one class for
            return [ServerError(f"vLLM failed: {_first_line(error)}") for _ in batch]
        return [_reply(ready, output) for ready, output in zip(batch, outputs, strict=True)]

    def _prepare(self, task: _Task) -> _Ready:
        import vllm
        from vllm.sampling_params import StructuredOutputsParams

        if not task.messages:
            prefix, continuation = self._ids(task.prefix, special=True), self._ids(task.continuation, special=False)
            if not prefix:
                raise BadRequestError(
                    "continuations cannot be scored after an empty prefix: give the template's text at least a word"
                )
            self._check_length(len(prefix) + len(continuation))
            params = vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
            return _Ready(task, [*prefix, *continuation], params, scored=len(continuation))
        try:
            ids = self._chat_ids(task.messages, continued=task.continued)
        except Exception as error:  # templates raise what they like: TemplateError, ValueError, AttributeError
            raise BadRequestError(f"the chat template of {self._model} refuses this chat: {_first_line(error)}") from error
        self._check_length(len(ids))
        label_ids = self._label_ids(task.labels)
        settings: dict[str, Any] = {
            "max_tokens": min(task.max_tokens, self.window - len(ids)),
            "temperature": task.temperature,
            "seed": task.seed,
        }
        if label_ids:
            settings["logprob_token_ids"] = list(label_ids)
        if task.constraint is not None:
            kind, value = task.constraint
            settings["structured_outputs"] = StructuredOutputsParams(**{kind: list(value) if kind == "choice" else value})
        return _Ready(task, ids, vllm.SamplingParams(**{**self._defaults, **settings}), label_ids=label_ids)

    def _check_length(self, tokens: int) -> None:
        if tokens >= self.window:  # at least one token has to be decoded
            raise ContextLengthError(
                f"the prompt has {tokens} tokens; the window of {self._model} is {self.window}", window=self.window
            )

    def _label_ids(self, labels: Sequence[str]) -> dict[int, str]:
        """The tokens that spell a label whole: as it is, after a space, and a word in another case."""
        spelt = [(self._ids(text, special=False), label) for text, label in LabelSpelling(labels).texts()]
        found: dict[int, str] = {}
        for ids, label in spelt:
            if len(ids) == 1:
                found.setdefault(ids[0], label)
        return found

    def _ids(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            return list(self._tokenizer.encode(text, add_special_tokens=special))

    def _chat_ids(self, messages: Sequence[Message], *, continued: bool) -> list[int]:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        with self._lock:
            ids = self._tokenizer.apply_chat_template(
                chat, tokenize=True, return_dict=False, add_generation_prompt=not continued, continue_final_message=continued
            )
        return list(ids)


def _reply(ready: _Ready, output: Any) -> _Reply:
    """Reads vLLM's RequestOutput."""
    generated = output.outputs[0]
    usage = Usage(
        prompt_tokens=len(ready.ids),
        completion_tokens=len(generated.token_ids),
        cached_tokens=output.num_cached_tokens or 0,
        calls=1,
    )
    if ready.scored:
        tail = zip(ready.ids[-ready.scored :], output.prompt_logprobs[-ready.scored :], strict=True)
        score = ContinuationScore(math.fsum(entry[token].logprob for token, entry in tail), ready.scored)
        return _Reply(usage=usage, score=score)
    label_logprobs = None
    if ready.task.labels:
        label_logprobs = _label_logprobs(generated, ready.label_ids)
    return _Reply(usage, generated.text, generated.finish_reason, label_logprobs)


def _label_logprobs(generated: Any, label_ids: Mapping[int, str]) -> dict[str, float] | None:
    """The log-probability of each label where the answer begins; None if it is reasoning without an end."""
    steps = generated.logprobs or []
    place = label_place([step[token].decoded_token or "" for token, step in zip(generated.token_ids, steps, strict=False)])
    if place is None:
        return None
    first = steps[place] if place < len(steps) else {}
    masses: dict[str, float] = {}
    for token, label in label_ids.items():
        if token in first and first[token].logprob > -math.inf:
            masses[label] = masses.get(label, 0.0) + math.exp(first[token].logprob)
    return {label: min(0.0, math.log(mass)) for label, mass in masses.items() if mass > 0}


def _refused(error: Exception) -> BackendError:
    window = window_in(str(error))
    message = f"vLLM refuses the prompt: {_first_line(error)}"
    return BadRequestError(message) if window is None else ContextLengthError(message, window=window)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
