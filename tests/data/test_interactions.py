"""Reading a log: any source gives one table; what is wrong is named with file, row, column and value."""

from __future__ import annotations

import gzip
import re
from datetime import datetime
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfrec.data.columns import LogColumns
from hfrec.data.filters import LogFilters
from hfrec.data.interactions import concatenate_interactions, load_interactions

ROWS = {"user_id": ["u2", "u1", "u2", "u1"], "item_id": ["a", "b c", "b c", "a"], "timestamp": [5, 2, 1, 9]}
CSV = "user_id,item_id,timestamp\nu2,a,5\nu1,b c,2\nu2,b c,1\nu1,a,9\n"
EXPECTED = [("u1", "b c", 2), ("u1", "a", 9), ("u2", "b c", 1), ("u2", "a", 5)]


def rows(interactions):
    return list(
        zip(*(interactions.table[name].to_pylist() for name in ("user_id", "item_id", "timestamp")), strict=True)
    )


def log(users, items, times):
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


def write(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def every_source(folder: Path):
    yield write(folder / "a.csv", CSV)
    yield Path(write(folder / "a.csv.gz", CSV))
    yield write(folder / "a.tsv", CSV.replace(",", "\t"))
    lines = "\n".join(pd.DataFrame(ROWS).iloc[i].to_json() for i in range(4))
    yield write(folder / "a.jsonl", lines)
    yield write(folder / "a.jsonl.gz", lines)
    pq.write_table(pa.table(ROWS), folder / "a.parquet")
    yield folder / "a.parquet"
    yield pa.table(ROWS)
    yield pd.DataFrame(ROWS)
    yield pd.DataFrame(ROWS).astype({"user_id": "category", "item_id": object})
    yield pl.DataFrame(ROWS)
    yield pl.DataFrame(ROWS).lazy()
    yield datasets.Dataset.from_dict(ROWS)
    yield datasets.Dataset.from_dict({k: v[::-1] for k, v in ROWS.items()}).select([3, 2, 1, 0])


def test_every_source_gives_the_same_table(tmp_path):
    """Stops a source whose rows, order or fingerprint silently differ from the others'."""
    loaded = [load_interactions(source) for source in every_source(tmp_path)]
    assert [rows(interactions) for interactions in loaded] == [EXPECTED] * len(loaded)
    assert len({interactions.fingerprint for interactions in loaded}) == 1
    assert loaded[0].num_users == 2 and loaded[0].num_items == 2 and len(loaded[0]) == 4


def test_glob_and_folder_read_all_files_in_order(tmp_path):
    """Stops a folder of which only one file is read."""
    write(tmp_path / "part-1.csv", "user_id,item_id,timestamp\nu,b,1\n")
    write(tmp_path / "part-0.csv", "user_id,item_id,timestamp\nu,a,1\n")
    for source in (tmp_path, str(tmp_path / "part-*.csv")):
        assert rows(load_interactions(source)) == [("u", "a", 1), ("u", "b", 1)]


def test_folder_with_interactions_takes_items_beside_it(tmp_path):
    """Stops item titles from being read as interactions, or lost."""
    write(tmp_path / "interactions.csv", CSV)
    write(tmp_path / "items.csv", "item_id,title\na,Film A\nb c,Film B\n")
    write(tmp_path / "users.csv", "user_id,age\nu1,3\n")
    loaded = load_interactions(tmp_path)
    assert rows(loaded) == EXPECTED
    assert loaded.items.to_pylist() == [{"item_id": "a", "title": "Film A"}, {"item_id": "b c", "title": "Film B"}]


def test_ties_keep_the_order_of_the_source():
    """Stops an unstable sort, which would change the targets."""
    items = [str(number) for number in range(200)]
    assert load_interactions(log(["u"] * 200, items, [1] * 200)).table["item_id"].to_pylist() == items


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7, 10], ["10", "7"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1e12, 2.5], ["1000000000000", "2.5"]),  # one fraction in the column made another item of 1e12: "1e+12"
        ([True, False], ["false", "true"]),
        (["é", "007"], ["007", "é"]),
    ],
)
def test_ids_of_any_type_become_strings(ids, expected):
    """Stops 7 and "7" from being two users; users are sorted as strings."""
    assert load_interactions(log(ids, ["a", "a"], [1, 2])).table["user_id"].to_pylist() == expected


