"""Where transfer pays: arms from scratch to L2-SP on ever larger shares of a target's users.

hfrec study --model_name_or_path out --source_file source.csv --target_file target.csv --output_dir study
hfrec study study.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfrec.commands.parsing import parse_into

from ..arguments import StudyArguments

parse = parse_into("study", StudyArguments)


def main(arguments: StudyArguments) -> list[dict[str, Any]]:
    """Run what is not done yet, then write `study.csv`, `study.md` and the plots."""
    from hfrec.data.files import whole_files

    from ..plots import plot
    from ..report import markdown, tradeoff_markdown, write_csv
    from ..schedule import run_study

    finals, tradeoff = run_study(arguments)
    seen = "seen items filtered" if finals[0].get("decided_by") != "unfiltered" else "seen items not filtered"
    table = f"Ranks over the target's items, {seen}.\n\n{markdown(finals)}"
    if tradeoff:
        table += f"\nAt {arguments.tradeoff_fraction:.0%} of the users:\n\n{tradeoff_markdown(tradeoff)}"
    with whole_files(Path(arguments.output_dir)) as draft:
        write_csv(finals, draft / "study.csv")
        if tradeoff:
            write_csv(tradeoff, draft / "tradeoff.csv")
        (draft / "study.md").write_text(table, encoding="utf-8")
        plot(table, finals, draft)
    print(table)
    return finals
