"""Pages that are made when the site is built: the reference, from docstrings and parsers, and the cards.

A page that is written by hand from the code drifts from it; these cannot.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "model_cards"
ROOMS = {  # of the package, each with the title of its page
    "data": "Data",
    "models": "Models",
    "training": "Training",
    "transfer": "Transfer",
    "evaluation": "Evaluation and baselines",
    "inference": "Inference",
    "hub": "Hub",
}
ELSEWHERE = {"tokenization": "data", "classical": "evaluation", "blending": "models"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the cards with their pictures, and the benchmarks."""
    for room, text in public_names().items():
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    for path in (*CARDS.glob("*.md"), *CARDS.glob("plots/*.png")):
        if path.name != "template.md":
            name = path.relative_to(CARDS).as_posix()
            content = path.read_text(encoding="utf-8") if path.suffix == ".md" else path.read_bytes()
            files.append(File.generated(config, f"results/{name}", content=content))
    speed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "results/speed.md", content=speed))
    for path in (ROOT / "examples").iterdir():
        if path.suffix in (".py", ".ipynb"):
            files.append(File.generated(config, f"examples/{path.name}", content=path.read_bytes()))
    for path in (ROOT / "benchmarks").glob("*.png"):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that hold in the repository at where the site has the page."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace("](../benchmarks/README.md", f"]({up}results/speed.md")
    markdown = markdown.replace("](../model_cards/", f"]({up}results/").replace("](../docs/", f"]({up}")
    markdown = re.sub(r"<!-- file: (\S+) -->", lambda match: shown_file(match[1]), markdown)
    markdown = re.sub(r"\]\(\.\./examples/([\w.]+)\)", f"]({up}examples/\\1)", markdown)
    return markdown.replace("<!-- table of results -->", results_table())


def shown_file(name: str) -> str:
    """A file of the repository as a block of code."""
    return f"```python\n{(ROOT / name).read_text(encoding='utf-8')}```"


def results_table() -> str:
    """The table that stands in the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition("<!-- results: benchmarks/quality/table.py -->")[2].partition("<!-- end of results -->")[0]


def public_names() -> dict[str, str]:
    """A page for each room, with what `hfrec` exports from it."""
    import hfrec

    pages = {room: [f"# {title}\n"] for room, title in ROOMS.items()}
    for name in sorted(hfrec.__all__):
        found: Any = getattr(hfrec, name)
        module = getattr(found, "__module__", None)
        if module is None or not module.startswith("hfrec."):
            continue  # the version, and modules
        room = module.split(".")[1]
        page = pages[ELSEWHERE.get(room, room)]
        page.append(f"::: {module}.{found.__name__}\n")
    return {room: "\n".join(lines) for room, lines in pages.items()}


def commands_page() -> str:
    """What `hfrec COMMAND --help` prints, command by command."""
    from hfrec_command import COMMANDS, main

    lines = ["# Commands\n", "What `hfrec COMMAND --help` prints.\n"]
    os.environ["COLUMNS"] = "88"  # what the page shows without scrolling
    for name in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([name, "--help"])
        lines += [f"## {name}\n", "```text", shown.getvalue().rstrip(), "```\n"]
    return "\n".join(lines)
