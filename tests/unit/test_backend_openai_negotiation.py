"""What the OpenAI backend does when a server refuses settings: each provider's refusal, and that it is learned once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._negotiation import Dialect, Negotiator, concede, settings_in
from llmrank.backends._openai_chat import chat_body, chat_messages
from llmrank.backends._openai_errors import Refusal
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.errors import BadRequestError, ContextLengthError, ServerError
from llmrank.types import Completion, Message, Prompt
from tests.servers import picky as rules
from tests.servers.picky import PickyServer, Reply, Request, Rule, completion, openai_error, picky

FULL = Prompt(
    messages=(Message("system", "Rank."), Message("user", "A or B?")),
    labels=("A", "B"),
    answer="json",
    seed=3,
    label_logprobs=True,
)
WITH_LOGPROBS = completion(
    logprobs={"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "A", "logprob": -0.1}]}]}
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the developer's is sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def backend_at(server: PickyServer, **options: Any) -> OpenAIBackend:
    """A backend for this server."""
    return OpenAIBackend(OpenAIOptions("m", server.url, timeout_s=20, **options))


REFUSALS: Sequence[tuple[str, Sequence[Rule], int, dict[str, Any], str]] = [
    # name, rules, refusals until the answer, what the accepted body has (None: has not), a word of the notes
    ("nothing refused", [], 0, {"max_tokens": 512, "temperature": 0.0, "seed": 3, "top_logprobs": 20}, ""),
    ("o-series", [rules.o_series], 3, {"max_completion_tokens": 512, "temperature": None, "logprobs": None}, "temperature"),
    ("logprobs forbidden", [rules.no_logprobs_forbidden], 1, {"logprobs": None, "top_logprobs": None}, "log-probabilities"),
    ("groq", [rules.groq], 1, {"logprobs": None, "seed": 3}, "log-probabilities"),
    ("mistral", [rules.mistral], 1, {"seed": None, "logprobs": None, "max_tokens": 512}, "seed"),
    ("gemini", [rules.gemini], 1, {"seed": None, "logprobs": None, "temperature": 0.0}, "seed"),
    ("old vLLM", [rules.old_vllm], 2, {"response_format": None, "max_tokens": 512}, "no JSON at all"),
    ("no schemas", [rules.json_schema_model], 1, {"response_format": {"type": "json_object"}}, "JSON schema"),
    ("deepseek", [rules.deepseek_format], 1, {"response_format": {"type": "json_object"}}, "JSON schema"),
    ("json not spoken of", [rules.json_schema_model, rules.json_word], 2, {"response_format": None}, "no JSON at all"),
    ("top five", [rules.qwen_top_five], 1, {"logprobs": True, "top_logprobs": 5}, ""),
    ("top ten", [rules.vllm_max_logprobs], 1, {"logprobs": True, "top_logprobs": 10}, ""),
    ("zero refused", [rules.tgi_temperature], 1, {"temperature": 0.01}, "0.01"),
]


@pytest.mark.parametrize(
    ("refusing", "refusals", "accepted", "noted"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
async def test_a_refused_setting_is_put_otherwise_once_and_for_all(
    refusing: Sequence[Rule], refusals: int, accepted: dict[str, Any], noted: str
) -> None:
    """The first prompt pays for each refusal, later ones pay nothing, and the answer says what was left out."""
    with picky(*refusing, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        first = await backend.generate(FULL)
        assert len(server.bodies) == refusals + 1
        second = await backend.generate(FULL)
        await backend.aclose()
    assert len(server.bodies) == refusals + 2
    for body in server.bodies[-2:]:
        assert {name: body.get(name) for name in accepted} == accepted
    assert (first.usage.retries, second.usage.retries) == (refusals, 0)
    assert first.notes == second.notes
    assert noted in " ".join(first.notes)
    assert bool(first.notes) == bool(noted)


async def test_a_schema_without_counts_is_kept_where_counts_are_refused() -> None:
    """Azure enforces schemas that do not say how many: the labels stay enforced."""
    with picky(rules.no_counts, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        answer = await backend.generate(FULL)
        await backend.aclose()
    ranking = server.bodies[-1]["response_format"]["json_schema"]["schema"]["properties"]["ranking"]
    assert ranking == {"type": "array", "items": {"type": "string", "enum": ["A", "B"]}}
    assert answer.notes == ()


@pytest.mark.parametrize(
    ("rule", "form", "noted"),
    [
        (
            rules.no_counts,
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "strict": True,
                    "schema": {"type": "object", "properties": {"wishes": {"type": "array", "items": {"type": "string"}}}},
                },
            },
            "",
        ),
        (rules.json_schema_model, {"type": "json_object"}, "the server enforces no JSON schema"),
        (rules.old_vllm, None, "the server enforces no JSON schema, and no JSON at all"),
    ],
    ids=["no counts", "no schemas", "no JSON"],
)
async def test_an_objects_schema_goes_down_the_same_ladder(rule: Rule, form: dict[str, Any] | None, noted: str) -> None:
    """Without its lengths, as any JSON, as free text: what the server takes, and a note where nothing is enforced."""
    text = {"type": "string", "maxLength": 80}
    schema = {"type": "object", "properties": {"wishes": {"type": "array", "items": text, "maxItems": 8}}}
    prompt = Prompt(messages=FULL.messages, answer="object", schema=schema)
    with picky(rule) as server:
        backend = backend_at(server)
        answer = await backend.generate(prompt)
        await backend.aclose()
    assert server.bodies[-1].get("response_format") == form
    assert " ".join(answer.notes) == noted


@pytest.mark.parametrize(
    ("rule", "roles", "contents"),
    [
        (rules.o1_roles, ["developer", "user"], ["Rank.", "A or B?"]),
        (rules.o1_mini_roles, ["user"], ["Rank.\n\nA or B?"]),
        (rules.llama_cpp_gemma, ["user"], ["Rank.\n\nA or B?"]),
    ],
)
async def test_a_refused_system_role_keeps_its_text(rule: Rule, roles: list[str], contents: list[str]) -> None:
    """The rules of the prompt reach the model whatever roles it knows."""
    with picky(rule) as server:
        backend = backend_at(server)
        answer = await backend.generate(Prompt(messages=FULL.messages))
        await backend.aclose()
    assert [message["role"] for message in server.bodies[-1]["messages"]] == roles
    assert [message["content"] for message in server.bodies[-1]["messages"]] == contents
    assert bool(answer.notes) == (roles == ["user"])


async def test_azure_of_2024_gets_the_old_name_of_the_limit() -> None:
    """The other way round: a server of OpenAI's that knows only ``max_tokens``, told in prose alone."""
    with picky(rules.azure_2024) as server:
        backend = backend_at(server)
        backend.chat.negotiator = Negotiator(Dialect.for_url("https://x.openai.azure.com/openai/v1"))
        await backend.generate(FULL)
        await backend.aclose()
    assert ["max_completion_tokens" in body for body in server.bodies] == [True, False]
    assert server.bodies[-1]["max_tokens"] == 512


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
def test_the_first_guess_for_the_limit_depends_on_the_host(url: str, name: str) -> None:
    """Servers that ignore what they do not know must not be asked with the newer name first."""
    assert Dialect.for_url(url).length[0] == name


