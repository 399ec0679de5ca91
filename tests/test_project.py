"""The project's papers agree with each other: versions, ranges, pins, licence, and the card template."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in the standard library from Python 3.11 on")
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def _pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_one_version_everywhere(project: dict[str, Any]) -> None:
    """A release whose citation, package and attribute disagree cannot be cited."""
    source = (ROOT / "hfrec" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    assert found is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {project["version"], found.group(1), citation["version"]} == {project["version"]}


def test_every_dependency_has_both_bounds(project: dict[str, Any]) -> None:
    """Without an upper bound, a release of somebody else breaks an install that worked yesterday."""
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, requirements):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert {">=", "<"} <= operators, f"{requirement} needs a lower and an upper bound"


def test_every_dependency_is_pinned_inside_its_range(project: dict[str, Any]) -> None:
    """An unpinned dependency makes `make test` depend on the day; a pin outside its range cannot be installed."""
    pins = _pins()
    for requirement in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["dev"]]):
        own = [pin for pin in pins if _plain(pin.name) == _plain(requirement.name)]
        assert own, f"{requirement.name} has no pin in constraints.txt"
        for pin in own:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version), f"{pin} lies outside {requirement}"
        for python in ("3.10", "3.11", "3.12", "3.13"):
            fitting = [pin for pin in own if pin.marker is None or pin.marker.evaluate({"python_version": python})]
            assert len(fitting) == 1, f"{requirement.name} has {len(fitting)} pins on Python {python}"


def test_every_imported_library_is_declared(project: dict[str, Any]) -> None:
    """A library that only comes along with another one is missing on the day that one drops it."""
    declared = {_plain(Requirement(text).name) for text in project["dependencies"]}
    # Used where the user brings them.
    optional = {
        "faiss",
        "fastapi",
        "gradio",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "optuna",
        "pandas",
        "peft",
        "polars",
        "prometheus_client",
        "pydantic",
        "redis",
        "sklearn",
        "starlette",
        "tensorboard",
        "trackio",
        "uvicorn",
    }
    names = {"yaml": "pyyaml"}
    undeclared: dict[str, str] = {}
    for path in sorted((ROOT / "hfrec").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for module in (name.split(".")[0] for name in modules):
                known = module in sys.stdlib_module_names or module in optional or module in ("hfrec", "hfrec_command")
                if not known and _plain(names.get(module, module)) not in declared:
                    undeclared[module] = str(path.relative_to(ROOT))
    assert not undeclared, f"declare these in pyproject.toml: {undeclared}"


def test_licence_is_the_full_apache_text() -> None:
    """A licence that was cut or swapped is not the one that pyproject.toml promises."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) > 190


def test_card_template_renders_and_claims_nothing_unknown() -> None:
    """A card that renders an unknown number as an empty cell reads as if there were none to state."""
    data = ModelCardData(license="apache-2.0", library_name="transformers", tags=["hfrec"])
    template = str(ROOT / "model_cards" / "template.md")
    empty = ModelCard.from_template(data, template_path=template)
    assert empty.data.license == "apache-2.0"
    assert "| Split | *not stated* |" in empty.text
    assert "*not evaluated*" in empty.text
    assert "{{" not in empty.text
    assert not re.search(r"\|\s*\|$", empty.text.replace("| | |", ""), re.MULTILINE)
    filled = ModelCard.from_template(data, template_path=template, split="leave-one-out", limits=["Films only."])
    assert "| Split | leave-one-out |" in filled.text
    assert "\n- Films only.\n" in filled.text


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_hold_no_more_rights_than_they_need(path: Path) -> None:
    """A tag of an action can be moved to other code, and a token that stays in the checkout be read by any step."""
    workflow = yaml.safe_load(path.read_text())
    assert "pull_request_target" not in path.read_text()
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        writes = {name for name, right in job.get("permissions", {}).items() if right == "write"}
        assert writes <= ({"id-token"} if path.name == "release.yml" else set())
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", ""), "text of others would be run"
