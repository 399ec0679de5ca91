"""The ranks of each test user's target under a model and its baselines, kept in a file beside the results.

The file holds user ids: it stays at home, `push_to_hub` leaves it out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.files import check_file, whole_file
from .cohorts import BoolArray
from .ranking import PROTOCOLS

RANKS_FILE = "test_ranks.parquet"
MODEL = "model"
NamedRanks = Mapping[str, Mapping[str, NDArray[np.int64]]]
_ABOUT = b"hfrec"


@dataclass(frozen=True, eq=False)
class UserRanks:
    """Ranks of one run on its test users.

    Args:
        user_ids: (n,) raw user ids.
        item_ids: (n,) raw ids of the targets.
        ranks: `model` and the names of the baselines -> `filter_seen` and `unfiltered` -> (n,) ranks, 0 is a miss.
        cohorts: Name -> (n,) bool, as `hfrec.evaluation.cohorts` makes them; may be empty.
        about: What must be equal in two files that are compared, such as `protocol` and fingerprints; and `num_items`.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    ranks: NamedRanks
    cohorts: Mapping[str, BoolArray]
    about: Mapping[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the Parquet file, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {"user_id": pa.array(self.user_ids, pa.string())}
        columns["item_id"] = pa.array(self.item_ids, pa.string())
        for name, found in self.ranks.items():
            columns |= {f"rank/{name}/{setting}": pa.array(found[setting], pa.int32()) for setting in PROTOCOLS}
        columns |= {f"cohort/{name}": pa.array(mask) for name, mask in self.cohorts.items()}
        table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(dict(self.about)).encode()})
        with whole_file(Path(path)) as draft:
            pq.write_table(table, draft)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> UserRanks:
        """Read the file of a run, rows in the order of the user ids.

        Args:
            path: The folder of a run, or its `test_ranks.parquet`.

        Raises:
            FileNotFoundError: The run has no such file.
            ValueError: Another Parquet file, one that is damaged or not as it was written, or several rows of a user.
        """

        file = Path(path) / RANKS_FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} has no {RANKS_FILE}: expected the output folder of `hfrec pretrain`, `finetune` or "
                "`evaluate`. A run of an earlier version has none: test its checkpoint with `hfrec evaluate`."
            )
        check_file(file)
        table, about = _read_ranks(file)
        users = table["user_id"].to_pylist()
        if len(set(users)) < len(users):
            raise ValueError(f"{file} has several targets of a user: expected one, as users are what is resampled.")
        ranks: dict[str, dict[str, NDArray[np.int64]]] = {}
        cohorts: dict[str, BoolArray] = {}
        for name in table.column_names[2:]:
            kind, _, rest = name.partition("/")
            values = table[name].to_numpy()
            if kind == "cohort":
                cohorts[rest] = values.astype(bool)
            else:
                model, _, setting = rest.rpartition("/")
                ranks.setdefault(model, {})[setting] = values.astype(np.int64)
        return cls(users, table["item_id"].to_pylist(), ranks, cohorts, about)


def _read_ranks(file: Path) -> tuple[Any, dict[str, Any]]:
    """The table of a file, rows in the order of the user ids, and what it says of itself.

    Raises:
        ValueError: Not what `UserRanks.save` writes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{file} is damaged, or no file of ranks ({type(error).__name__}: {error}): expected a {RANKS_FILE} that "
            "hfrec wrote. Copy it again, or test the checkpoint again with `hfrec evaluate`."
        ) from error
    if not isinstance(about, dict) or not _is_of_ranks(table):
        found = ", ".join(f"{column.name} {column.type}" for column in table.schema)
        raise ValueError(
            f"{file} is no file of ranks: expected `user_id`, `item_id` and whole numbers of at least 0 for "
            f"rank/{MODEL}/{PROTOCOLS[0]} and its like, without nulls, found {len(table):,} rows of {found[:200]}. "
            "Test the checkpoint again with `hfrec evaluate`."
        )
    return table.sort_by("user_id"), about


def _is_of_ranks(table: Any) -> bool:
    """Whether a table has the columns that `UserRanks.save` writes, each whole."""
    import pyarrow.compute as pc

    names, kinds = table.column_names, {"rank": "int32", "cohort": "bool"}
    ranked = [name for name in names[2:] if name.startswith("rank/")]
    models = {MODEL, *(name.removeprefix("rank/").rpartition("/")[0] for name in ranked)}
    wanted = {f"rank/{model}/{setting}" for model in models for setting in PROTOCOLS}
    return (
        len(table) > 0
        and names[:2] == ["user_id", "item_id"]
        and [str(column.type) for column in table.schema]
        == ["string", "string", *(kinds.get(name.partition("/")[0]) for name in names[2:])]
        and sorted(ranked) == sorted(wanted)
        and not any(column.null_count for column in table.columns)
        and all(pc.min(table[name]).as_py() >= 0 for name in ranked)
    )
