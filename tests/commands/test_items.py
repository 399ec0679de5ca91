"""`hfrec items`: a saved checkpoint gets another catalogue, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hfrec import load_checkpoint
from hfrec_command import main


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def rows(folder: Path) -> dict[str, torch.Tensor]:
    model, tokenizer = load_checkpoint(folder)
    return {item: model.decoder.weight[row].detach() for item, row in tokenizer.get_vocab().items()}


def run(action: str, checkpoint: Path, *words: Any) -> int:
    return main(["items", action, "--model_name_or_path", str(checkpoint), *map(str, words)])


def test_align_keeps_matched_rows_on_disk(checkpoint: Path, tmp_path: Path) -> None:
    """A folder whose tokenizer and weights disagree loads and recommends the wrong items."""
    before = rows(checkpoint)
    known = [item for item in before if item.startswith("i")][:3]
    items = write(tmp_path / "new.csv", "sku,title\n" + "".join(f"s{n},T{n}\n" for n in range(4)))
    mapping = write(tmp_path / "map.csv", "old,new\n" + "".join(f"{item},s{n}\n" for n, item in enumerate(known)))
    words = ["--items_file", items, "--item_column", "sku", "--mapping_file", mapping]
    assert run("align", checkpoint, *words, "--output_dir", tmp_path / "out") == 0
    after = rows(tmp_path / "out")
    assert len(after) == 3 + 4
    assert all(torch.equal(after[f"s{n}"], before[item]) for n, item in enumerate(known))
    report = json.loads((tmp_path / "out" / "catalogue.json").read_text())
    assert (report["num_matched"], report["new"], report["action"]) == (3, ["s3"], "align")
    _, tokenizer = load_checkpoint(tmp_path / "out")
    assert tokenizer.items["title"].to_pylist() == ["T0", "T1", "T2", "T3"]
    assert (tmp_path / "out" / "modeling_bert4rec.py").exists()


def test_add_remove_and_rename_undo_each_other(checkpoint: Path, tmp_path: Path) -> None:
    """Each action must write what the next one reads."""
    before = rows(checkpoint)
    known = next(item for item in before if item.startswith("i"))
    added = write(tmp_path / "add.csv", f"item_id,title\n{known},Known\n007,New\n")
    assert run("add", checkpoint, "--items_file", added, "--output_dir", tmp_path / "1") == 0
    assert rows(tmp_path / "1").keys() - before.keys() == {"007"}
    mapping = write(tmp_path / "map.csv", "old,new\n007,008\n")
    assert run("rename", tmp_path / "1", "--mapping_file", mapping, "--output_dir", tmp_path / "2") == 0
    removed = write(tmp_path / "remove.csv", "item_id\n008\n")
    assert run("remove", tmp_path / "2", "--items_file", removed, "--output_dir", tmp_path / "3") == 0
    after = rows(tmp_path / "3")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[item], before[item]) for item in before)


@pytest.mark.parametrize("action", ["add", "align"])
@pytest.mark.parametrize("start", ["mean", "neighbours", "ridge"])
def test_new_items_start_from_their_content(action: str, start: str, checkpoint: Path, tmp_path: Path) -> None:
    """Content read under the wrong ids, or not at all, leaves new items at random without a word."""
    before = rows(checkpoint)
    known = [item for item in before if item.startswith("i")]
    lines = [f"{item},{'even' if int(item[1:]) % 2 == 0 else 'odd'}" for item in known]
    items = write(tmp_path / "new.csv", "\n".join(["item_id,kind", *lines, "x,even", "y,odd", "z,"]))
    words = ["--items_file", items, "--start", start, "--spread", "1", "--category_column", "kind"]
    assert run(action, checkpoint, *words, "--output_dir", tmp_path / "out") == 0
    after = rows(tmp_path / "out")
    assert all(torch.equal(after[item], before[item]) for item in known)
    mean = torch.stack([before[item] for item in known]).mean(dim=0)
    away = {item: float((after[item] - mean).norm()) for item in "xyz"}
    assert away["z"] < 0.5 * before[known[0]].sub(mean).norm()  # no content: near the mean
    assert start == "mean" or away["z"] < min(away["x"], away["y"])


def test_a_dry_run_reports_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run that writes is none."""
    known = next(item for item in rows(checkpoint) if item.startswith("i"))
    items = write(tmp_path / "new.csv", f"item_id\n{known}\nx\n")
    assert run("align", checkpoint, "--items_file", items, "--dry_run") == 0
    printed = capsys.readouterr().out
    assert "1 of 2 items matched (50.0%), 1 new" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


