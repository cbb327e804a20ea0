"""`llmrank prompts` as a user types it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmrank.cli.prompts import prompts_app
from llmrank.errors import InputError, TemplateError
from llmrank.template import Templates

MINE = """{# My own. #}
{% block user %}{{ tone }}
{% include "_history.jinja" %}
{% include "_candidates.jinja" %}
{% endblock %}
"""


def run(*arguments: str) -> Result:
    """Runs the command; a refusal is in `exception`, which `llmrank` turns into one line and status 2."""
    return CliRunner().invoke(prompts_app, list(arguments))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a template that has an undefined variable and no output instruction, and one of a known name."""
    (tmp_path / "mine.jinja").write_text(MINE)
    (tmp_path / "_event.jinja").write_text("* {{ event.text }}\n")
    return tmp_path


def test_list_tells_name_kind_fingerprint_origin_and_purpose(folder: Path) -> None:
    """One line a template; a user's own names its directory."""
    result = run("list", "--dir", str(folder))
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(lines) == {*Templates().names(), "mine"}
    mine = Templates(folder).get("mine")
    assert lines["mine"].split() == ["mine", "chat", mine.fingerprint, "1", "step", str(folder), "My", "own."]
    assert "3 steps  llmrank" in lines["listwise/nir"]


def test_show_prints_every_file_of_a_template() -> None:
    """The step first, then the partials, each under its name."""
    result = run("show", "listwise/recency")
    assert result.exit_code == 0
    names = [line[4:-4] for line in result.stdout.splitlines() if line.startswith("==> ")]
    template = Templates().get("listwise/recency")
    assert names[0] == "listwise/recency.jinja"
    assert sorted(names) == sorted(template.sources)
    assert template.sources["_candidates.jinja"].strip() in result.stdout


def test_show_rendered_prints_what_a_model_reads() -> None:
    """Every message of every step under its role, with the chosen form of answer and variables."""
    result = run("show", "listwise/nir", "--rendered", "--answer", "json", "--var", "domain=books")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("==> ")] == [
        "==> preferences <==",
        "==> representatives <==",
        "==> ranking <==",
    ]
    assert "[assistant]\n" in result.stdout
    assert '{"ranking": ["best label"' in result.stdout
    assert "Books I have read" in result.stdout
    text = run("show", "likelihood/next-line", "--rendered")
    assert "Movies I have watched recently, in order:\nThe Fugitive" in text.stdout


@pytest.mark.parametrize(
    ("name", "asked", "candidates"),
    [
        ("single-token/sequential", "Answer with the label of the best one alone", 5),
        ("setwise/next", "Answer with the label of the best one alone", 5),
        ("pairwise/next", "Answer with the label of the best one alone", 2),
        ("pointwise/yes-no", "Answer with Yes or No alone", 1),
        ("pointwise/graded", "Grade it from 0 (not at all) to 4 (most)", 1),
    ],
)
def test_show_rendered_asks_for_what_the_kind_of_template_asks_for(name: str, asked: str, candidates: int) -> None:
    """Without --answer the usual form of its folder, with as many candidates as such a prompt shows."""
    lines = run("show", name, "--rendered").stdout.splitlines()
    assert [line for line in lines if line.startswith(asked)]
    assert lines.index("</candidates>") - lines.index("<candidates>") - 1 == candidates
    assert run("show", name, "--rendered", "--answer", "label").stdout.splitlines() == lines


def test_show_rendered_of_content_free_texts() -> None:
    """They are lines, with neither a history nor candidates."""
    assert run("show", "calibration/content-free", "--rendered").stdout.splitlines() == ["N/A", "MASK", "..."]


def test_templates_of_two_kinds_are_compared_each_in_its_own_form() -> None:
    """The one asks for an order, the other for a label."""
    lines = run("diff", "listwise/sequential", "single-token/sequential").stdout.splitlines()
    assert "-[best label] > [second label] > ... > [last label]" in lines
    assert "+Answer with the label of the best one alone, without brackets, and nothing else." in lines


