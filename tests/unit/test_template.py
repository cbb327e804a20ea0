"""Finding, rendering and fingerprinting templates."""

from pathlib import Path

import pytest

from llmrank.errors import TemplateError
from llmrank.template import Template, Templates, packaged_directory
from llmrank.types import Message

CHAT = "{% block user %}\n{{ query }}\n{% endblock %}\n"


def write(folder: Path, **files: str) -> Path:
    """Writes templates; ``__`` in a name stands for a folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.jinja"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def one(folder: Path, text: str, **partials: str) -> Template:
    """A template of that text, and its partials."""
    return Templates(write(folder, mine=text, **partials)).get("mine")


def test_the_packaged_templates() -> None:
    """What the documentation promises is there."""
    assert set(Templates().names()) >= {
        "likelihood/next-line",
        "likelihood/query",
        "listwise/cold-start",
        "listwise/in-context",
        "listwise/nir",
        "listwise/recency",
        "listwise/repair",
        "listwise/sequential",
    }
    assert [step.name for step in Templates().get("listwise/nir").steps] == ["preferences", "representatives", "ranking"]


def test_blocks_become_messages_in_the_order_of_the_base(tmp_path: Path) -> None:
    """A child fills a base's blocks; numbers tell the messages of one role apart; empty messages are left out."""
    base = "".join(f"{{% block {name} %}}{{% endblock %}}" for name in ("system", "user_1", "assistant", "user_2"))
    template = one(
        tmp_path,
        "{% extends '_base.jinja' %}{% block user_2 %}last{% endblock %}{% block user_1 %}{{ query }}{% endblock %}",
        _base=base,
    )
    assert template.render({"query": "first"}) == (Message("user", "first"), Message("user", "last"))
    assert template.kind == "chat"
    assert template.steps[0].blocks == ("system", "user_1", "assistant", "user_2")


def test_a_block_in_a_block_belongs_to_the_outer_one(tmp_path: Path) -> None:
    """``super()`` renders the base's block inside the child's: one message, not two."""
    template = one(
        tmp_path,
        "{% extends '_base.jinja' %}{% block user %}the {{ super() }} and {% block piece %}more{% endblock %}{% endblock %}",
        _base="{% block user %}base{% endblock %}",
    )
    assert template.render({}) == (Message("user", "the base and more"),)


def test_what_the_top_of_a_template_sets_is_seen_in_its_blocks(tmp_path: Path) -> None:
    """Imports and sets at the top work as Jinja's documentation says."""
    template = one(
        tmp_path,
        "{% from '_words.jinja' import word with context %}{% set mine = query %}"
        "{% block user %}{{ word }} {{ mine }}{% endblock %}",
        _words="{% set word = query ~ '!' %}",
    )
    assert template.render({"query": "q"}) == (Message("user", "q! q"),)


def test_blank_lines_are_squeezed_and_ends_stripped(tmp_path: Path) -> None:
    """Parts that are left out leave no holes in a message."""
    template = one(tmp_path, "{% block user %}\n\n\na\n\n\n\n{% if query %}x{% endif %}\n\nb\n\n{% endblock %}")
    assert template.render({"query": None}) == (Message("user", "a\n\nb"),)


def test_raw_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    """A prefix for likelihood scoring must end exactly where a candidate begins."""
    template = one(tmp_path, "{% block text %}\nSeen:\n{% for event in history %}\n{{ event }}\n{% endfor %}\n{% endblock %}\n")
    assert template.kind == "text"
    assert template.render({"history": ["a", "b"]}) == "Seen:\na\nb\n"