START = "--model_name_or_path {checkpoint}"
FULL = START + " --items_file {items} --output_dir {out}"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("expected one of add, remove, rename, adopt, align, found drop", "drop"),
        ("expected one of add, remove, rename, adopt, align, found nothing", ""),
        ("`items align` needs `--items_file`", f"align {START} --dry_run"),
        ("Expected `--output_dir` for the new checkpoint, or `--dry_run`", f"remove {START} --items_file x"),
        ("unknown ones: x, y", f"remove {FULL}"),
        ("None of the 2 `items` is known", f"align {FULL}"),
        ("leads a, b onto the one item 'x'", f"align {FULL} --mapping_file {{mapping}}"),
        ("expected `--encoder`, `--category_column` or `--vector_column`", f"add {FULL} --start ridge"),
        ("items.csv: The items have no column 'brand'", f"add {FULL} --start ridge --category_column brand"),
        ("items.csv: Column 'kind': `values` must hold lists", f"add {FULL} --start ridge --vector_column kind"),
        ("at least 10 rows", f"add {FULL} --start ridge --category_column kind"),
        ("no column 'sku', found item_id, kind. Name its column", f"add {FULL} --item_column sku"),
        *(
            (
                "twice.csv: item 'x' has more than one row in `--items_file`. Keep one.",
                f"{action} {FULL}".replace("items}", "twice}"),
            )
            for action in ("add", "remove", "align", "adopt")
        ),
    ],
)
def test_refusals_are_one_line_and_leave_no_folder(
    message: str, words: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a checkpoint in the output folder would be taken for a whole one."""
    paths = {
        "checkpoint": checkpoint,
        "out": tmp_path / "out",
        "items": write(tmp_path / "items.csv", "item_id,kind\nx,a\ny,b\n"),
        "twice": write(tmp_path / "twice.csv", "item_id,kind\nx,a\nx,b\n"),
        "mapping": write(tmp_path / "map.csv", "old,new\na,x\nb,x\n"),
    }
    assert main(["items", *words.format(**paths).split()]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_moments_go_with_the_items_and_training_goes_on(
    checkpoint: Path, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moments left behind belong to other rows: a resumed run would move items by the history of others."""
    words = [
        "finetune",
        "--model_name_or_path",
        str(checkpoint),
        "--train_file",
        str(log_file),
        "--disable_tqdm",
        "true",
    ]
    assert main([*words, "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")]) == 0
    (old,) = (tmp_path / "run").glob("checkpoint-*")
    known = [item for item in rows(old) if item.startswith("i")]
    added = write(tmp_path / "add.csv", "item_id\nnew\n")
    assert run("add", old, "--items_file", added, "--output_dir", tmp_path / "grown") == 0
    removed = write(tmp_path / "remove.csv", "item_id\nnew\n")
    assert run("remove", tmp_path / "grown", "--items_file", removed, "--output_dir", tmp_path / "same") == 0
    before, grown, same = (
        torch.load(folder / "optimizer.pt", weights_only=True)["state"]
        for folder in (old, tmp_path / "grown", tmp_path / "same")
    )
    tables = {key for key, value in before.items() if value["exp_avg"].shape[0] == len(rows(old))}
    assert len(tables) == 2  # embeddings and bias
    for key, value in before.items():
        assert value["exp_avg_sq"].equal(same[key]["exp_avg_sq"]) and value["step"].equal(grown[key]["step"])
        if key in tables:
            assert grown[key]["exp_avg"][:-1].equal(value["exp_avg"]) and not grown[key]["exp_avg"][-1].any()
    words[2] = str(tmp_path / "grown")
    resume = ["--resume_from_checkpoint", str(tmp_path / "grown"), "--output_dir", str(tmp_path / "on")]
    assert main([*words, "--num_train_epochs", "2", *resume]) == 0
    steps = json.loads((tmp_path / "grown" / "trainer_state.json").read_text())["global_step"]
    assert {*known, "new"} <= rows(tmp_path / "on").keys() and (tmp_path / "on" / f"checkpoint-{2 * steps}").exists()
    (old / "optimizer.pt").write_bytes(b"not a file of torch")
    capsys.readouterr()
    assert run("add", old, "--items_file", added, "--output_dir", tmp_path / "never") == 1
    assert "not readable without running code" in capsys.readouterr().err and not (tmp_path / "never").exists()
