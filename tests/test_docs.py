"""The blocks of the documentation run, page by page, or say above them why not."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from hfrec_command import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^(?P<above>[^\n]*)\n+```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = {"text", "diff", "sql", "yaml", "json", "dockerfile", "html"}  # languages of blocks that nobody runs


class Block(NamedTuple):
    """A block of code with the line above it."""

    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        reason = re.fullmatch(r"<!-- not run: (.+) -->", match["above"])
        found.append(Block(match["language"], match["text"], reason[1] if reason else None))
    return found


def run_block(block: Block, names: dict[str, object]) -> None:
    """Run a block: commands of hfrec one by one, Python as it stands."""
    if block.language == "python":
        exec(compile(block.text, "docs", "exec"), names)
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "hfrec", f"{line}: only commands of hfrec run here; say above the block why it does not"
            assert main(words[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_has_a_language(page: Path) -> None:
    """A block without one is neither coloured nor run."""
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in SHOWN | {"bash", "python"}, block.text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages start from: a log, prepared, and two checkpoints of it."""
    folder = tmp_path_factory.mktemp("docs")
    small = "--num_train_epochs 1 --max_length 20 --disable_tqdm true"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "prepare --dataset synthetic --output_dir prepared",
            f"pretrain --dataset synthetic --output_dir pretrained --hidden_size 32 {small}",
            f"finetune --model_name_or_path pretrained --dataset synthetic --output_dir tuned {small}",
        ):
            assert main(line.split()) == 0
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.csv.write_csv(pyarrow.parquet.read_table(folder / "prepared" / "interactions.parquet"), folder / "log.csv")
    return folder


RUNNING = [page for page in PAGES if any(not block.reason and block.language not in SHOWN for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(
    page: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page whose commands fail sends the reader away."""
    shutil.copytree(folders, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.reason is None and block.language not in SHOWN:
            run_block(block, names)