def test_a_folder_of_numbered_files_is_one_template(tmp_path: Path) -> None:
    """Steps run by their numbers; each is rendered by its name, the last one by default."""
    write(tmp_path, chain__2_x="", chain__10_x="")
    for path in tmp_path.rglob("*_x.jinja"):
        path.unlink()
    (tmp_path / "chain" / "2-ask.jinja").write_text("{% block user %}ask{% endblock %}")
    (tmp_path / "chain" / "10-rank.jinja").write_text("{% block user %}{{ answers.ask }}{% endblock %}")
    template = Templates(tmp_path).get("chain")
    assert [step.name for step in template.steps] == ["ask", "rank"]
    assert template.render({}, "ask") == (Message("user", "ask"),)
    assert template.render({"answers": {"ask": "so"}}) == (Message("user", "so"),)
    with pytest.raises(TemplateError, match=r"no such step.*did you mean 'ask'"):
        template.render({}, "asks")


def test_own_directories_override_by_name_partials_included(tmp_path: Path) -> None:
    """A user's ``_domain.jinja`` changes the words of every packaged template, and so their fingerprints."""
    words = "{% set words = {'one': 'wine', 'many': 'wines', 'do': 'drink', 'done': 'drunk'} %}"
    mine, packaged = Templates(write(tmp_path, _domain=words)), Templates()
    rendered = mine.get("likelihood/next-line").render({"history": [], "query": None, "domain": "movies"})
    assert rendered == "Wines I have drunk recently, in order:\n"
    assert mine.names() == packaged.names()
    for name in mine.names():
        uses_words = "_domain.jinja" in packaged.get(name).sources
        assert (mine.get(name).fingerprint != packaged.get(name).fingerprint) == uses_words


def test_the_first_directory_wins(tmp_path: Path) -> None:
    """Directories stand in order of importance; a file may also stand for a packaged folder of steps."""
    first = write(tmp_path / "first", mine=CHAT.replace("query", "'first'"), listwise__nir=CHAT)
    second = write(tmp_path / "second", mine=CHAT.replace("query", "'second'"))
    templates = Templates(first, second)
    assert templates.get("mine").render({}) == (Message("user", "first"),)
    assert templates.get("mine").origin == first
    assert [step.name for step in templates.get("listwise/nir").steps] == ["nir"]


@pytest.mark.parametrize("change", ["_one", "_two", "_three", "_item", "mine", "_base"])
def test_a_fingerprint_changes_with_every_file_of_the_template(tmp_path: Path, change: str) -> None:
    """Include, import, extends, at any depth, and the partial for items: a change of any changes the fingerprint."""
    files = {
        "mine": "{% extends '_base.jinja' %}{% block user %}{% include '_one.jinja' %}{% endblock %}",
        "_base": "{% import '_three.jinja' as three %}{% block user %}{% endblock %}",
        "_one": "{% include ['_missing.jinja', '_two.jinja'] %}",
        "_two": "two",
        "_three": "{% set x = 1 %}",
        "_item": "{{ fields.title }}",
        "_unused": "unused",
    }
    before = Templates(write(tmp_path, **files)).get("mine")
    assert Templates(write(tmp_path, _unused="changed")).get("mine").fingerprint == before.fingerprint
    after = Templates(write(tmp_path, **{change: files[change] + "{# changed #}"})).get("mine")
    assert after.fingerprint != before.fingerprint
    assert len(after.fingerprint) == 12


def test_line_ends_do_not_change_a_fingerprint(tmp_path: Path) -> None:
    """A checkout with Windows line ends makes the same prompts under the same name."""
    unix = one(tmp_path, CHAT)
    (tmp_path / "mine.jinja").write_bytes(CHAT.replace("\n", "\r\n").encode())
    assert Templates(tmp_path).get("mine").fingerprint == unix.fingerprint


