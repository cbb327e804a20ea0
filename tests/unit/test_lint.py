"""What lint finds in a template, and what it leaves alone."""

from pathlib import Path

import pytest

from llmrank.answer import parse_answer
from llmrank.lint import lint, sample_values
from llmrank.prompt_kinds import kind_of
from llmrank.template import Rendered, Template, Templates

GOOD = """{% block user %}
{% include "_history.jinja" %}
{% include "_candidates.jinja" %}
{% include "_answer.jinja" %}
{% endblock %}
"""

ANSWER = '{% include "_answer.jinja" %}'


def template(folder: Path, text: str, **partials: str) -> Template:
    """A template of that text, beside the packaged partials."""
    for name, source in {"mine": text, **partials}.items():
        (folder / f"{name}.jinja").write_text(source)
    return Templates(folder).get("mine")


def text_of(rendered: Rendered) -> str:
    """All messages as one text."""
    return rendered if isinstance(rendered, str) else "\n".join(message.content for message in rendered)


def codes(folder: Path, text: str, variables: dict[str, object] | None = None, **partials: str) -> list[str]:
    """The kinds of findings, errors first."""
    return [finding.code for finding in lint(template(folder, text, **partials), variables)]


@pytest.mark.parametrize("name", Templates().names())
def test_the_packaged_templates_are_clean(name: str) -> None:
    """Not even a warning."""
    assert lint(Templates().get(name)) == ()


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, count) for name in Templates().names() for count in kind_of(name).counts[-2:] if kind_of(name).asks == "labels"],
)
def test_an_echo_of_a_prompts_own_words_is_no_ranking(name: str, count: int) -> None:
    """A model that only repeats its instructions has ranked nothing: the examples in them hold no label."""
    for answer in kind_of(name).answers:
        values = sample_values(Templates().get(name), candidates=count, answer=answer)
        candidates, history = values["candidates"], values["history"]
        assert isinstance(candidates, tuple)
        assert isinstance(history, tuple)
        text = text_of(Templates().get(name).render(values))
        shown = {f"[{candidate.label}] {candidate.text}" for candidate in candidates}
        parsed = parse_answer(
            "\n".join(line for line in text.splitlines() if line not in shown),
            labels=[candidate.label for candidate in candidates],
            titles=[candidate.text for candidate in candidates],
            history_titles=[event.text for event in history],
            expected=answer,
        )
        assert (parsed.ranked, parsed.status) == (0, "fallback"), answer


def test_a_small_template_is_clean(tmp_path: Path) -> None:
    """The packaged partials are all that a template needs."""
    assert codes(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (GOOD.replace("{% endblock %}", "{{ histroy }}{% endblock %}"), "undefined-variable"),
        (GOOD.replace("{% endblock %}", "{% if domain == 'books' %}{{ tone }}{% endif %}{% endblock %}"), "undefined-variable"),
        (GOOD.replace("{% endblock %}", "{{ 1 / 0 }}{% endblock %}"), "does-not-render"),
        (GOOD.replace("{% endblock %}", "{{ history[5].text }}{% endblock %}"), "does-not-render"),
        (GOOD.replace("{% endblock %}", "{{ candidates[0].title }}{% endblock %}"), "does-not-render"),
        ("{% block user %}{{ fail('never') }}{% endblock %}", "does-not-render"),
        (GOOD.replace(ANSWER, ""), "no-output-instruction"),
        (GOOD.replace(ANSWER, f"{{% if query %}}{ANSWER}{{% endif %}}"), "no-output-instruction"),
        (GOOD.replace("{% endblock %}", "{% endblock %}{% block user_2 %}Now!{% endblock %}"), "no-output-instruction"),
        (GOOD.replace("{% endblock %}", "For instance: [B] comes first.\n{% endblock %}"), "label-clash"),
        (GOOD.replace("{% endblock %}", "For instance: B > A > C\n{% endblock %}"), "label-clash"),
        (GOOD.replace("{% block user %}", "{% block user %}\n1. Read the history.\n2. Rank.\n"), "label-clash"),
        (GOOD.replace('{% include "_candidates.jinja" %}', ""), "candidate-not-shown"),
        (
            GOOD.replace('{% include "_candidates.jinja" %}', "{{ candidates | map(attribute='text') | join(', ') }}"),
            "candidate-not-shown",
        ),
        (GOOD.replace('{% include "_history.jinja" %}', ""), "history-not-shown"),
        (
            GOOD.replace('{% include "_history.jinja" %}', "{% for e in history | reverse %}\n{{ e.text }}\n{% endfor %}\n"),
            "history-order",
        ),
        ("{% block text %}{% for e in history %}{{ e.text }}\n{% endfor %}Next:{% endblock %}", "open-prefix"),
    ],
)  # fmt: skip
def test_what_is_found(tmp_path: Path, broken: str, code: str) -> None:
    """Each kind of mistake, alone in an otherwise good template, gives its own finding and no other."""
    assert set(codes(tmp_path, broken)) == {code}


