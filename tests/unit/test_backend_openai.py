"""The OpenAI backend against a real HTTP server on the loopback: requests, answers, connections, the model's window."""

from __future__ import annotations

import asyncio
import base64
import datetime
import gc
import json
import logging
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._openai_chat import label_logprobs
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigError,
    ContentFilterError,
    ContextLengthError,
    ServerError,
    SetupError,
    UnreachableError,
)
from llmrank.protocols import Backend
from llmrank.types import Message, Prompt, Usage
from tests.servers.picky import PickyServer, Reply, Request, completion, free_port, openai_error, picky

KEY = "sk-test-0123456789abcdef"
PROMPT = Prompt(messages=(Message("system", "Rank."), Message("user", "A or B?")), labels=("A", "B"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on, or sends, what the developer's machine has set."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PICKY_KEY", KEY)


@pytest.fixture
def server() -> Iterator[PickyServer]:
    """A server that answers everything like a chat."""
    with picky() as running:
        yield running


def backend_at(url: str, **options: Any) -> OpenAIBackend:
    """A backend for the server at `url`."""
    return OpenAIBackend(
        OpenAIOptions(**{"model": "m", "base_url": url, "api_key_env": "PICKY_KEY", "timeout_s": 20, **options})
    )


async def test_generate_sends_a_chat_and_reads_the_answer(server: PickyServer) -> None:
    """Messages, limit, temperature and seed go out as the protocol names them; text, usage and model come back."""
    backend = backend_at(server.url, extra_body={"top_p": 0.9})
    answer = await backend.generate(Prompt(messages=PROMPT.messages, max_tokens=7, temperature=0.5, seed=3))
    await backend.aclose()

    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Rank."}, {"role": "user", "content": "A or B?"}],
            "max_tokens": 7,
            "temperature": 0.5,
            "seed": 3,
            "top_p": 0.9,
        }
    ]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert (answer.text, answer.finish_reason, answer.model, answer.notes) == ("[A] > [B]", "stop", "picky-1", ())
    assert answer.usage.seconds > 0
    assert answer.usage == Usage(prompt_tokens=11, completion_tokens=5, cached_tokens=4, calls=1, seconds=answer.usage.seconds)


async def test_it_is_a_backend(server: PickyServer) -> None:
    """The backend satisfies the protocol that the Ranker is built on."""
    assert isinstance(backend_at(server.url), Backend)


