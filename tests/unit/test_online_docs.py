"""docs/experiments.md is true about live experiments: its tables are the options', and its file and its Python work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmrank import config
from llmrank.experiment.online.assignment import KEYS, LayerOptions, OnlineOptions
from llmrank.experiment.online.events import EventLog
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from tests.unit.scripted import ScriptedBackend
from tests.unit.test_docs import EXPERIMENTS, documented, in_code

ONLINE, _, READING = EXPERIMENTS.split("\n## Online\n", 1)[1].partition("\n## Reading a log\n")
TITLES = {"603": "The Matrix", "604": "The Matrix Reloaded", "78": "Blade Runner", "862": "Toy Story", "597": "Titanic"}


def test_every_key_of_the_online_section_is_documented() -> None:
    """With its default; `weights` and `salt` have one only in a file, where null stands for it."""
    code = {key: value for key, value in in_code(OnlineOptions).items() if key in KEYS}
    code |= {"weights": None, "salt": None, "reading": None}
    assert documented("online", EXPERIMENTS) == code
    assert set(code) == set(KEYS)
    assert f"`{OnlineOptions.__module__}.OnlineOptions`" in ONLINE


@pytest.mark.parametrize(
    ("heading", "cls", "others"),
    [
        ("online.layer", LayerOptions, {}),
        ("online.reading", ReadingOptions, {"metrics": {}}),
        ("online.reading.metrics", MetricOptions, {}),
    ],
)
def test_every_key_below_it_is_documented(heading: str, cls: type, others: dict[str, Any]) -> None:
    """Each class has its table and its name there. A metric's name is its key; `from` is a word that no field can have."""
    code = {"from" if key == "start" else key: value for key, value in in_code(cls).items()} | others
    if cls is MetricOptions:
        del code["name"]
    assert documented(heading, EXPERIMENTS) == code
    assert f"`{cls.__module__}.{cls.__name__}`" in ONLINE


def test_the_file_and_the_python_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks run one after the other with the example's file, and leave the events that the text says."""
    monkeypatch.chdir(tmp_path)
    answers = ScriptedBackend(lambda prompt: " > ".join(f"[{label}]" for label in prompt.labels))
    monkeypatch.setattr(config, "build_backend", lambda section: answers)
    lines = (f'{{"id": "{item}", "title": "{title}"}}\n' for item, title in TITLES.items())
    Path("items.jsonl").write_text("".join(lines), encoding="utf-8")
    (file,) = re.findall(r"^```yaml\n(.*?)^```", ONLINE, flags=re.MULTILINE | re.DOTALL)
    # Of a fifth of the users user-17 may not be one; the example is about one who is.
    Path("experiment.yaml").write_text(
        re.sub(r"^  (traffic|layer|holdout):.*\n", "", file, flags=re.MULTILINE), encoding="utf-8"
    )
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", ONLINE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "experiments.md", "exec"), names)  # noqa: S102  # our own document
    assert names["ranking"].item_ids == ["78", "862", "597"]
    assert capsys.readouterr().out == "['78', '862']\n"
    with EventLog.open("events.jsonl") as log:
        assert [(each.kind, each.unit) for each in log.events()] == [("exposure", "user-17"), ("outcome", "user-17")]
    with EventLog.open("interleaved.jsonl") as log:
        assert [each.kind for each in log.events()] == ["impression", "click"]
    Path("whole.yaml").write_text(file, encoding="utf-8")
    with names["Experiment"].from_config("whole.yaml") as whole:
        assert (whole.options.traffic, whole.options.layer) == (0.2, LayerOptions("ranking", 0.0, 0.5))


def test_the_example_of_a_reading_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It writes its log and comes to the decision that stands beside it."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", READING, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "experiments.md", "exec"), names)  # noqa: S102  # our own document
    (said,) = re.findall(r"^print\(reading.decision\)  # (.*)$", block, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == [said, names["reading"].reason]
    assert names["reading"].effects[0].fixed is not None