def test_an_undefined_variable_in_a_partial_is_found_where_it_stands(tmp_path: Path) -> None:
    """File, line and the nearest known name are told, also for a branch that no sample request takes."""
    text = GOOD.replace("{% endblock %}", '{% include "_mine.jinja" %}{% endblock %}')
    partial = "{% if history | length > 1000 %}\n{{ candidate_s }}\n{% endif %}"
    (finding,) = lint(template(tmp_path, text, _mine=partial))
    assert str(finding) == (
        "mine: error: _mine.jinja line 2: nobody defines 'candidate_s'; did you mean 'candidates'? (undefined-variable)"
    )


def test_declared_and_guarded_variables_are_no_findings(tmp_path: Path) -> None:
    """The configuration's own variables, names that a template sets, loops over and guards, are defined."""
    extra = (
        "{{ tone }}{% set x = 1 %}{{ x }}{% for y in history %}{{ y.rating or loop.index }}{% endfor %}"
        "{% if style is defined %}{{ style }}{% endif %}{{ mood | default('calm') }}"
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m('z') }}{% endblock %}"
    )
    text = GOOD.replace("{% endblock %}", extra)
    assert codes(tmp_path, text, {"tone": "kind"}) == []
    assert codes(tmp_path, text) == ["undefined-variable"]


def test_an_own_answer_partial_is_an_output_instruction(tmp_path: Path) -> None:
    """A user may say how to answer in other words, in the partial of that name."""
    assert codes(tmp_path, GOOD, _answer="Give me the labels in order.") == []


def test_a_template_that_asks_for_no_ranking_needs_no_candidates(tmp_path: Path) -> None:
    """Under ``probe/`` neither candidates nor the answer partial are missed; all else is looked at as everywhere."""
    (tmp_path / "probe").mkdir()
    probe = tmp_path / "probe" / "title.jinja"
    probe.write_text('{% block user %}{% include "_history.jinja" %}What comes next?{% endblock %}')
    assert lint(Templates(tmp_path).get("probe/title")) == ()
    probe.write_text("{% block user %}[B] is {{ nothing }}.{% endblock %}")
    found = {finding.code for finding in lint(Templates(tmp_path).get("probe/title"))}
    assert found == {"undefined-variable", "label-clash", "history-not-shown"}


VERDICT = """{% block user %}
{% include "_history.jinja" %}
Is this one for me?
{% for candidate in candidates %}
- {{ candidate.text }}
{% endfor %}
Answer {{ choices | join(" or ") }}.
{% endblock %}
"""


def codes_in(folder: Path, name: str, text: str) -> set[str]:
    """The kinds of findings in a template of that name."""
    file = folder / f"{name}.jinja"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return {finding.code for finding in lint(Templates(folder).get(name))}


@pytest.mark.parametrize("folder", ["single-token", "setwise", "pairwise"])
def test_a_template_that_asks_for_a_label_shows_candidates_and_the_form_of_answer(tmp_path: Path, folder: str) -> None:
    """What is asked for there is one label, so only that form has to be right."""
    assert codes_in(tmp_path, f"{folder}/good", GOOD) == set()
    label = GOOD.replace(ANSWER, f'{{% if answer != "label" %}}{{{{ fail("a label") }}}}{{% endif %}}{ANSWER}')
    assert codes_in(tmp_path, f"{folder}/label", label) == set()
    assert codes_in(tmp_path, f"{folder}/mute", GOOD.replace(ANSWER, "")) == {"no-output-instruction"}
    without = GOOD.replace('{% include "_candidates.jinja" %}', "")
    assert codes_in(tmp_path, f"{folder}/empty", without) == {"candidate-not-shown"}
    assert codes_in(tmp_path, f"{folder}/text", "{% block text %}Next:\n{% endblock %}") == {"wrong-block"}