async def test_json_prompts_carry_a_strict_schema_with_the_labels(server: PickyServer) -> None:
    """Only the labels, as many as there are, can be decoded where the server enforces schemas."""
    backend = backend_at(server.url)
    await backend.generate(Prompt(messages=PROMPT.messages, labels=("A", "B", "C"), answer="json"))
    await backend.aclose()
    form = server.bodies[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    ranking = form["json_schema"]["schema"]["properties"]["ranking"]
    assert ranking == {"type": "array", "items": {"type": "string", "enum": ["A", "B", "C"]}, "minItems": 3, "maxItems": 3}


async def test_object_prompts_carry_their_own_schema(server: PickyServer) -> None:
    """The schema of the prompt is sent as it is, strictly; without one, any JSON object is asked for."""
    schema = {"type": "object", "properties": {"wishes": {"type": "array", "maxItems": 3}}, "required": ["wishes"]}
    backend = backend_at(server.url)
    await backend.generate(Prompt(messages=PROMPT.messages, answer="object", schema=schema))
    await backend.generate(Prompt(messages=PROMPT.messages, answer="object"))
    await backend.aclose()
    first, second = (body["response_format"] for body in server.bodies)
    assert first == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    assert second == {"type": "json_object"}


async def test_extra_body_wins_over_our_own_fields(server: PickyServer) -> None:
    """What the user fixes replaces llmrank's field, whichever of the limit's two names they use."""
    backend = backend_at(server.url, extra_body={"temperature": 0.7, "max_completion_tokens": 9})
    await backend.generate(PROMPT)
    await backend.aclose()
    assert server.bodies[0]["temperature"] == 0.7
    assert "max_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 9


async def test_temperature_and_thinking_tokens_change_every_prompt(server: PickyServer) -> None:
    """The options replace the prompt's temperature and add to its limit."""
    backend = backend_at(server.url, temperature=1.0, thinking_tokens=1000)
    await backend.generate(Prompt(messages=PROMPT.messages, max_tokens=10))
    await backend.aclose()
    assert (server.bodies[0]["temperature"], server.bodies[0]["max_tokens"]) == (1.0, 1010)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "x", "reasoning_content": "hm"}, "x", "hm"),
        ({"content": "x", "reasoning": "hm"}, "x", "hm"),
        ({"content": "x", "reasoning": None}, "x", None),
        ({"content": "x", "reasoning": "hm", "reasoning_content": "hm"}, "x", "hm"),
        ({"content": None}, None, None),
        ({"content": ""}, "", None),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]},
            "x",
            "hm",
        ),
        ({"content": None, "refusal": "I can't."}, "I can't.", None),
    ],
)
async def test_text_and_reasoning_are_told_apart(message: dict[str, Any], text: str | None, reasoning: str | None) -> None:
    """Every server's place for reasoning is read, and reasoning never becomes the answer's text."""
    with picky(answer=Reply(completion(message={"role": "assistant", **message}))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(PROMPT)
        await backend.aclose()
    assert (answer.text, answer.reasoning) == (text, reasoning)


async def test_missing_usage_counts_nothing_and_says_so() -> None:
    """A server without usage is not an error, and its zeros are not silent."""
    with picky(answer=Reply(completion(usage=None))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(PROMPT)
        await backend.aclose()
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.calls) == (0, 0, 1)
    assert any("no token usage" in note for note in answer.notes)


async def test_an_answer_cut_at_the_limit_before_any_text_says_so() -> None:
    """A model that thinks until the limit gives no text; the note names the remedy."""
    with picky(answer=Reply(completion(None, finish_reason="length"))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(PROMPT)
        await backend.aclose()
    assert (answer.text, answer.finish_reason) == (None, "length")
    assert any("thinking_tokens" in note for note in answer.notes)


async def test_a_filtered_answer_without_text_is_an_error_and_one_with_text_is_not() -> None:
    """The provider's filter is never mistaken for an empty ranking; a partial answer is kept for the parser."""
    with picky(answer=Reply(completion(None, finish_reason="content_filter"))) as server:
        backend = backend_at(server.url)
        with pytest.raises(ContentFilterError):
            await backend.generate(PROMPT)
        server.answer = Reply(completion("[A]", finish_reason="content_filter"))
        answer = await backend.generate(PROMPT)
        await backend.aclose()
    assert (answer.text, answer.finish_reason) == ("[A]", "content_filter")


def _alternatives(*pairs: tuple[str, float], chosen: tuple[str, float] | None = None) -> dict[str, Any]:
    token, logprob = chosen or pairs[0]
    return {"token": token, "logprob": logprob, "top_logprobs": [{"token": t, "logprob": value} for t, value in pairs]}


async def test_label_logprobs_sum_the_tokens_that_spell_a_label() -> None:
    """``A``, `` A`` and ``[A`` are one label; other tokens count for none; labels that are not reported are absent."""
    first = _alternatives(
        ("A", math.log(0.4)), (" A", math.log(0.2)), ("[A", math.log(0.1)), (" B", math.log(0.2)), ("An", -3.0)
    )
    with picky(answer=Reply(completion(logprobs={"content": [first]}))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(Prompt(messages=PROMPT.messages, labels=("A", "B", "C"), label_logprobs=True))
        await backend.aclose()
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 20)
    assert answer.label_logprobs is not None
    assert set(answer.label_logprobs) == {"A", "B"}
    assert math.exp(answer.label_logprobs["A"]) == pytest.approx(0.7)
    assert math.exp(answer.label_logprobs["B"]) == pytest.approx(0.2)


def test_label_logprobs_count_a_word_in_any_case() -> None:
    """``yes``, ``YES`` and `` Yes`` are a verdict; the article ``a`` is no choice of A."""
    first = _alternatives(("Yes", math.log(0.4)), ("yes", math.log(0.2)), (" YES", math.log(0.1)), ("no", math.log(0.2)))
    found = label_logprobs({"logprobs": {"content": [first]}}, ("Yes", "No"))
    assert found is not None
    assert {label: math.exp(value) for label, value in found.items()} == pytest.approx({"Yes": 0.7, "No": 0.2})
    assert label_logprobs({"logprobs": {"content": [_alternatives(("a", -0.1), ("A", -1.0))]}}, ("A", "B")) == {"A": -1.0}


def test_grades_are_labels() -> None:
    """A digit counts as it is, after a space too."""
    content = [_alternatives(("3", -0.5), (" 3", -9.0), ("30", -1.0), ("0", -2.0))]
    found = label_logprobs({"logprobs": {"content": content}}, ("0", "1", "2", "3", "4"))
    assert found == {"0": -2.0, "3": pytest.approx(-0.5, abs=0.001)}


@pytest.mark.parametrize(("count", "notes"), [(20, 0), (24, 1)])
async def test_labels_beyond_the_alternatives_that_a_server_reports_are_told(count: int, notes: int) -> None:
    """OpenAI reports 20: of 24 letters four have no log-probability. Of fewer, what is absent is less likely than the rest."""
    letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count])
    shown = _alternatives(*((letter, -1.0 - place) for place, letter in enumerate(letters[:19])), ("the", -30.0))
    with picky(answer=Reply(completion(logprobs={"content": [shown]}))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(Prompt(messages=PROMPT.messages, labels=letters, label_logprobs=True))
        await backend.aclose()
    assert answer.label_logprobs is not None
    assert set(answer.label_logprobs) == set(letters[:19])
    told = "the server reports only 20 alternatives a token, for 24 labels"
    assert answer.notes == (told,) * notes


def test_label_logprobs_pass_over_tokens_that_spell_nothing() -> None:
    """The label of an answer that starts with a line break and a bracket is at the third token."""
    content = [_alternatives(("\n", -0.1)), _alternatives(("[", -0.1)), _alternatives(("B", -0.5), ("A", -1.0))]
    assert label_logprobs({"logprobs": {"content": content}}, ("A", "B")) == {"A": -1.0, "B": -0.5}


THOUGHT = [_alternatives((token, -0.1), ("A", -9.0)) for token in ("<think>", "A", "? no", ".</", "think", ">", "\n\n")]


def test_label_logprobs_begin_after_inline_thinking() -> None:
    """What stands in the text up to the last closing tag is no answer, however the tag is cut into tokens."""
    content = [*THOUGHT, _alternatives(("B", -0.1), ("A", -3.0))]
    assert label_logprobs({"logprobs": {"content": content}}, ("A", "B")) == {"A": -3.0, "B": -0.1}
    assert label_logprobs({"logprobs": {"content": content[1:]}}, ("A", "B")) == {"A": -3.0, "B": -0.1}  # the prompt opened it


@pytest.mark.parametrize("tokens", [1, 3])
async def test_thinking_without_an_end_has_no_label_logprobs(tokens: int) -> None:
    """A model that was cut off while it thought ranks nothing by the noise of its first token; a note says why."""
    with picky(answer=Reply(completion("<think>", logprobs={"content": THOUGHT[:tokens]}))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(Prompt(messages=PROMPT.messages, labels=("A", "B"), label_logprobs=True))
        await backend.aclose()
    assert answer.label_logprobs is None
    assert answer.notes == ("the model began to think and came to no end, so its labels have no log-probability",)


@pytest.mark.parametrize(("second", "notes"), [(math.log(0.006), 0), (math.log(0.004), 1)])
async def test_labels_next_to_no_probability_are_told(second: float, notes: int) -> None:
    """Where all labels together hold less than 1 %, the model was about to say something else."""
    shown = _alternatives(("The", -0.01), ("A", math.log(0.005)), ("B", second))
    with picky(answer=Reply(completion("The", logprobs={"content": [shown]}))) as server:
        backend = backend_at(server.url)
        answer = await backend.generate(Prompt(messages=PROMPT.messages, labels=("A", "B"), label_logprobs=True))
        await backend.aclose()
    assert answer.label_logprobs == pytest.approx({"A": math.log(0.005), "B": second})
    assert answer.notes == ("the labels hold less than 1 % of the probability of the answer's first token",) * notes


def test_label_logprobs_count_a_sampled_token_that_is_not_among_the_alternatives() -> None:
    """Servers report the sampled token apart when it is not among the best."""
    content = [_alternatives(("A", -0.1), chosen=("B", -9.0))]
    assert label_logprobs({"logprobs": {"content": content}}, ("A", "B")) == {"A": -0.1, "B": -9.0}


@given(
    st.dictionaries(
        st.text(st.sampled_from("AB [].\u0120\u2581x1"), max_size=4), st.floats(0.001, 1.0), min_size=1, max_size=20
    )
)
def test_label_probabilities_never_exceed_those_reported(masses: dict[str, float]) -> None:
    """However tokens are spelt, the labels together get at most the mass that the server reported, and no more than 1 each."""
    total = sum(masses.values())
    pairs = [(token, math.log(mass / total)) for token, mass in masses.items()]
    found = label_logprobs({"logprobs": {"content": [_alternatives(*pairs)]}}, ("A", "B", "1"))
    assert found is not None
    assert set(found) <= {"A", "B", "1"}
    assert sum(math.exp(value) for value in found.values()) <= 1 + 1e-9


async def test_a_server_that_ignores_logprobs_is_noticed(server: PickyServer) -> None:
    """Taking the field and reporting nothing gives None and a note, not an empty distribution."""
    backend = backend_at(server.url)
    answer = await backend.generate(Prompt(messages=PROMPT.messages, labels=("A",), label_logprobs=True))
    await backend.aclose()
    assert answer.label_logprobs is None
    assert any("log-probabilities" in note for note in answer.notes)


# -- connections ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both HTTP layers that the SDK can stand on; the second is what an installation without aiohttp gets."""
    import openai

    if request.param == "httpx":
        monkeypatch.setattr(openai, "DefaultAioHttpClient", openai.DefaultAsyncHttpxClient)
    return str(request.param)


@pytest.mark.usefixtures("transport")
def test_each_event_loop_has_its_own_client_and_none_is_left_open(server: PickyServer) -> None:
    """Two ``asyncio.run`` without `aclose` work, and leave no socket open for the garbage collector to complain about."""
    backend = backend_at(server.url)
    for _ in range(2):
        assert asyncio.run(backend.generate(PROMPT)).text == "[A] > [B]"
        gc.collect()  # an unclosed client would raise a ResourceWarning here, which is an error in this suite
    assert server.connections == 2


async def test_one_loop_keeps_its_connection(server: PickyServer) -> None:
    """Requests that follow each other share one connection; after `aclose`, which may come twice, a new one is opened."""
    backend = backend_at(server.url)
    for _ in range(3):
        await backend.generate(PROMPT)
    assert server.connections == 1
    await backend.aclose()
    await backend.aclose()
    await backend.generate(PROMPT)
    await backend.aclose()
    assert server.connections == 2


async def test_a_backend_that_is_dropped_closes_its_connections(server: PickyServer) -> None:
    """Within a running loop, too, a user who forgets `aclose` leaves no open socket."""
    backend = backend_at(server.url)
    await backend.generate(PROMPT)
    del backend
    gc.collect()
    await asyncio.sleep(0.05)  # the loop closes it in a task of its own
    gc.collect()


def test_aclose_closes_the_clients_of_other_running_loops(server: PickyServer) -> None:
    """The synchronous facade's loop runs in a thread: closing from another loop closes its client there, soon."""
    backend = backend_at(server.url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(backend.generate(PROMPT), loop).result(20)
    asyncio.run(backend.aclose())
    asyncio.run_coroutine_threadsafe(_others_done(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()
    del backend
    gc.collect()  # the loop ended without its shutdown hooks: only `aclose` can have closed the connection


async def _others_done() -> None:
    """Waits until the running loop has no other task."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


@pytest.mark.usefixtures("transport")
def test_aclose_does_not_wait_for_the_loop_that_waits_for_it(server: PickyServer) -> None:
    """A `with Ranker` inside a coroutine blocks its own loop while another loop closes: that ends, and no socket stays open."""

    async def main() -> None:
        backend = backend_at(server.url)
        await backend.generate(PROMPT)
        closing = threading.Thread(target=lambda: asyncio.run(backend.aclose()), daemon=True)
        closing.start()
        closing.join(10)  # the loop is blocked meanwhile, as by a synchronous `close`
        assert not closing.is_alive()

    asyncio.run(main())
    gc.collect()


def test_closing_from_two_sides_at_once_is_closing_once(server: PickyServer, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that closes its own client while another loop has asked it to leaves no complaint behind."""

    async def main() -> None:
        backend = backend_at(server.url)
        await backend.generate(PROMPT)
        other = threading.Thread(target=lambda: asyncio.run(backend.aclose()))
        other.start()
        other.join(10)
        await backend.aclose()
        await _others_done()

    asyncio.run(main())
    gc.collect()
    assert not caplog.records


# -- setting up -------------------------------------------------------------------------------------------------------------


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found when the backend is built, before any user waits."""
    monkeypatch.delenv("PICKY_KEY")
    with pytest.raises(SetupError, match=r"api\.example\.com:443.*set the environment variable PICKY_KEY"):
        backend_at("https://api.example.com/v1")


def test_a_missing_sdk_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install"):
        backend_at("http://127.0.0.1:1/v1")


async def test_a_local_server_needs_no_key(server: PickyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in one's own machine is asked with a placeholder."""
    monkeypatch.delenv("PICKY_KEY")
    backend = backend_at(server.url)
    await backend.generate(PROMPT)
    await backend.aclose()
    assert server.requests[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": ""}, "backend.model"),
        ({"base_url": "127.0.0.1:8000/v1"}, "base_url"),
        ({"base_url": "http://host:port/v1"}, "base_url"),
        ({"context_window": 0}, "backend.context_window"),
        ({"thinking_tokens": -1}, "backend.thinking_tokens"),
        ({"temperature": -0.1}, "backend.temperature"),
        ({"temperature": math.nan}, "backend.temperature"),
        ({"temperature": math.inf}, "backend.temperature"),
        ({"extra_body": {"since": datetime.date(2026, 1, 1)}}, "backend.extra_body"),
        ({"extra_body": {"top_p": math.inf}}, "backend.extra_body"),
        ({"extra_body": {"stop": {"a", "b"}}}, "backend.extra_body"),
        ({"context_window": 1000, "thinking_tokens": 1000}, "backend.thinking_tokens"),
        ({"timeout_s": 0}, "backend.timeout_s"),
    ],
)
def test_bad_options_name_the_field(options: dict[str, Any], field: str) -> None:
    """One error with field, value and fix."""
    with pytest.raises(ConfigError) as caught:
        OpenAIOptions(**{"model": "m", **options})
    assert caught.value.field == field
    assert caught.value.fix


async def test_the_environment_names_the_address_if_the_options_do_not(
    server: PickyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_BASE_URL works as for every tool on this SDK, and stands in the identity."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    backend = OpenAIBackend(OpenAIOptions("m", api_key_env="PICKY_KEY"))
    await backend.generate(PROMPT)
    await backend.aclose()
    assert len(server.bodies) == 1
    assert backend.identity["base_url"] == server.url


async def test_the_key_never_shows(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in repr and identity, nor in errors when the server repeats it, nor in what libraries log."""
    caplog.set_level(logging.DEBUG)
    reply = openai_error(f"Incorrect API key provided: {KEY}. Or was it sk-abcd********wxyz?", status=401)
    with picky(answer=reply) as server:
        backend = backend_at(server.url.replace("://", "://user:pass-word@"), headers={"x-secret": "hidden-header"})
        with pytest.raises(AuthenticationError) as caught:
            await backend.generate(PROMPT)
        await backend.aclose()
    import traceback

    shown = [
        repr(backend),
        repr(backend.options).replace("user:pass-word@", ""),
        repr(backend.transport),
        json.dumps(dict(backend.identity)),
        "".join(traceback.format_exception(caught.value)),
        caplog.text,
    ]
    for text in shown:
        for secret in (KEY, "pass-word", "hidden-header", "wxyz"):
            assert secret not in text
    assert "Incorrect API key provided: ***" in str(caught.value)


async def test_user_and_password_in_the_url_become_basic_authorization(server: PickyServer) -> None:
    """A proxy in front of a server can be passed, and wins over the key."""
    backend = backend_at(server.url.replace("://", "://user:p%40ss@"))
    await backend.generate(PROMPT)
    await backend.aclose()
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()


def test_identity_changes_with_what_shapes_an_answer_and_with_nothing_else() -> None:
    """The answer cache must tell these apart, and survive a change of key or time limit."""
    url = "http://127.0.0.1:1/v1"
    plain = backend_at(url).identity
    assert plain == backend_at(url, timeout_s=5, headers={"x": "y"}).identity
    assert json.loads(json.dumps(dict(plain))) == plain
    changes: list[dict[str, Any]] = [{"model": "n"}, {"temperature": 1.0}, {"thinking_tokens": 5}, {"extra_body": {"a": 1}}]
    for change in changes:
        assert backend_at(url, **change).identity != plain
    assert backend_at(url + "x").identity != plain


# -- the model's window -----------------------------------------------------------------------------------------------------


def _models(listed: object, single: object = None) -> Any:
    def rule(request: Request) -> Reply | None:
        if request.path.endswith("/models"):
            return listed if isinstance(listed, Reply) else Reply(listed)
        if "/models/" in request.path:
            return Reply(single) if single is not None else openai_error("The model 'm' does not exist", status=404)
        return None

    return rule


@pytest.mark.parametrize(
    ("listed", "single", "window"),
    [
        ({"data": [{"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 4096}]}, None, 4096),  # vLLM
        ({"data": [{"id": "m", "context_length": 131072}]}, None, 131072),  # OpenRouter
        ([{"id": "m", "context_length": 8192}], None, 8192),  # Together
        ({"data": [{"id": "m", "context_window": 32768}]}, None, 32768),  # Groq
        ({"data": [{"id": "models/m", "max_context_length": 512}]}, None, 512),  # Gemini's ids, Mistral's field
        ({"data": [{"id": "x.gguf", "aliases": ["m"], "meta": {"n_ctx_train": 9999, "n_ctx": 2048}}]}, None, 2048),  # llama.cpp
        ({"data": [{"id": "other"}]}, {"id": "m", "context_window": 1000}, 1000),
        ({"data": [{"id": "m", "object": "model"}]}, None, None),  # OpenAI
        ({"data": []}, None, None),
        (Reply({"detail": "Not Found"}, 404), None, None),
        (Reply(b"<html>", headers={"content-type": "text/html"}), None, None),
        (Reply({"error": {"message": "no"}}, 403), None, None),
        (Reply(b"", 500), None, None),
    ],
)
async def test_info_reads_the_window_where_servers_put_it(listed: object, single: object, window: int | None) -> None:
    """Every known field is read; a server that lists nothing is not an error."""
    with picky(_models(listed, single)) as server:
        backend = backend_at(server.url)
        info = await backend.info()
        await backend.aclose()
    assert info.context_window == window
    assert info.counter is not None
    assert info.counter.count("a b c") > 0


async def test_info_asks_once_for_many_callers() -> None:
    """Concurrent and later callers share one request."""
    with picky(_models(Reply({"data": [{"id": "m", "max_model_len": 4096}]}, delay_s=0.05))) as server:
        backend = backend_at(server.url)
        infos = await asyncio.gather(*(backend.info() for _ in range(20)))
        await backend.info()
        await backend.aclose()
    assert {info.context_window for info in infos} == {4096}
    assert len(server.requests) == 1


async def test_info_takes_the_window_from_the_options_without_asking(server: PickyServer) -> None:
    """The user's word is final, even against the server's."""
    backend = backend_at(server.url, context_window=1234)
    assert (await backend.info()).context_window == 1234
    server.answer = openai_error("This model's maximum context length is 99 tokens.", code="context_length_exceeded")
    with pytest.raises(ContextLengthError):
        await backend.generate(PROMPT)
    assert (await backend.info()).context_window == 1234
    await backend.aclose()
    assert len(server.requests) == 1


async def test_a_refused_prompt_teaches_the_window() -> None:
    """What a server says about a prompt that was too long is remembered for the next."""
    said = "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."
    with picky(_models({"data": []}), answer=openai_error(said)) as server:
        backend = backend_at(server.url)
        assert (await backend.info()).context_window is None
        with pytest.raises(ContextLengthError) as caught:
            await backend.generate(PROMPT)
        assert caught.value.window == 4096
        assert (await backend.info()).context_window == 4096
        await backend.aclose()


async def test_thinking_tokens_are_kept_free_in_the_window(server: PickyServer) -> None:
    """Wherever the window is from (options, list of models, a refusal), prompt and answer get what the thinking leaves."""
    given = backend_at(server.url, context_window=5000, thinking_tokens=1500)
    assert (await given.info()).context_window == 3500
    with picky(_models({"data": [{"id": "m", "max_model_len": 4096}]})) as listing:
        told = backend_at(listing.url, thinking_tokens=1500)
        assert (await told.info()).context_window == 2596
        await told.aclose()
        thoughtful = backend_at(listing.url, thinking_tokens=4096)
        with pytest.raises(ConfigError, match="4096 tokens") as caught:
            await thoughtful.info()
        assert caught.value.field == "backend.thinking_tokens"
        await thoughtful.aclose()
    said = "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."
    with picky(_models({"data": []}), answer=openai_error(said)) as refusing:
        backend = backend_at(refusing.url, thinking_tokens=1500)
        with pytest.raises(ContextLengthError) as refused:
            await backend.generate(PROMPT)
        assert refused.value.window == 2596
        assert (await backend.info()).context_window == 2596
        await backend.aclose()


async def test_info_raises_what_every_request_would_meet() -> None:
    """An unreachable server and a wrong key are found before any prompt is rendered; asking again may succeed."""
    with pytest.raises(UnreachableError):
        await backend_at(f"http://127.0.0.1:{free_port()}/v1").info()
    with picky(_models(openai_error("wrong key", status=401))) as server:
        backend = backend_at(server.url)
        with pytest.raises(AuthenticationError):
            await backend.info()
        server.rules = [_models({"data": [{"id": "m", "max_model_len": 7}]})]
        assert (await backend.info()).context_window == 7
        await backend.aclose()


# -- answers that are none --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"{broken"),
        Reply(b"\xff\xfe{}"),
        Reply(b"<html>Welcome</html>", headers={"content-type": "text/html"}),
        Reply([]),
        Reply({}),
        Reply({"choices": []}),
        Reply({"choices": None}),
        Reply({"choices": ["x"]}),
        Reply({"choices": [{"finish_reason": "stop"}]}),
        Reply({"choices": [{"message": {"content": "x"}, "error": {"message": "upstream died"}}]}),
        Reply({"error": {"message": "upstream died"}}),
        Reply(b""),
    ],
)
async def test_200_with_something_else_than_an_answer_is_a_server_error(reply: Reply) -> None:
    """Nothing that is not of the protocol is parsed as an answer; all of it may pass, so it is retryable."""
    with picky(answer=reply) as server:
        backend = backend_at(server.url)
        with pytest.raises(ServerError) as caught:
            await backend.generate(PROMPT)
        await backend.aclose()
    assert f":{server.port}" in str(caught.value)
    assert caught.value.retryable


async def test_json_that_is_declared_as_text_is_read() -> None:
    """Some proxies give every answer the type text/plain."""
    with picky(answer=Reply(completion("x"), headers={"content-type": "text/plain"})) as server:
        backend = backend_at(server.url)
        assert (await backend.generate(PROMPT)).text == "x"
        await backend.aclose()


async def test_a_character_that_cannot_be_sent_is_a_bad_request(server: PickyServer) -> None:
    """Half a surrogate pair in a title is refused for this prompt alone, and not retried."""
    backend = backend_at(server.url)
    with pytest.raises(BadRequestError, match="cannot be sent"):
        await backend.generate(Prompt(messages=(Message("user", "\ud800"),)))
    await backend.aclose()
