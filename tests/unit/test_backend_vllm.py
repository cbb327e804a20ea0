"""The vLLM backend against servers that are not quite vLLM: old ones, gateways, refusals (the real one: tests/integration)."""

from __future__ import annotations

import asyncio
import datetime
import importlib.util
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from llmrank.backends.vllm_inprocess import VLLMInProcessBackend, VLLMInProcessOptions
from llmrank.errors import (
    BadRequestError,
    ConfigError,
    ConstraintIgnoredError,
    LLMRankError,
    ModelNotFoundError,
    ServerError,
    SetupError,
    UnreachableError,
)
from llmrank.protocols import Backend
from llmrank.types import AnswerFormat, Message, Prompt

PROMPT = Prompt((Message("user", "Rank these."),), labels=("A", "B", "C"), answer="order")
FREE_TEXT = "I would start with B, then A."
OBEYED: dict[str, str] = {
    "order": "[B] > [A] > [C]",
    "json": '{"ranking": ["B", "A", "C"]}',
    "label": "B",
    "object": '{"wishes": ["funny"]}',
}
SCHEMA = {
    "type": "object",
    "properties": {"wishes": {"type": "array", "items": {"type": "string"}, "maxItems": 3}},
    "required": ["wishes"],
    "additionalProperties": False,
}


@dataclass
class Imitation:
    """A server with the paths of vLLM.

    Attributes:
        obeys: The fields whose constraint it enforces; those it does not know it ignores, with status 200.
        refuses: Words in a request's body that it answers with 400, and its message.
        models: What it serves.
        tokenizes: False where a gateway passes on ``/v1`` alone.
        lists_models: False where a gateway has no list of models.
        answer: The form of its answer where it obeys.
        text, finish_reason: Its answer where it does not.
        asked: The bodies of all chat and completion requests.
    """

    obeys: tuple[str, ...] = ()
    refuses: dict[str, str] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m", "max_model_len": 2048, "parent": None}])
    tokenizes: bool = True
    lists_models: bool = True
    answer: AnswerFormat = "order"
    text: str = FREE_TEXT
    finish_reason: str = "stop"
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)

    def app(self) -> web.Application:
        """The server's paths."""
        app = web.Application()
        if self.lists_models:
            app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.complete)
        if self.tokenizes:
            app.router.add_post("/tokenize", self.tokenize)
        return app

    async def list_models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        self.authorizations.add(request.headers.get("Authorization"))
        return web.json_response({"object": "list", "data": self.models})

    async def tokenize(self, request: web.Request) -> web.Response:
        """A token is a character."""
        self.authorizations.add(request.headers.get("Authorization"))
        body = await request.json()
        if body["model"] not in {model["id"] for model in self.models}:
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            return web.json_response({"error": error}, status=404)
        text = body.get("prompt") or "".join(message["content"] for message in body["messages"])
        return web.json_response({"count": len(text), "tokens": [ord(char) for char in text], "max_model_len": 2048})

    async def chat(self, request: web.Request) -> web.Response:
        """Free text, or the right one where a field that it obeys is there."""
        body = await request.json()
        self.asked.append(body)
        for word, message in self.refuses.items():
            if word in body:
                return web.json_response({"error": {"message": message, "code": 400}}, status=400)
        obeyed = any(name in body for name in self.obeys)
        return web.json_response(
            {
                "model": body["model"],
                "choices": [
                    {
                        "message": {"role": "assistant", "content": OBEYED[self.answer] if obeyed else self.text},
                        "finish_reason": "stop" if obeyed else self.finish_reason,
                    }
                ],
                "usage": {"prompt_tokens": 11, "completion_tokens": 7},
            }
        )

    async def complete(self, request: web.Request) -> web.Response:
        """A completion without log-probabilities: another server's."""
        self.asked.append(await request.json())
        return web.json_response({"choices": [{"index": 0, "text": "x"}], "usage": {}})


