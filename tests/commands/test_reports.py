"""Pages: what they show is what was measured, and names are text, whatever they hold."""

import json
import re
import shutil
from pathlib import Path

import pyarrow
import pyarrow.csv
import pytest

from hfrec import load_checkpoint
from hfrec_command import main

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def page(checkpoint: Path, log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """The page and the results of an evaluation with names that are markup."""
    folder = tmp_path_factory.mktemp("report")
    model, tokenizer = load_checkpoint(checkpoint)
    titles = pyarrow.array([f"{EVIL} & {item}" for item in tokenizer.items["item_id"].to_pylist()])
    tokenizer._items = tokenizer.items.append_column("title", titles)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    table = pyarrow.csv.read_csv(log_file)
    users = pyarrow.array([f"<img src=x onerror=1>{user}" for user in table["user_id"].to_pylist()])
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("user_id"), "user_id", users), folder / "log.csv")
    words = ["evaluate", "--model_name_or_path", str(folder / "model"), "--test_file", str(folder / "log.csv")]
    assert main([*words, "--output_dir", str(folder / "out"), "--report", str(folder / "report.html")]) == 0
    results = json.loads((folder / "out" / "eval_results.json").read_text())
    return (folder / "report.html").read_text(encoding="utf-8"), results


def test_names_are_text(page: tuple[str, dict[str, object]]) -> None:
    """A title of a shop's catalogue would run in the browser of whoever opens the page."""
    html, _ = page
    assert "<script" not in html and "<img" not in html
    assert (
        "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; i" in html and "&lt;img src=x onerror=1&gt;u" in html
    )


def test_it_needs_nothing_from_anywhere(page: tuple[str, dict[str, object]]) -> None:
    """A page that asks a server for its style shows nothing in a mail, and tells the server who reads it."""
    html, _ = page
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?:", re.sub(r"&lt;.*?&gt;", "", html))
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html and html.count("<svg") > 10


def test_it_shows_what_was_measured(page: tuple[str, dict[str, object]]) -> None:
    """Figures that are worked out again for the page may differ from those that are kept."""
    from hfrec.evaluation.verdict import short

    html, results = page
    for setting in ("filter_seen", "unfiltered"):
        for row in (results, *results["baselines"].values()):  # type: ignore[attr-defined]
            low, high = row[setting]["ndcg@10_ci"]
            assert f"{short(row[setting]['ndcg@10'])} [{short(low)}, {short(high)}]" in html
    assert "cohorts" not in results and "history 4-10" in html and "target head" in html
    assert "Gini index" in html and html.count('class="user"') == 6
    bars = re.findall(r"([\d.]+)% · ([\d.]+)%", html)
    assert sum(float(first) for first, _ in bars[::2]) == pytest.approx(100, abs=0.5)


def test_the_page_of_a_comparison(checkpoint: Path, tmp_path: Path) -> None:
    """Every difference of the file stands on the page."""
    words = ["compare", f"mine={checkpoint}", f"again={checkpoint}", "--n_bootstrap", "50"]
    words += ["--output_file", str(tmp_path / "compare.json"), "--report", str(tmp_path / "compare.html")]
    assert main(words) == 0
    compared = json.loads((tmp_path / "compare.json").read_text())
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    rows = [row for setting in compared["comparisons"].values() for row in setting]
    assert html.count("<h3>mine − again</h3>") == 2 and "<td>mine − again</td>" not in html  # of one pair, a title
    assert html.count("<td>all</td>") == sum(row["cohort"] == "all" for row in rows) > 2
    assert "+.0000 [+.0000, +.0000]" in html


def test_pages_name_runs_and_no_machine(checkpoint: Path, tmp_path: Path, page: tuple[str, dict[str, object]]) -> None:
    """A page that is handed on shows where its author's folders lie, and breaks its tables with that."""
    html, results = page
    assert str(Path(str(results["model"])).parent) not in html and "<h1>model</h1>" in html and " of log.csv" in html
    shutil.copytree(checkpoint, tmp_path / "third")
    words = ["compare", str(checkpoint), str(tmp_path / "third"), f"again={checkpoint}", "--n_bootstrap", "50"]
    words += ["--output_file", str(tmp_path / "compare.json"), "--report", str(tmp_path / "compare.html")]
    assert main(words) == 0
    html = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert f"<td>{checkpoint.name} − third</td>" in html and str(tmp_path) not in html
    assert str(checkpoint.parent) not in html


def test_another_file_than_a_page_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log itself named as the page would be overwritten by it."""
    assert main(["compare", "a", "--report", str(tmp_path / "log.csv")]) == 1
    assert "`--report` must name a file that ends in .html" in capsys.readouterr().err