def test_csv_ids_keep_leading_zeros_and_pandas_ids_may_mix_types(tmp_path):
    """Stops "007" from becoming 7."""
    source = write(tmp_path / "a.csv", "u,item_id,t,rating\n007,NA,1,4.5\n")
    loaded = load_interactions(source, columns=LogColumns(user_column="u", timestamp_column="t"))
    assert loaded.table.to_pylist() == [{"user_id": "007", "item_id": "NA", "timestamp": 1, "rating": 4.5}]
    mixed = pd.DataFrame({"user_id": [1, "x"], "item_id": ["a", 2], "timestamp": [1, 2]})
    assert rows(load_interactions(mixed)) == [("1", "a", 1), ("x", "2", 2)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["3", "1"], [1, 3]),
        (["1.5", "1"], [1.0, 1.5]),
        (["2024-01-02", "2024-01-01"], [datetime(2024, 1, 1), datetime(2024, 1, 2)]),
        (["2024-01-01T02:00:00+02:00", "2023-12-31T23:00:00Z"], [datetime(2023, 12, 31, 23), datetime(2024, 1, 1)]),
        ([datetime(2024, 1, 1, 5), datetime(2024, 1, 1)], [datetime(2024, 1, 1), datetime(2024, 1, 1, 5)]),
    ],
)
def test_times_as_numbers_strings_and_datetimes(times, expected):
    """Stops times from being sorted as text ("10" before "9")."""
    assert load_interactions(log(["u", "u"], ["a", "b"], times)).table["timestamp"].to_pylist() == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "user,item_id,timestamp\nu,a,1\n", ["'user_id'", "`user_column`", "user, item_id, timestamp"]),
        ("a.csv", "", ["a.csv", "empty"]),
        ("a.csv.gz", "", ["a.csv.gz", "empty"]),
        ("a.csv", "user_id,item_id,timestamp\n", ["a.csv", "no rows"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a,1\nv,,2\n", ["a.csv", "row 2", "'item_id'", "None"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a,1\nv,b,\n", ["row 2", "'timestamp'", "None"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a,1\nv,b,2\nv,c,soon\n", ["a.csv", "row 3", "'timestamp'", "'soon'"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a,2024-01-01\nv,b,2024-13-01\n", ["row 2", "'2024-13-01'"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a,1.5\nv,b,nan\n", ["row 2", "nan"]),
        ("a.csv", "user_id,item_id,timestamp\nu,a\n", ["a.csv", "not readable"]),
        ("a.xlsx", "x", ["a.xlsx", "unknown format", ".parquet"]),
        ("a.parquet", "x", ["a.parquet", "not readable"]),
    ],
)
def test_bad_files_are_named_with_row_column_and_value(tmp_path, name, text, words):
    """Stops bad rows from being guessed at or dropped without a word."""
    with pytest.raises(ValueError) as error:
        load_interactions(write(tmp_path / name, text))
    assert [word for word in words if word not in str(error.value)] == []


def test_the_first_unparsable_row_is_found_among_many():
    """Stops an error that blames the wrong row."""
    times = [str(number) for number in range(5000)]
    times[3217] = times[4000] = "x"
    with pytest.raises(ValueError, match=r"row 3218 .*'x'"):
        load_interactions(log(["u"] * 5000, ["a"] * 5000, times))


def test_missing_sources_are_errors(tmp_path, monkeypatch):
    """Stops a mistyped path from being asked of the hub, or read as an empty log."""
    for source in (tmp_path / "none", str(tmp_path / "*.csv"), "ml-10k", "./data/none", "data/none.csv"):
        with pytest.raises(FileNotFoundError):
            load_interactions(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no readable file"):
        load_interactions(tmp_path / "empty")
    with pytest.raises(TypeError, match=r"found builtins\.int"):
        load_interactions(3)
    with pytest.raises(TypeError, match="train"):
        load_interactions(datasets.DatasetDict(train=datasets.Dataset.from_dict(ROWS)))


def test_hub_id_is_asked_with_its_revision_and_split(monkeypatch):
    """Stops the revision of a hub id from being ignored."""
    asked = []

    def load(name, *, split, revision, streaming):
        asked.append((name, split, revision))
        if name == "owner/none":
            raise datasets.exceptions.DatasetNotFoundError("not there")
        return datasets.Dataset.from_dict(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert rows(load_interactions("owner/log@v1", split="all")) == EXPECTED
    assert rows(load_interactions("owner/log", split="all", revision="v1")) == EXPECTED
    assert asked == [("owner/log", "all", "v1")] * 2
    with pytest.raises(ValueError, match=r"name two revisions: give one"):
        load_interactions("owner/log@v1", revision="v2")
    with pytest.raises(FileNotFoundError, match=r"owner/none.*not there"):
        load_interactions("owner/none")


def test_core_is_taken_to_the_fixed_point_and_counted(capsys):
    """Stops one pass of filtering, after which users below the minimum are left."""
    # Dropping item c (once) leaves user w with one, whose going leaves item b with one, and so v with one.
    users = ["u", "u", "v", "v", "w", "w", "x", "x"]
    items = ["a", "d", "a", "b", "b", "c", "a", "d"]
    loaded = load_interactions(log(users, items, range(8)), filters=LogFilters((), 2, 2))
    assert sorted(set(loaded.table["user_id"].to_pylist())) == ["u", "x"]
    report = loaded.report.to_dict()
    assert (report["core_rows_dropped"], report["core_users_dropped"], report["core_items_dropped"]) == (4, 2, 2)
    assert report["rows_read"] == 8 and report["num_interactions"] == len(loaded) == 4
    assert str(loaded.report) in capsys.readouterr().err


def test_where_keeps_what_meets_every_condition():
    """Stops a market's log from holding another market's rows, and a mistyped market from giving an empty log."""
    table = log(["u", "v", "w", "u"], list("abca"), range(4)).append_column("country", [["FR", "DE", None, "FR"]])
    kept = load_interactions(table, filters=LogFilters(["country=FR", "timestamp!=3"]))
    assert kept.table["item_id"].to_pylist() == ["a"]
    assert (kept.report.rows_read, kept.report.where_dropped, kept.report.num_interactions) == (4, 3, 1)
    assert load_interactions(table, filters=LogFilters(["country!=FR"])).table["user_id"].to_pylist() == ["v", "w"]
    renamed = table.rename_columns(["who", "item_id", "timestamp", "country"])
    assert len(load_interactions(renamed, columns=LogColumns(user_column="who"), filters=LogFilters(["who=u"]))) == 2
    with pytest.raises(
        ValueError, match=r"no interaction .* is left by 'country=Fr'\. 'country' holds 'FR', 'DE', None"
    ):
        load_interactions(table, filters=LogFilters(["country=Fr"]))
    for wrong in ("land=FR", "country"):
        with pytest.raises(ValueError, match=rf"expected 'column=value' .*, country\), found '{wrong}'"):
            load_interactions(table, filters=LogFilters([wrong]))
    with pytest.raises(ValueError, match="are not for `streaming`"):
        load_interactions(table, filters=LogFilters(["country=FR"]), streaming=True)


def test_streaming_refuses_items_of_any_kind():
    """A frame has no truth value: the refusal must not itself fail."""
    for items in (pd.DataFrame({"item_id": ["a"]}), pa.table({"item_id": ["a"]}), "items.csv"):
        with pytest.raises(ValueError, match="`items` are not for `streaming`"):
            load_interactions("log.csv", streaming=True, items=items)


def test_every_user_filtered_out_is_an_error():
    """Stops an empty log from reaching training."""
    with pytest.raises(ValueError, match="every user was filtered out by `min_user_interactions`=5"):
        load_interactions(pa.table(ROWS), filters=LogFilters(min_user_interactions=5))


@pytest.mark.parametrize(
    ("policy", "expected"), [("keep", "aabab"), ("first", "ab"), ("last", "ab"), ("consecutive", "abab")]
)
def test_duplicates(policy, expected):
    """Stops a policy that keeps the wrong one of two equal items."""
    loaded = load_interactions(log(["u"] * 5, list("aabab"), [1, 2, 3, 4, 5]), filters=LogFilters(duplicates=policy))
    assert "".join(loaded.table["item_id"].to_pylist()) == expected
    times = {"first": [1, 3], "last": [4, 5], "consecutive": [1, 3, 4, 5], "keep": [1, 2, 3, 4, 5]}
    assert loaded.table["timestamp"].to_pylist() == times[policy]
    assert loaded.report.duplicates_dropped == 5 - len(expected)


def test_bad_arguments_and_bad_items_are_errors():
    """Stops typos in options from being taken as defaults."""
    with pytest.raises(ValueError, match="`duplicates`"):
        LogFilters(duplicates="drop")
    with pytest.raises(ValueError, match="`min_item_interactions`"):
        LogFilters(min_item_interactions=0)
    with pytest.raises(ValueError, match="'a' has more than one row"):
        load_interactions(pa.table(ROWS), items=pa.table({"item_id": ["a", "a"]}))
    with pytest.raises(ValueError, match="found name"):
        load_interactions(pa.table(ROWS), items=pa.table({"name": ["a"]}))
    with pytest.raises(ValueError, match="would be hidden"):
        load_interactions(pa.table({**ROWS, "u": [1, 2, 3, 4]}), columns=LogColumns(user_column="u"))
    twice = pd.DataFrame([[1, 2, 3, 4]], columns=["user_id", "user_id", "item_id", "timestamp"])
    with pytest.raises(ValueError, match=r"\['user_id'\] are there more than once"):
        load_interactions(twice)
    with pytest.raises(ValueError, match=r"row 2 .*9223372036854775813"):
        load_interactions(log(["u", "u"], ["a", "b"], pa.array([1, 2**63 + 5], pa.uint64())))
    with pytest.raises(ValueError, match="more than once"):
        load_interactions(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["user_id", "user_id"]))


def test_fingerprint_depends_on_content_alone():
    """Stops two different logs with the same joined text from having one fingerprint."""
    first, second = log(["u", "u"], ["ab", "c"], [1, 2]), log(["u", "u"], ["a", "bc"], [1, 2])
    assert load_interactions(first).fingerprint != load_interactions(second).fingerprint
    assert load_interactions(first).fingerprint == load_interactions(first.slice(0).take([1, 0])).fingerprint


def test_concatenate_puts_the_first_part_first_on_ties():
    """Stops the validation item from moving before the training items at the same time."""
    whole = load_interactions(log(["u"] * 4, list("dcba"), [1] * 4))
    mask = pa.array([True, True, True, False]).to_numpy(zero_copy_only=False)
    joined = concatenate_interactions(whole.select(mask), whole.select(~mask))
    assert joined.table["item_id"].to_pylist() == list("dcba")


def test_hidden_files_are_no_log(tmp_path):
    """A copy that a notebook or a file system keeps doubled every interaction."""
    for name in ("a.csv", ".ipynb_checkpoints/a-checkpoint.csv", "._a.csv", ".hfrec-draft-1/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, CSV)
    assert rows(load_interactions(tmp_path)) == EXPECTED
    assert sum(len(part) for part in load_interactions(tmp_path, streaming=True)) == 4


def test_the_same_file_twice_is_refused(tmp_path):
    """A second copy under another name doubled every interaction too; parts without a row are no copies."""
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, CSV)
    for source in (tmp_path, str(tmp_path / "*.csv")):
        for streaming in (False, True):
            with pytest.raises(ValueError, match=r"b\.csv holds the same as .*a\.csv"):
                load_interactions(source, streaming=streaming)
    write(tmp_path / "b.csv", CSV.replace("u1", "u3"))
    assert len(load_interactions(tmp_path)) == 8


def test_json_ids_that_look_like_dates_stay_text(tmp_path):
    """Four different ids became one item, at midnight."""
    ids = ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00", "2024-01-01T00:00:00Z"]
    lines = "".join(f'{{"user_id": "u", "item_id": "{name}", "timestamp": {time}}}\n' for time, name in enumerate(ids))
    path = write(tmp_path / "a.jsonl", lines)
    assert load_interactions(path).table["item_id"].to_pylist() == ids
    assert [part["item_id"].to_pylist() for part in load_interactions(path, streaming=True)] == [ids]
    times = (
        lines.replace('"timestamp": ', '"timestamp": "2024-01-0').replace("}", 'T00:00:00"}').replace("-00T", "-09T")
    )
    assert load_interactions(write(tmp_path / "b.jsonl", times)).table["timestamp"].type == pa.timestamp("us")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1, 2**62], pa.timestamp("s")), "found '4611686018427387904"),
        (pa.array([1, 10**18], pa.timestamp("us")), "found '1000000000000000000 microseconds', expected .* 1 to 9999"),
        (pa.array([1_700_000_000, 1_700_000_000_500]), "not seconds beside milliseconds"),
        (pa.array(["1700000000", "1700000000500"]), "not seconds beside milliseconds"),
        (pa.array([1_700_000_000.5, 1_700_000_000_500.0]), "not seconds beside milliseconds"),
    ],
)
def test_times_that_would_be_misread(times, expected):
    """Times that wrap around, or of two units, put a history into another order without a word."""
    with pytest.raises(ValueError, match=f"row 2 .*{expected}"):
        load_interactions(log(["u", "u"], ["a", "b"], times))