def test_lint_of_the_packaged_templates() -> None:
    """They are clean: status 0."""
    result = run("lint")
    assert result.exit_code == 0
    assert result.stdout == f"{len(Templates().names())} templates checked: 0 errors, 0 warnings\n"


def test_lint_finds_and_exits_with_1(folder: Path) -> None:
    """One line a finding; variables can be declared; a template that cannot be read is a finding and stops no other."""
    result = run("lint", "mine", "--dir", str(folder))
    assert result.exit_code == 1
    assert "mine: error: mine.jinja line 2: nobody defines 'tone'" in result.stdout
    declared = run("lint", "mine", "--dir", str(folder), "--var", "tone=kind")
    assert "nobody defines" not in declared.stdout
    assert "(no-output-instruction)" in declared.stdout
    assert declared.exit_code == 1
    (folder / "broken.jinja").write_text("{% block user %}{% include x %}{% endblock %}")
    both = run("lint", "--dir", str(folder))
    assert "broken: error:" in both.stdout
    assert "(unreadable)" in both.stdout
    assert "nobody defines 'tone'" in both.stdout


def test_diff_shows_both_fingerprints_and_the_lines() -> None:
    """A unified diff of what a model reads."""
    result = run("diff", "listwise/sequential", "listwise/recency")
    assert result.exit_code == 0
    first, second = (Templates().get(name) for name in ("listwise/sequential", "listwise/recency"))
    lines = result.stdout.splitlines()
    assert lines[0] == f"--- {first.name}  {first.fingerprint}"
    assert lines[1] == f"+++ {second.name}  {second.fingerprint}"
    changed = [line for line in lines[2:] if line.startswith(("+", "-"))]
    assert changed[0].startswith("+The most recent movie")
    assert all(line.startswith("+") for line in changed)
    source = run("diff", "listwise/sequential", "listwise/recency", "--source")
    assert "+==> listwise/recency.jinja <==" in source.stdout


def test_diff_with_itself_compares_with_the_packaged_one(folder: Path) -> None:
    """What an override changes is seen by naming the template twice."""
    result = run("diff", "listwise/recency", "listwise/recency", "--dir", str(folder))
    assert "-- The Fugitive" in result.stdout
    assert "+* The Fugitive" in result.stdout
    assert "no difference" in run("diff", "listwise/recency", "listwise/recency").stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("show", "listwise/recencey"), TemplateError, "did you mean 'listwise/recency'?"),
        (("lint", "nothing"), TemplateError, "no such template (got 'nothing')"),
        (("diff", "listwise/recency", "nothing"), TemplateError, "no such template"),
        (("list", "--dir", "/no/such/folder"), TemplateError, "no such directory"),
        (("show", "listwise/recency", "--rendered", "--answer", "jsno"), InputError, "did you mean 'json'?"),
        (("show", "pairwise/next", "--rendered", "--answer", "order"), InputError, "known: label"),
        (
            ("show", "listwise/recency", "--rendered", "--var", "domain"),
            InputError,
            "--var: is no key and value (got 'domain'); write KEY=VALUE: domain=movies",
        ),
        (("show", "listwise/recency", "--rendered", "--var", "a-b=c"), InputError, "cannot be a variable's name (got 'a-b')"),
        (
            ("show", "listwise/recency", "--rendered", "--var", "domain=books", "--var", "domain=games"),
            InputError,
            "--var domain: is given twice (got 'games'); keep one of domain=books and domain=games",
        ),
        (("show", "listwise/recency", "--rendered", "--var", "domain=moovies"), TemplateError, "domain moovies is not one of"),
    ],
)
def test_bad_input_is_one_error_of_ours(arguments: tuple[str, ...], error: type[Exception], message: str) -> None:
    """Names, folders, forms and variables that make no sense: one documented error, one line."""
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