def test_a_template_is_what_it_was_when_it_was_read(tmp_path: Path) -> None:
    """A file that is edited during a run does not change prompts under an unchanged fingerprint."""
    template = one(tmp_path, "{% block user %}{% include '_part.jinja' %}{% endblock %}", _part="before")
    write(tmp_path, _part="after")
    assert template.render({}) == (Message("user", "before"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% block user %}{{ histroy }}{% endblock %}", "mine.jinja line 1: 'histroy' is undefined"),
        (
            "{% block user %}\n{{ answers.nothing }}\n{% endblock %}",
            "mine.jinja line 2: 'dict object' has no attribute 'nothing'",
        ),
        ("{% block user %}{{ 1 / 0 }}{% endblock %}", "ZeroDivisionError"),
        ("{% block user %}{{ fail('needs a query') }}{% endblock %}", "needs a query"),
        ("{% block user %}{{ ''.__class__.__mro__ }}{% endblock %}", "unsafe"),
        ("{% block user %}{{ answers.__init__.__globals__ }}{% endblock %}", "unsafe"),
        ("{% block user %}{{ answers.update(x=1) }}{% endblock %}", "access to attribute 'update'"),
        ("{% block user %}{{ range(10000000) | length }}{% endblock %}", "Range too big"),
        ("{% block user %}{% include 'mine.jinja' %}{% endblock %}", "RecursionError"),
        ("lost words {% block user %}x{% endblock %}", "outside of the blocks"),
    ],
)
def test_what_fails_in_rendering_is_one_line_with_file_and_line(tmp_path: Path, text: str, reason: str) -> None:
    """Undefined names, refused attributes, errors in expressions: a TemplateError that names the place."""
    template = one(tmp_path, text)
    with pytest.raises(TemplateError) as caught:
        template.render({"answers": {}})
    assert str(caught.value).startswith("template mine")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% block user %}\n{% if %}x{% endblock %}", "mine.jinja line 2"),
        ("{% block user %}\n{% include answer ~ '.jinja' %}{% endblock %}", "mine.jinja line 2: a computed file name"),
        ("{% block user %}{% include '_histroy.jinja' %}{% endblock %}", "did you mean '_history.jinja'?"),
        ("{% block user %}{% include '../../etc/passwd' %}{% endblock %}", "no such file"),
        ("just words", "no block that a model could read"),
        ("{% block user %}{% endblock %}{% block text %}{% endblock %}", "both a text block and role blocks"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(tmp_path: Path, text: str, reason: str) -> None:
    """Syntax errors, computed or missing includes, files outside, no block: found before anything is asked."""
    with pytest.raises(TemplateError) as caught:
        one(tmp_path, text)
    assert reason in str(caught.value)


def test_names_that_do_not_exist_get_the_nearest() -> None:
    """A typo in the configuration is answered with what was probably meant; partials and paths are no templates."""
    templates = Templates()
    with pytest.raises(TemplateError, match="did you mean 'listwise/recency'"):
        templates.get("listwise/recencey")
    for name in ("_history", "listwise/_base", "../README", "/etc/passwd", ""):
        with pytest.raises(TemplateError, match="no such template"):
            templates.get(name)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """A typo in `prompt.directories` does not silently leave the packaged templates in place."""
    with pytest.raises(TemplateError, match=r"prompt\.directories: no such directory"):
        Templates(tmp_path / "nowhere")


def test_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    """Two steps of one number, or a name that is both a file and a folder, are errors and not a matter of luck."""
    (tmp_path / "x").mkdir()
    for name in ("1-a", "1-b"):
        (tmp_path / "x" / f"{name}.jinja").write_text(CHAT)
    with pytest.raises(TemplateError, match="same step number"):
        Templates(tmp_path).names()
    (tmp_path / "x" / "1-b.jinja").unlink()
    (tmp_path / "x.jinja").write_text(CHAT)
    with pytest.raises(TemplateError, match="both a file and a folder"):
        Templates(tmp_path).names()


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A broken encoding is an error of the template, not a traceback."""
    (tmp_path / "mine.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match="cannot be read"):
        Templates(tmp_path).get("mine")


def test_the_readme_lists_every_template() -> None:
    """`prompts/README.md` tells each template's idea."""
    text = (packaged_directory() / "README.md").read_text(encoding="utf-8")
    for name in Templates().names():
        assert f"| `{name}` |" in text