class Connect:
    """Starts imitations and connects backends to them."""

    def __init__(self) -> None:
        self.servers: list[TestServer] = []
        self.backends: list[VLLMBackend] = []

    async def __call__(self, imitation: Imitation, options: VLLMOptions | None = None) -> VLLMBackend:
        """A backend that reaches the imitation."""
        server = TestServer(imitation.app())
        await server.start_server()
        self.servers.append(server)
        backend = VLLMBackend(replace(options or VLLMOptions(), base_url=str(server.make_url("/")).rstrip("/"), timeout_s=20))
        self.backends.append(backend)
        return backend

    async def close(self) -> None:
        """Closes all."""
        for backend in self.backends:
            await backend.aclose()
        for server in self.servers:
            await server.close()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Starts imitations; all are closed at the end."""
    made = Connect()
    yield made
    await made.close()


def constraints_in(body: dict[str, Any]) -> set[str]:
    """The names of the constraints in a request."""
    return {name for name in body if name.startswith(("guided", "structured"))}


async def test_a_server_that_ignores_constraints_is_noticed(connect: Connect) -> None:
    """Status 200 with free text: each field is tried once, then none; the answer comes back with a note."""
    imitation = Imitation()
    backend = await connect(imitation)
    first = await backend.generate(PROMPT)
    second = await backend.generate(PROMPT)
    assert [constraints_in(body) for body in imitation.asked] == [{"structured_outputs"}, {"guided_grammar"}, set()]
    for answer in (first, second):
        assert answer.text == FREE_TEXT
        assert any("did not enforce" in note for note in answer.notes)


async def test_an_object_is_decoded_by_its_schema(connect: Connect) -> None:
    """The schema goes along as the constraint, and nothing else asks for JSON; an old server gets it by its old name."""
    for obeys, sent in (("structured_outputs", {"json": SCHEMA}), ("guided_json", SCHEMA)):
        imitation = Imitation(obeys=(obeys,), answer="object")
        backend = await connect(imitation)
        answer = await backend.generate(replace(PROMPT, labels=(), answer="object", schema=SCHEMA))
        assert (answer.text, answer.notes) == (OBEYED["object"], ())
        assert imitation.asked[-1][obeys] == sent
        assert "response_format" not in imitation.asked[-1]


@pytest.mark.parametrize("text", [FREE_TEXT, '{"likes": []}', "[1]", "{"])
async def test_an_object_of_another_form_is_noticed(connect: Connect, text: str) -> None:
    """Words, an object that lacks what is required, a list, half an object: a note says that nothing was enforced."""
    backend = await connect(Imitation(text=text))
    answer = await backend.generate(replace(PROMPT, labels=(), answer="object", schema=SCHEMA))
    assert answer.text == text
    assert any("did not enforce the answer's form (object)" in note for note in answer.notes)


@pytest.mark.parametrize("answer", ["order", "json", "label"])
async def test_an_old_server_is_spoken_to_in_its_own_words(connect: Connect, answer: AnswerFormat) -> None:
    """A server that knows only ``guided_*`` is found out by its first answer, and remembered."""
    old = "guided_choice" if answer == "label" else "guided_grammar"
    imitation = Imitation(obeys=(old,), answer=answer)
    backend = await connect(imitation)
    answers = [await backend.generate(replace(PROMPT, answer=answer)) for _ in range(2)]
    assert [completion.text for completion in answers] == [OBEYED[answer]] * 2
    assert [completion.notes for completion in answers] == [()] * 2
    assert [constraints_in(body) for body in imitation.asked] == [{"structured_outputs"}, {old}, {old}]


async def test_many_first_prompts_find_out_the_same(connect: Connect) -> None:
    """Twenty first prompts at once to a server that ignores constraints: all are answered, all with the note."""
    backend = await connect(Imitation())
    answers = await asyncio.gather(*(backend.generate(replace(PROMPT, sample=sample)) for sample in range(20)))
    assert all(any("did not enforce" in note for note in answer.notes) for answer in answers)


async def test_one_odd_answer_is_no_reason_to_give_up(connect: Connect) -> None:
    """A server that has obeyed before is asked with the constraint again after an answer of another form."""
    imitation = Imitation(obeys=("structured_outputs",))
    backend = await connect(imitation)
    await backend.generate(PROMPT)
    imitation.obeys = ()
    odd = await backend.generate(PROMPT)
    assert any("did not enforce" in note for note in odd.notes)
    imitation.obeys = ("structured_outputs",)
    assert (await backend.generate(PROMPT)).notes == ()
    assert [constraints_in(body) for body in imitation.asked] == [{"structured_outputs"}] * 3


async def test_required_means_required(connect: Connect) -> None:
    """With ``constrain: required`` disobedience is an error, at once once it is known."""
    imitation = Imitation()
    backend = await connect(imitation, VLLMOptions(constrain="required"))
    for _ in range(2):
        with pytest.raises(ConstraintIgnoredError, match="order"):
            await backend.generate(PROMPT)
    assert len(imitation.asked) == 2


async def test_off_means_off(connect: Connect) -> None:
    """With ``constrain: off`` nothing is asked for and nothing is noted."""
    imitation = Imitation()
    backend = await connect(imitation, VLLMOptions(constrain="off"))
    assert (await backend.generate(PROMPT)).notes == ()
    assert (await backend.generate(replace(PROMPT, answer="json"))).notes == ()
    assert [constraints_in(body) for body in imitation.asked] == [set()] * 2
    assert not any("response_format" in body for body in imitation.asked)


async def test_json_falls_back_to_a_schema(connect: Connect) -> None:
    """Where neither field is obeyed, JSON is still asked for by the standard's ``response_format``."""
    imitation = Imitation()
    backend = await connect(imitation)
    for _ in range(2):
        await backend.generate(replace(PROMPT, answer="json"))
    assert imitation.asked[-1]["response_format"]["type"] == "json_schema"