@pytest.mark.parametrize("refusing", [case[1] for case in REFUSALS[1:]], ids=[case[0] for case in REFUSALS[1:]])
async def test_64_first_prompts_at_once_learn_once(refusing: Sequence[Rule]) -> None:
    """Concurrent first calls wait for the one that finds out: the refusals are those of a single call."""
    refusals = next(case[2] for case in REFUSALS if case[1] is refusing)
    with picky(*refusing, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        answers = await asyncio.gather(*(backend.generate(FULL) for _ in range(64)))
        await backend.aclose()
    assert {answer.text for answer in answers} == {"[A] > [B]"}
    assert len(server.bodies) == 64 + refusals


async def test_a_slow_first_answer_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for another call's discovery has an end: the others are done while the first answer is still being written."""
    monkeypatch.setattr("llmrank.backends._negotiation.PATIENCE_S", 0.05)
    slow = iter([Reply(completion("slow"), delay_s=1.5)])
    with picky(lambda _: next(slow, None)) as server:
        backend = backend_at(server)
        first = asyncio.create_task(backend.generate(FULL))
        await asyncio.sleep(0)
        others = await asyncio.gather(*(backend.generate(FULL) for _ in range(4)))
        assert not first.done()
        assert [answer.text for answer in others] == ["[A] > [B]"] * 4
        assert (await first).text == "slow"
        await backend.aclose()


async def test_when_the_first_call_is_cancelled_another_finds_out() -> None:
    """A cancelled caller takes nobody else down with it."""
    with picky(rules.groq, answer=Reply(WITH_LOGPROBS, delay_s=0.2)) as server:
        backend = backend_at(server)
        tasks = [asyncio.create_task(backend.generate(FULL)) for _ in range(4)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks[1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await backend.aclose()
    assert [isinstance(answer, Completion) for answer in done] == [False, False, True, True]


async def test_when_the_first_call_fails_otherwise_another_finds_out() -> None:
    """An overloaded server tells nothing about its settings; the next call asks on its own account."""
    busy = iter([Reply({"error": {"message": "overloaded"}}, 503)])
    with picky(lambda _: next(busy, None), rules.groq, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        done = await asyncio.gather(*(backend.generate(FULL) for _ in range(8)), return_exceptions=True)
        await backend.aclose()
    assert [type(answer) for answer in done] == [ServerError] + [Completion] * 7
    assert len(server.bodies) == 1 + 1 + 7


def test_what_was_learned_holds_in_another_event_loop() -> None:
    """The dialect belongs to the backend, not to a loop."""
    with picky(rules.o_series, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        asyncio.run(backend.generate(FULL))
        learned = len(server.bodies)
        asyncio.run(backend.generate(FULL))
    assert len(server.bodies) == learned + 1


async def test_two_lessons_at_once_are_both_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that do not wait for each other and are refused different things do not undo each other's discovery."""
    monkeypatch.setattr("llmrank.backends._negotiation.PATIENCE_S", 0.0)
    seeded = Prompt(messages=FULL.messages, seed=3)
    scored = Prompt(messages=FULL.messages, labels=("A", "B"), label_logprobs=True)

    def slow_refusal(request: Request) -> Reply | None:
        reply = rules.mistral(request)
        return reply and Reply(reply.body, reply.status, delay_s=0.3)  # both are under way before either is refused

    with picky(slow_refusal, answer=Reply(WITH_LOGPROBS)) as server:
        backend = backend_at(server)
        await asyncio.gather(backend.generate(seeded), backend.generate(scored))
        assert len(server.bodies) == 4
        await asyncio.gather(backend.generate(seeded), backend.generate(scored))
        await backend.aclose()
    assert len(server.bodies) == 6


async def test_a_new_setting_is_learned_when_it_first_comes_up() -> None:
    """A server that has answered plain prompts may still refuse JSON: only that is found out then."""
    with picky(rules.json_schema_model) as server:
        backend = backend_at(server)
        await backend.generate(Prompt(messages=FULL.messages))
        await asyncio.gather(*(backend.generate(FULL) for _ in range(8)))
        await backend.aclose()
    assert len(server.bodies) == 1 + 1 + 8


@pytest.mark.parametrize(
    "reply",
    [
        openai_error(
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3.", param="temperature"
        ),
        openai_error("max_tokens is too large: 512. This model supports at most 256 completion tokens.", param="max_tokens"),
        openai_error("Could not finish the message because max_tokens or model output limit was reached."),
        openai_error("'messages' must be an array", param="messages"),
        openai_error("Unsupported parameter: 'tools'", param="tools", code="unsupported_parameter"),
        Reply(b"", 400),
        Reply(b"nope", 422),
    ],
)
async def test_a_400_about_something_else_is_a_bad_request_at_once(reply: Reply) -> None:
    """Only a refusal of a setting is answered by dropping it; anything else is the caller's to see, after one request."""
    with picky(answer=reply) as server:
        backend = backend_at(server)
        with pytest.raises(BadRequestError):
            await backend.generate(FULL)
        await backend.aclose()
    assert len(server.bodies) == 1


async def test_a_prompt_that_is_too_long_is_not_taken_for_a_refused_limit() -> None:
    """The message of vLLM names max_tokens, too."""
    said = (
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 256 tokens and your "
        "request has 10 input tokens (512 > 256 - 10)."
    )
    with picky(answer=openai_error(said)) as server:
        backend = backend_at(server)
        with pytest.raises(ContextLengthError) as caught:
            await backend.generate(FULL)
        await backend.aclose()
    assert caught.value.window == 256
    assert len(server.bodies) == 1


async def test_what_the_user_fixed_is_never_dropped() -> None:
    """A temperature in extra_body that the server refuses is an error, not a silent change."""
    with picky(rules.o_series) as server:
        backend = backend_at(server, extra_body={"temperature": 0.3})
        with pytest.raises(BadRequestError, match="temperature"):
            await backend.generate(FULL)
        await backend.aclose()
    assert [body["temperature"] for body in server.bodies] == [0.3, 0.3]  # one refusal of max_tokens, one of this


async def test_a_server_that_refuses_everything_is_left_in_a_bounded_number_of_steps() -> None:
    """Each refusal closes a way for good, so there is an end."""

    def everything(request: Request) -> Reply | None:
        name = next((n for n in ("seed", "temperature", "logprobs", "response_format", "max_tokens") if n in request.body), "")
        return rules._unsupported(name or "max_completion_tokens")

    with picky(everything) as server:
        backend = backend_at(server)
        with pytest.raises(BadRequestError):
            await backend.generate(FULL)
        await backend.aclose()
    assert len(server.bodies) <= 10


_NAMES = ["max_tokens", "max_completion_tokens", "temperature", "seed", "logprobs", "response_format", "messages[0].role"]


@given(
    st.lists(
        st.builds(
            Refusal,
            status=st.sampled_from([400, 422]),
            message=st.sampled_from(["unsupported", "must be positive", "maximum of 5", "'minItems' is not permitted", "no"]),
            code=st.sampled_from(["", "unsupported_value"]),
            param=st.sampled_from(["", *_NAMES]),
            text=st.lists(st.sampled_from([*_NAMES, "not supported", "range [0, 3]", "greater than 0"])).map(" ".join),
        ),
        max_size=40,
    )
)
def test_any_sequence_of_refusals_only_ever_closes_ways(refusals: list[Refusal]) -> None:
    """Whatever a server says, a concession changes the body, no way comes back, and no setting is left without one."""
    dialect = Dialect()
    steps = 0
    for refusal in refusals:
        body = chat_body(FULL, "m", dialect, temperature=0.0, max_tokens=5)
        conceded = concede(dialect, refusal, body)
        if conceded is None:
            continue
        steps += 1
        assert conceded.meet(dialect) == conceded
        assert chat_body(FULL, "m", conceded, temperature=0.0, max_tokens=5) != body
        assert all(conceded.length + conceded.temperature + conceded.seed + conceded.json + conceded.system)
        dialect = conceded
    assert steps <= 10


def test_settings_in_tells_apart_what_a_server_may_refuse() -> None:
    """Two bodies that differ in a refusable way differ in their settings."""
    body = chat_body(FULL, "m", Dialect(), temperature=0.0, max_tokens=5)
    assert settings_in(body) == {
        "max_tokens",
        "temperature=0",
        "seed",
        "logprobs",
        "response_format=json_schema",
        "role=system",
    }


@pytest.mark.parametrize(
    ("messages", "merged"),
    [
        ((Message("system", "s"),), [("user", "s")]),
        ((Message("user", "u"),), [("user", "u")]),
        ((Message("system", "s"), Message("system", "t"), Message("user", "u")), [("user", "s\n\nt\n\nu")]),
        ((Message("system", "s"), Message("assistant", "a")), [("user", "s"), ("assistant", "a")]),
        (
            (Message("user", "u"), Message("assistant", "a"), Message("system", "s"), Message("user", "v")),
            [("user", "s\n\nu"), ("assistant", "a"), ("user", "v")],
        ),
    ],
)
def test_system_messages_are_put_before_the_first_user_message(
    messages: tuple[Message, ...], merged: list[tuple[str, str]]
) -> None:
    """No text is lost, and roles go on alternating."""
    assert [(m["role"], m["content"]) for m in chat_messages(Prompt(messages=messages), "user")] == merged