@pytest.mark.parametrize("streaming", [False, True])
def test_items_named_like_special_tokens_are_refused(streaming, tmp_path):
    """One layout of `hfrec prepare` took them and the other refused them, after all was sorted."""
    path = write(tmp_path / "a.csv", CSV.replace("b c", "[MASK]", 1))
    with pytest.raises(ValueError, match=r"row 2 .*'\[MASK\]', expected an id that is no special token"):
        list(load_interactions(path, streaming=True)) if streaming else load_interactions(path)


def test_files_of_two_units_or_types_are_refused(tmp_path):
    """Joined, seconds stood before all milliseconds, and integers above 2**53 were equal as floats."""
    pq.write_table(log(["u"], ["a"], [1_700_000_000]), tmp_path / "a.parquet")
    pq.write_table(log(["u"], ["b"], [1_700_000_000_500]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="not seconds beside milliseconds"):
        load_interactions(tmp_path)
    times = f"user_id,item_id,timestamp\nu,a,{2**53}\nu,b,{2**53 + 1}\nu,c,0.5\n"
    with pytest.raises(ValueError, match="are equal as floats"):
        load_interactions(write(tmp_path / "c.csv", times))


def test_bytes_of_pandas_are_text():
    """An id became its Python literal, `b'a'`, which no other table has."""
    frame = pd.DataFrame({"user_id": [b"u", b"u"], "item_id": [b"a", "b"], "timestamp": [1, 2]})
    assert rows(load_interactions(frame)) == [("u", "a", 1), ("u", "b", 2)]


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (1_600_000_000, 1_600_000_000_000_000, "seconds beside microseconds"),
        (1_600_000_000, 1_600_000_000_000_000_000, "seconds beside nanoseconds"),
        (1_600_000_000_000, 1_600_000_000_000_000, "milliseconds beside microseconds"),
    ],
)
def test_any_two_units_of_time_are_refused(low: int, high: int, names: str) -> None:
    """Only seconds beside milliseconds were seen: microseconds put all others in front of every history."""
    log = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [low, high]}
    with pytest.raises(ValueError, match=names):
        load_interactions(pa.table(log))
    load_interactions(pa.table({**log, "timestamp": [low, low + 1]}))