async def test_an_empty_answer_proves_nothing(connect: Connect) -> None:
    """A model that used all its tokens to think wrote nothing: whether the server obeys is still open."""
    imitation = Imitation(text="", finish_reason="length")
    backend = await connect(imitation)
    assert (await backend.generate(PROMPT)).finish_reason == "length"
    imitation.text, imitation.finish_reason = FREE_TEXT, "stop"
    await backend.generate(PROMPT)
    assert [constraints_in(body) for body in imitation.asked] == [{"structured_outputs"}] * 2 + [{"guided_grammar"}]


async def test_a_refused_grammar_is_like_an_ignored_one(connect: Connect) -> None:
    """A server whose engine takes no grammars answers 400: the prompt is then asked without one."""
    refused = "The provided grammar is not supported by the backend outlines"
    imitation = Imitation(refuses={"structured_outputs": refused, "guided_grammar": refused})
    backend = await connect(imitation)
    answer = await backend.generate(PROMPT)
    assert answer.text == FREE_TEXT
    assert any("did not enforce" in note for note in answer.notes)


async def test_priority_is_sent_only_if_set_and_its_refusal_is_told(connect: Connect) -> None:
    """A server without priority scheduling may refuse a priority: its words reach the caller."""
    words = "Got priority 5 but Priority scheduling is not enabled."
    imitation = Imitation(obeys=("structured_outputs",), refuses={"priority": words})
    await (await connect(imitation)).generate(PROMPT)
    assert "priority" not in imitation.asked[0]
    with pytest.raises(BadRequestError, match="Priority scheduling is not enabled"):
        await (await connect(imitation, VLLMOptions(priority=5))).generate(PROMPT)
    assert imitation.asked[1]["priority"] == 5


async def test_a_gateway_without_tokenizer_answers_and_cannot_score(connect: Connect) -> None:
    """Without ``/tokenize``, tokens are counted by a stand-in, prompts are answered; scoring says what is missing."""
    backend = await connect(Imitation(obeys=("structured_outputs",), tokenizes=False))
    info = await backend.info()
    assert info.counter is not None
    assert not info.counter.remote
    assert (await backend.generate(replace(PROMPT, label_logprobs=True))).text == OBEYED["order"]
    with pytest.raises(ModelNotFoundError, match="kind openai"):
        await backend.score(Prompt(prefix="Films:", continuations=("Alien",)))


async def test_a_server_without_prompt_logprobs_is_told_apart(connect: Connect) -> None:
    """An answer that has no scores is an error, not a score of nothing."""
    backend = await connect(Imitation())
    with pytest.raises(ServerError, match="prompt_logprobs"):
        await backend.score(Prompt(prefix="Films:", continuations=("Alien",)))


async def test_the_only_model_is_found(connect: Connect) -> None:
    """Without a name the one model served is used; an adapter beside it does not count; window and counter are the server's."""
    adapter = {"id": "lora", "parent": "m", "max_model_len": None}
    imitation = Imitation(models=[{"id": "m", "parent": None, "max_model_len": 2048}, adapter])
    backend = await connect(imitation)
    info = await backend.info()
    assert (backend.model, backend.identity["model"], info.context_window) == ("m", "m", 2048)
    assert info.counter is not None
    assert info.counter.remote
    assert await asyncio.to_thread(info.counter.count, "four") == 4
    assert await asyncio.to_thread(info.counter.count_messages, PROMPT.messages) == len("Rank these.")
    adapted = await connect(imitation, VLLMOptions(model="lora"))
    assert (await adapted.info()).context_window == 2048


@pytest.mark.parametrize("names", [[], ["a", "b"]])
async def test_no_model_or_several_need_a_name(connect: Connect, names: list[str]) -> None:
    """With none or several models served, the configuration has to name one; the error lists them."""
    backend = await connect(Imitation(models=[{"id": name} for name in names]))
    with pytest.raises(ConfigError, match=r"backend\.model") as caught:
        await backend.info()
    assert all(name in str(caught.value) for name in names)


async def test_thinking_tokens_are_kept_free_in_the_window(connect: Connect) -> None:
    """Prompt and answer get what the thinking leaves of the server's window; nothing left is an error that names the key."""
    backend = await connect(Imitation(), VLLMOptions(thinking_tokens=1500))
    assert (await backend.info()).context_window == 548
    backend = await connect(Imitation(), VLLMOptions(thinking_tokens=2048))
    with pytest.raises(ConfigError, match=r"backend\.thinking_tokens.*2048 tokens"):
        await backend.info()