def test_a_pair_is_all_that_a_pairwise_template_has_to_show(tmp_path: Path) -> None:
    """It may count on two candidates; elsewhere that is a mistake."""
    both = "[{{ candidates[0].label }}] {{ candidates[0].text }}\n[{{ candidates[1].label }}] {{ candidates[1].text }}\n"
    text = GOOD.replace('{% include "_candidates.jinja" %}', both)
    assert codes_in(tmp_path, "pairwise/both", text) == set()
    assert codes_in(tmp_path, "setwise/both", text) == {"candidate-not-shown", "does-not-render"}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('{{ choices | join(" or ") }}', "with care", "no-output-instruction"),
        ('{{ choices | join(" or ") }}', "Yes or No", "no-output-instruction"),
        ('{{ choices | join(" or ") }}', "{{ choices[0] }}", "no-output-instruction"),
        ("- {{ candidate.text }}", "- it", "candidate-not-shown"),
        ("- {{ candidate.text }}", "- {{ candidate.text }}\n- {{ candidate.text }}", "candidate-not-shown"),
        ("- {{ candidate.text }}", "[{{ candidate.label }}] {{ candidate.text }}", "label-clash"),
        ('{% include "_history.jinja" %}', "", "history-not-shown"),
        ("Is this one for me?", "{{ choice }}", "undefined-variable"),
    ],
)
def test_what_is_found_in_a_template_that_asks_for_a_verdict(tmp_path: Path, old: str, new: str, code: str) -> None:
    """It shows one candidate, without a label, and the words to choose from, whatever they are configured to be."""
    assert codes_in(tmp_path, "pointwise/good", VERDICT) == set()
    assert codes_in(tmp_path, "pointwise/bad", VERDICT.replace(old, new)) == {code}


def test_a_verdict_is_asked_for_in_the_last_message(tmp_path: Path) -> None:
    """Words that stood earlier are no instruction for the answer."""
    text = VERDICT + "{% block user_2 %}Now!{% endblock %}"
    assert codes_in(tmp_path, "pointwise/late", text) == {"no-output-instruction"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{% block text %}{% endblock %}", "no-lines"),
        ("{% block text %}N/A for {{ domain }}{% endblock %}", "undefined-variable"),
        ("{% block text %}{% if history %}N/A{% endif %}\n?{% endblock %}", "undefined-variable"),
        ("{% block user %}N/A{% endblock %}", "wrong-block"),
    ],
)
def test_what_is_found_in_content_free_texts(tmp_path: Path, text: str, code: str) -> None:
    """They are a text of lines, rendered without any values: there is no request yet."""
    assert codes_in(tmp_path, "calibration/good", "{% block text %}N/A\n?{% endblock %}") == set()
    assert codes_in(tmp_path, "calibration/bad", text) == {code}


def test_a_likelihood_template_is_a_text(tmp_path: Path) -> None:
    """A chat has no continuation that could be scored."""
    assert codes_in(tmp_path, "likelihood/chat", GOOD) == {"wrong-block"}


def test_an_own_item_partial_is_rendered_too(tmp_path: Path) -> None:
    """An item may lack any field, so a partial that counts on one does not render."""
    assert codes(tmp_path, GOOD, _item="{{ fields.title }}") == ["does-not-render"]
    assert codes(tmp_path, GOOD, _item="{{ fields.title | default('') }}") == []


def test_a_template_that_refuses_some_requests_is_not_wrong(tmp_path: Path) -> None:
    """``fail`` for a request without a query is a condition, not a mistake."""
    text = GOOD.replace("{% block user %}", "{% block user %}{% if not query %}{{ fail('needs a query') }}{% endif %}")
    assert codes(tmp_path, text) == []


def test_warnings_stand_after_errors(tmp_path: Path) -> None:
    """What stops a prompt from working is told first."""
    text = GOOD.replace('{% include "_history.jinja" %}', "").replace(ANSWER, "")
    assert codes(tmp_path, text) == ["no-output-instruction", "history-not-shown"]


def test_sample_values_of_any_size() -> None:
    """The made-up request has as many events and candidates as asked, all different."""
    values = sample_values(Templates().get("listwise/nir"), events=9, candidates=30)
    for key, count in (("history", 9), ("candidates", 30)):
        shown = values[key]
        assert isinstance(shown, tuple)
        assert len({entry.text for entry in shown}) == count
