"""The project's own promises: set-up commands, pins, one version, a documented public name, no machine's paths."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import scjepa

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = [
    "baselines", "baselines.modalities", "baselines.times", "datasets", "dynamics", "losses", "metrics", "nn", "omics", "pharma", "pl", "tl",
]  # fmt: skip
"""rooms whose public names users import; the models are re-exported by scjepa itself"""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def readme_commands() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / ".ci" / "readme_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), "exact versions, no local tag"
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def requirements() -> list[tuple[str, str]]:
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    parsed = [re.fullmatch(r"([A-Za-z0-9-]+)(?:\[[a-z,]+\])?(.*)", r) for r in PROJECT["dependencies"] + extras]
    assert all(parsed)
    return [(m[1].lower(), m[2]) for m in parsed if m]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


# ---------------------------------------------------------------- README


def test_readme_marks_exactly_the_two_setup_commands():
    commands = readme_commands().commands(read("README.md"))
    assert list(commands) == ["demo", "test"]
    for command in commands.values():
        assert "-m venv" in command and "-c constraints.txt" in command
    assert commands["demo"].endswith("-m scjepa demo --out demo-out")
    assert commands["test"].endswith("-m pytest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("<!-- ci:test -->", ""), r"marks the commands \['demo'\]"),
        (lambda text: text + "\n```bash\nls\n```\n", "2 ci comments and 3 bash blocks"),
        (lambda text: text.replace(" && .venv-demo/bin/python -m scjepa", "\nscjepa"), "'demo' has 2 lines"),
    ],
)
def test_readme_with_other_commands_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        readme_commands().commands(change(read("README.md")))


@pytest.mark.parametrize("name", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))])
def test_python_blocks_of_the_documentation_are_python_and_use_public_names(name):
    for block in re.findall(r"^```python\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "scjepa":
                assert node.attr in [*scjepa.__all__, *ROOMS], f"{name}: scjepa.{node.attr}"


# ---------------------------------------------------------------- dependencies and version


def test_constraints_pin_the_tested_torch():
    assert pins()["torch"] == "2.13.0"


def test_requirements_are_at_most_twelve_lower_bounds_that_the_pins_satisfy():
    assert len(PROJECT["dependencies"]) <= 12
    pinned = pins()
    for name, bound in requirements():
        match = re.fullmatch(r">=([0-9.]+)", bound)
        assert match, f"{name}{bound}: a lower bound only"
        assert numbers(pinned[name]) >= numbers(match[1]), f"{name}: {pinned[name]} is below {bound}"


def test_the_version_has_one_source():
    version = PROJECT["version"]
    assert scjepa.__version__ == version
    literals = [p.name for p in ROOT.glob("src/**/*.py") if f'"{version}"' in p.read_text(encoding="utf-8")]
    assert literals == []
    assert f"\nversion: {version}\n" in read("CITATION.cff")


def test_changelog_has_an_entry_for_this_version():
    assert re.search(rf"^## \[{re.escape(PROJECT['version'])}\]", read("CHANGELOG.md"), re.MULTILINE)


# ---------------------------------------------------------------- documentation and files


def documented() -> set[str]:
    page = read("docs/api.md")
    return {
        name
        for line in (r"^ {4}([A-Za-z_][\w.]*)$", r"^\.\. py:data:: scjepa\.(\S+)$")
        for name in re.findall(line, page, re.MULTILINE)
    }


def test_every_public_name_is_in_the_api_page():
    public = {name for name in scjepa.__all__ if not isinstance(getattr(scjepa, name), ModuleType | str)}
    for room in ROOMS:
        module = importlib.import_module(f"scjepa.{room}")
        public |= {f"{room}.{name}" for name in module.__all__}
    assert public - documented() == set(), "missing from docs/api.md"
    assert documented() - public == set(), "in docs/api.md, but not public"


def test_every_module_says_what_it_is_for_and_every_room_names_its_public_names():
    for info in pkgutil.walk_packages(scjepa.__path__, "scjepa."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        assert module.__doc__, f"{info.name} has no docstring"
        if info.ispkg:
            assert all(hasattr(module, name) for name in module.__all__), info.name


def test_no_file_names_a_place_of_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    place = re.compile(r"(?<![\w.~-])/" + r"(?:home|Users|root|work|tmp|opt|mnt)" + r"/[\w.]")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".h5ad", ".gz", ".npz", ".pt", ".safetensors"} or not path.is_file():
            continue
        hit = place.search(path.read_text(encoding="utf-8"))
        assert hit is None, f"{name}: {hit and hit[0]}"