async def test_a_gateway_without_a_list_of_models_needs_a_name(connect: Connect) -> None:
    """With a name, the list is not needed, and the window is unknown; without one, its absence is the error."""
    imitation = Imitation(obeys=("structured_outputs",), lists_models=False)
    named = await connect(imitation, VLLMOptions(model="m"))
    assert (await named.info()).context_window is None
    assert (await named.generate(PROMPT)).text == OBEYED["order"]
    with pytest.raises(ModelNotFoundError):
        await (await connect(imitation)).info()


async def test_an_unknown_model_is_told(connect: Connect) -> None:
    """The server's tokenizer knows no such model: no prompt is needed to find out."""
    backend = await connect(Imitation(), VLLMOptions(model="nope"))
    with pytest.raises(ModelNotFoundError, match="nope"):
        await backend.info()


async def test_the_key_goes_to_the_server_and_nowhere_else(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """API and tokenizer get the key of the environment variable; neither `repr` nor `identity` has it."""
    monkeypatch.setenv("MY_VLLM_KEY", "secret-key-123")
    imitation = Imitation()
    backend = await connect(imitation, VLLMOptions(api_key_env="MY_VLLM_KEY"))
    await backend.info()
    assert imitation.authorizations == {"Bearer secret-key-123"}
    assert "secret-key-123" not in repr(backend) + repr(backend.options) + repr(backend.identity)


async def test_an_unreachable_server_is_named() -> None:
    """Nobody listens: the error names host and port."""
    backend = VLLMBackend(VLLMOptions(base_url="http://127.0.0.1:9", timeout_s=20))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        await backend.info()
    await backend.aclose()
    await backend.aclose()


def test_it_is_a_backend_that_can_do_everything() -> None:
    """It satisfies the protocol, and scores."""
    backend = VLLMBackend(VLLMOptions(model="m"))
    assert isinstance(backend, Backend)
    assert backend.capabilities == {"generate", "score", "label_logprobs"}
    assert backend.kind == "vllm"


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("http://box:8000", "http://box:8000/v1"),
        ("http://box:8000/", "http://box:8000/v1"),
        ("http://box/llm/v1/", "http://box/llm/v1"),
    ],
)
def test_v1_is_added_to_a_bare_address(url: str, api: str) -> None:
    """The address that people copy from vLLM's log works."""
    assert VLLMOptions(base_url=url).api_url == api


@pytest.mark.parametrize(
    ("make", "field_name"),
    [
        (lambda: VLLMOptions(base_url="box:8000"), "base_url"),
        (lambda: VLLMOptions(constrain="maybe"), "backend.constrain"),  # type: ignore[arg-type]  # the error is the test
        (lambda: VLLMOptions(timeout_s=0), "backend.timeout_s"),
        (lambda: VLLMOptions(thinking_tokens=-1), "backend.thinking_tokens"),
        (lambda: VLLMOptions(context_window=512, thinking_tokens=512), "backend.thinking_tokens"),
        (lambda: VLLMOptions(temperature=math.inf), "backend.temperature"),
        (lambda: VLLMOptions(extra_body={"since": datetime.date(2026, 1, 1)}), "backend.extra_body"),
        (lambda: VLLMOptions(extra_body={"top_p": math.nan}), "backend.extra_body"),
        (lambda: VLLMInProcessOptions(model="m", temperature=math.nan), "backend.temperature"),
        (lambda: VLLMInProcessOptions(model="m", engine={"dtype": object()}), "backend.engine"),
        (lambda: VLLMInProcessOptions(model=""), "backend.model"),
        (lambda: VLLMInProcessOptions(model="m", max_batch=0), "backend.max_batch"),
        (lambda: VLLMInProcessOptions(model="m", gpu_memory_utilization=2), "backend.gpu_memory_utilization"),
        (lambda: VLLMInProcessOptions(model="m", constrain="required"), "backend.constrain"),  # type: ignore[arg-type]  # the error is the test
    ],
)
def test_wrong_options_are_named(make: Callable[[], object], field_name: str) -> None:
    """Each wrong value gives an error that names its key."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field_name


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_package_names_its_remedy() -> None:
    """Without vLLM the in-process backend says in one line what to install."""
    with pytest.raises(SetupError, match=r"pip install 'llmrank\[vllm\]'") as caught:
        VLLMInProcessBackend(VLLMInProcessOptions(model="m"))
    assert isinstance(caught.value, LLMRankError)
    assert "\n" not in str(caught.value)
