"""Files that commands write: lists of items, pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FORMATS = (".csv", ".parquet", ".jsonl", ".json")


def checked_output(output_file: str) -> Path:
    """The file that rows are written to.

    Raises:
        ValueError: Another kind of file, a folder, or part of a checkpoint, which would be lost.
    """
    from ..hub.push import checkpoint_names

    output = Path(output_file)
    if output.suffix not in FORMATS:
        raise ValueError(f"`output_file` must end in {', '.join(FORMATS)}, found {output.name!r}.")
    if output.is_dir():
        raise ValueError(f"`output_file` {output} is a folder: name a file.")
    if output.exists() and (output.parent / "config.json").exists() and output.name in checkpoint_names(output.parent):
        raise ValueError(f"`output_file` {output} is part of a checkpoint, which would be lost: name another file.")
    return output


def write_rows(rows: list[dict[str, Any]], output: Path, *, escape_formulas: bool = False) -> None:
    """Write rows as CSV, Parquet, JSON lines or one JSON list, whole or not at all.

    Args:
        rows: Cells by column.
        output: File; its suffix decides.
        escape_formulas: In CSV, a `'` before text that a spreadsheet would calculate.
    """
    import json

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from ..data.files import whole_file

    if escape_formulas and output.suffix == ".csv":
        rows = [{name: _escaped(cell) for name, cell in row.items()} for row in rows]
    table = pa.Table.from_pylist(rows)
    with whole_file(output) as draft:
        if output.suffix == ".csv":
            pyarrow.csv.write_csv(table, draft)
        elif output.suffix == ".parquet":
            pyarrow.parquet.write_table(table, draft)
        elif output.suffix == ".json":
            draft.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        else:
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _escaped(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def check_page(path: str | None) -> None:
    """Refuse a file for a page that no browser would open as one.

    Raises:
        ValueError: Another suffix, or a folder.
    """
    if path is not None and (Path(path).suffix not in (".html", ".htm") or Path(path).is_dir()):
        raise ValueError(f"`--report` must name a file that ends in .html, found {path!r}.")
