"""`hfrec refresh --push_to_hub true`: one commit after the verdict, of what was judged."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from hfrec_command import main
from tests.hub.conftest import ROOT, Client, client_environment
from tests.hub.loopback import Hub
from tests.hub.test_training import RUN, SHAPE


def test_only_what_is_promoted_is_pushed_and_once(hub: Hub, client: Client, log_file: Path, tmp_path: Path) -> None:
    """Every epoch was published before the verdict, with the old card and the pickled arguments."""
    start = ["pretrain", "--train_file", str(log_file), "--output_dir", str(tmp_path / "old"), *SHAPE, *RUN]
    assert main(start) == 0
    times = sorted(pyarrow.csv.read_csv(log_file)["timestamp"].to_pylist())
    words = ["refresh", "--model_name_or_path", str(tmp_path / "old"), "--train_file", str(log_file), *RUN]
    words += ["--test_start", str(times[len(times) * 3 // 4]), "--n_bootstrap", "20", "--learning_rate", "0"]
    words += ["--push_to_hub", "true", "--hub_model_id", "ann/daily", "--new_item_start", "random", "--tag", "monday"]
    assert client("command", *words, "--output_dir", str(tmp_path / "new")) == 0
    assert hub.log("ann/daily") == ["Refresh with hfrec: promoted", "initial commit"]
    files = set(hub.files("ann/daily"))
    assert {"README.md", "all_results.json", "refresh_report.md", "model.safetensors", "items.parquet"} <= files
    assert "training_args.bin" not in files and not [name for name in files if name.startswith("checkpoint-")]
    card = hub.content("ann/daily", "README.md")
    assert b"Verdict: promote" in card and b"# ann/daily" in card
    assert hub.content("ann/daily", "model.safetensors") == (tmp_path / "new" / "model.safetensors").read_bytes()
    assert hub.files("ann/daily", "monday") == hub.files("ann/daily")
    # The same tag again: nothing is sent, and the folder says how to push it.
    assert client("command", *words, "--output_dir", str(tmp_path / "again")) == 1
    assert "`--tag` 'monday' is in ann/daily already" in client.printed()
    assert len(hub.log("ann/daily")) == 2


PAGE = (ROOT / "docs" / "refresh.md").read_text(encoding="utf-8")
PROGRAM = "import sys; from hfrec_command import main; sys.exit(main())"
COMMAND = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{PROGRAM}' \"$@\"\n"


def example(heading: str) -> str:
    """The block of code below a heading of the page."""
    found = re.search(rf"## {heading}\n.*?```bash\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, heading
    return found[1]


def recent_log(log_file: Path, path: Path) -> None:
    """The log as if it had ended today."""
    table = pyarrow.csv.read_csv(log_file)
    now, times = datetime.datetime.now(datetime.timezone.utc), table["timestamp"].to_pylist()
    first, last = min(times), max(times)
    days = [30 * (last - moment) / (last - first) for moment in times]
    dates = pa.array([(now - datetime.timedelta(days=age)).strftime("%Y-%m-%dT%H:%M:%S") for age in days])
    path.parent.mkdir(parents=True)
    pyarrow.csv.write_csv(table.set_column(table.column_names.index("timestamp"), "timestamp", dates), path)


@pytest.mark.slow
def test_the_script_of_the_night_and_the_way_back_run_as_written(
    hub: Hub, client: Client, log_file: Path, tmp_path: Path
) -> None:
    """Nobody looks at a cron job that fails in its second line before the shop has sold nothing for a week."""
    recent_log(log_file, tmp_path / "data" / "log" / "interactions.csv")
    start = ["pretrain", "--train_file", str(tmp_path / "data" / "log"), "--output_dir", str(tmp_path / "old")]
    assert main([*start, *SHAPE, *RUN]) == 0
    assert client("command", "push", str(tmp_path / "old"), "ann/night", "--tag", "2024-06-07") == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hfrec").write_text(COMMAND)
    (tmp_path / "bin" / "hfrec").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = client_environment(hub, tmp_path / "home", PATH=path)

    def run(script: str) -> str:
        for name, place in (("/data/log", "data/log"), ("/var/lib/films", "films")):
            script = script.replace(name, str(tmp_path / place))
        script = script.replace("me/films", "ann/night").replace(" log.csv", f" {tmp_path / 'data' / 'log'}")
        found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    last = run(example("Every night")).strip().splitlines()[-1]
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    assert last.startswith(today) and ("promoted" in last or "the old model stays" in last)
    pushed = "Refresh with hfrec: promoted" in hub.log("ann/night")
    assert pushed == ("promoted" in last)
    assert (tmp_path / "films" / today / "refresh_report.md").is_file()
    run(example("Roll back"))
    assert hub.content("ann/night", "model.safetensors") == (tmp_path / "old" / "model.safetensors").read_bytes()
    assert (tmp_path / "r.csv").is_file()
    assert ("Back to 2024-06-07" in hub.log("ann/night")) == pushed