@pytest.mark.parametrize(("kind", "first"), [("float16", 2**11), ("float32", 2**24), ("float64", 2**53)])
def test_floats_that_hold_no_whole_number_any_more_are_refused(kind: str, first: int) -> None:
    """Two items, or two times, became one; half floats were a traceback."""
    values = np.array([1, first], dtype=kind)
    for column in ("item_id", "timestamp"):
        log = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2], column: values}
        with pytest.raises(ValueError, match=r"row 2 .*" + re.escape(f"below 2**{len(bin(first)) - 3}")):
            load_interactions(pa.table(log))
        load_interactions(pa.table({**log, column: values - 1}))


def test_times_that_differ_by_nanoseconds_alone_are_refused() -> None:
    """They were cut to microseconds, tied, and came in the order of the file."""
    log = {"user_id": ["u", "u"], "item_id": ["a", "b"]}
    with pytest.raises(ValueError, match="differ by nanoseconds alone"):
        load_interactions(pa.table({**log, "timestamp": pa.array([2, 1], pa.timestamp("ns"))}))
    load_interactions(pa.table({**log, "timestamp": pa.array([2000, 1001], pa.timestamp("ns"))}))


def test_a_log_in_two_formats_is_refused(tmp_path: Path) -> None:
    """Its interactions counted twice."""
    text = "user_id,item_id,timestamp\nu,a,1\nu,b,2\n"
    (tmp_path / "log.csv").write_text(text)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"log\.csv\.gz looks like .*log\.csv in another format"):
            load_interactions(tmp_path, streaming=streaming)
    (tmp_path / "log.csv.gz").rename(tmp_path / "copy.csv.gz")
    with pytest.raises(ValueError, match=r"log\.csv holds the same interactions as .*copy\.csv\.gz"):
        load_interactions(tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_header_that_is_no_text_is_named(streaming: bool, tmp_path: Path) -> None:
    """The reason said which byte, and not of which file."""
    (tmp_path / "log.csv").write_bytes(b"user_id\xff,item_id,timestamp\nu,a,1\n")
    with pytest.raises(ValueError, match=r"log\.csv: not readable as \.csv"):
        list(load_interactions(tmp_path / "log.csv", streaming=streaming) if streaming else load_interactions(tmp_path))


@pytest.mark.parametrize("streaming", [False, True])
def test_times_with_a_zone_beside_times_without_are_refused(streaming, tmp_path):
    """In one file they were refused; in two, local times stood among those of Greenwich."""
    write(tmp_path / "a.csv", "user_id,item_id,timestamp\nu,a,2024-01-01T00:00:00Z\n")
    write(tmp_path / "b.csv", "user_id,item_id,timestamp\nu,b,2024-01-01T01:00:00+01:00\n")
    assert sum(len(part) for part in load_interactions(tmp_path, streaming=True)) == len(load_interactions(tmp_path))
    write(tmp_path / "c.csv", "user_id,item_id,timestamp\nu,c,2024-01-01T00:30:00\n")
    with pytest.raises(ValueError, match=r"with a zone in .*a\.csv and without one in .*c\.csv"):
        list(load_interactions(tmp_path, streaming=True)) if streaming else load_interactions(tmp_path)


def test_a_log_beside_what_was_prepared_of_it_is_refused(tmp_path):
    """Rows that came after the preparation were left out without a word."""
    write(tmp_path / "newer.csv", CSV)
    (tmp_path / "prepared").mkdir()
    write(tmp_path / "prepared" / "interactions.csv", CSV.replace("u1", "u3"))
    with pytest.raises(ValueError, match=r"interactions\.csv and, outside its folder, newer\.csv: name the folder"):
        load_interactions(tmp_path)
    assert len(load_interactions(tmp_path / "prepared")) == 4
    (tmp_path / "newer.csv").unlink()
    assert len(load_interactions(tmp_path)) == 4


def test_an_empty_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    """A variable that a shell does not know became every log of the folder."""
    write(tmp_path / "a.csv", CSV)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="`source` is empty"):
        load_interactions("")
    assert len(load_interactions(".")) == 4


def test_a_column_that_arrow_knows_not_is_named():
    """A sparse column of pandas ended in an error of another library."""
    times = pd.arrays.SparseArray([1, 2])
    with pytest.raises(ValueError, match=r"Sparse pandas data .*one plain type"):
        load_interactions(pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": times}))
