"""What is in the wheel and in the source archive: an installed llmrank has the same templates as a checkout."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from llmrank.template import Templates, packaged_directory

ROOT = Path(__file__).resolve().parents[2]
PROBE = (
    "import json; from llmrank.template import Templates, packaged_directory;"
    "t = Templates(); print(json.dumps([str(packaged_directory()), {n: t.get(n).fingerprint for n in t.names()}]))"
)


def run(*arguments: str, **options: object) -> str:
    """Runs this Python; what it printed."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from this checkout by the build backend alone."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    return folder


def expected() -> dict[str, str]:
    """The checkout's templates and their fingerprints."""
    templates = Templates()
    return {name: templates.get(name).fingerprint for name in templates.names()}


def test_an_installed_wheel_has_the_checkouts_templates(built: Path, tmp_path: Path) -> None:
    """Installed elsewhere and run elsewhere, it finds its own templates, with the same fingerprints, and its typing marker."""
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "site"
    run(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
        str(wheel),
    )
    # -P and no PYTHONPATH of ours but the target: neither the checkout nor its editable install may answer.
    script = f"import sys; sys.path.insert(0, {str(target)!r}); {PROBE}"
    where, fingerprints = json.loads(run("-P", "-c", script, cwd=tmp_path))
    assert Path(where) == target / "llmrank" / "prompts"
    assert fingerprints == expected()
    assert (target / "llmrank" / "py.typed").is_file()
    assert (target / "llmrank" / "prompts" / "_sample.json").is_file()


def test_the_editable_install_has_the_checkouts_templates(tmp_path: Path) -> None:
    """The development install reads the top-level folder, so that an edit is seen at once."""
    where, fingerprints = json.loads(run("-P", "-c", PROBE, cwd=tmp_path))
    assert Path(where) == packaged_directory() == ROOT / "prompts"
    assert fingerprints == expected()


def test_the_source_archive_has_the_templates(built: Path) -> None:
    """Who builds from the archive gets every file of `prompts/`."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "prompts").rglob("*") if path.is_file()}
    assert len(wanted) > 20
    assert wanted <= names
