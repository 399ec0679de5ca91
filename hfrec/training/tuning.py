"""The Optuna study of `hfrec tune`: a file that a search goes on from, and what it comes to."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.files import STUDY_FILE, check_folder, check_new_folder, whole_files
from ..evaluation.table import align

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "hfrec"
STARTUP_TRIALS = 4  # that end before one is compared with their median
SQLITE_TIMEOUT = 120  # seconds that a process waits for another one's write
OWN = "own settings"  # marks the trial of the recipe's own settings
VALUES = "values"  # of the settings of a trial, as they were trained with
METRIC = "metric"
SUMMARY_FILES = ("best.yaml", "trials.csv")
# What makes a study another one, in words.
OTHERS = {"log": "another log", "settings": "other settings", "space": "another space"}


def require_optuna() -> None:
    """Refuse to go on without optuna.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("`hfrec tune` needs optuna: pip install 'hfrec[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failed trial has its line, an error its own


def study_options(folder: Path, *, seed: int, warmup_steps: int) -> dict[str, Any]:
    """What `create_study` and `Trainer.hyperparameter_search` open the study of a folder with.

    Args:
        folder: Holds the study, an SQLite file that several processes may use.
        seed: Of the sampler.
        warmup_steps: Steps of a trial before it may be pruned.
    """
    import optuna

    url = f"sqlite:///{(folder / STUDY_FILE).resolve()}"
    return {
        "storage": optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT}}),
        "study_name": STUDY_NAME,
        "direction": "maximize",
        "load_if_exists": True,
        "sampler": optuna.samplers.TPESampler(seed=seed),
        "pruner": optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup_steps),
    }


def open_study(folder: Path, identity: Mapping[str, Any]) -> optuna.Study:
    """The study of a folder, which is made if there is none yet.

    Trials that an interrupted command left are marked as failed.

    Args:
        folder: New, empty, or of an earlier command.
        identity: Log, settings and space, in what JSON knows; a study that goes on has the same.

    Raises:
        ValueError: The folder holds something else, the study of another log, other settings or another space, or a
            damaged one.
    """
    import optuna

    check_folder(folder)
    if (folder / STUDY_FILE).exists():
        _check_whole(folder)
    else:
        check_new_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with readable_study(folder, KeyError, TypeError, ValueError):  # what optuna makes of tables that were changed
        study = optuna.create_study(**study_options(folder, seed=0, warmup_steps=0))
        _check_values(study)
        found = study.user_attrs
    asked: dict[str, Any] = json.loads(json.dumps(identity))
    _check_same(folder, found, asked)
    for name, value in asked.items():
        study.set_user_attr(name, value)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _check_whole(folder: Path) -> None:
    """Refuse a file that is no database, that lost pages, or all of what was in it.

    Raises:
        ValueError: With what is wrong.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise ValueError(f"{path} is no file: choose another `output_dir`.")
    with readable_study(folder), closing(sqlite3.connect(path, timeout=SQLITE_TIMEOUT)) as database:
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found == "ok" and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            # A search that was killed at once leaves an empty file; one that had written its summary does not.
            found = "it is empty" if any((folder / name).exists() for name in SUMMARY_FILES) else "ok"
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def _check_values(study: optuna.Study) -> None:
    """Refuse a study that does not maximise, or holds a trial that ended without a number.

    Raises:
        ValueError: With what is wrong.
    """
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    if study.direction != StudyDirection.MAXIMIZE:
        raise ValueError("it does not look for the largest value, as every search of hfrec does")
    for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        if not isinstance(trial.value, float):
            raise ValueError(f"trial {trial.number} ended with {trial.value!r} for a value")


@contextmanager
def readable_study(folder: Path, *further: type[Exception]) -> Iterator[None]:
    """What a damaged study raises in the block, in one line.

    Args:
        folder: Holds the study.
        further: Errors that nothing but a damaged study raises in this block.

    Raises:
        ValueError: In place of the errors of SQLite, its toolkit and optuna.
    """
    import optuna

    try:
        yield
    except Exception as error:
        # SQLAlchemy, which comes along with optuna, has errors of its own.
        known = isinstance(error, (sqlite3.Error, optuna.exceptions.StorageInternalError, *further))
        if not known and type(error).__module__.split(".")[0] != "sqlalchemy":
            raise
        reason = error.__cause__ or error  # what a toolkit says around it is its own SQL
        raise ValueError(
            f"{folder / STUDY_FILE} cannot be read or written: {reason}. Copy it back or free disk space; where it is "
            "damaged, choose another `output_dir` for a new search."
        ) from error


def _check_same(folder: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name in found:
        if found[name] == asked.get(name):
            continue
        if not isinstance(found[name], Mapping) or name not in asked:
            raise ValueError(f"{folder / STUDY_FILE} holds {name!r}, which no search of this kind wrote: move it away.")
        what = ""
        if name != "log":  # of which there are only fingerprints
            keys = sorted(key for key in {**found[name], **asked[name]} if found[name].get(key) != asked[name].get(key))
            what = f" ({', '.join(f'`--{key}`: {found[name].get(key)}, now {asked[name].get(key)}' for key in keys)})"
        raise ValueError(
            f"`output_dir` {folder} holds a study of {OTHERS[name]}{what}: give the same command as before to go on "
            "with it, or another `output_dir` for a new study."
        )


def finished_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that ran to their end or were pruned."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])


def own_trial(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The finished trial of the recipe's own settings."""
    return next((trial for trial in finished_trials(study) if trial.user_attrs.get(OWN)), None)


def enqueue_own(study: optuna.Study, own: Mapping[str, Any]) -> None:
    """Make the recipe's own settings the next trial, unless they wait already."""
    from optuna.trial import TrialState

    waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
    if not any(trial.user_attrs.get(OWN) for trial in waiting):
        study.enqueue_trial(dict(own), user_attrs={OWN: True})


def write_summary(study: optuna.Study, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `best.yaml`, which `hfrec pretrain` takes, and `trials.csv`, both whole or not at all.

    Args:
        study: With one complete trial at least.
        folder: Where they go.
        settings: What all trials have in common, names as the flags of `hfrec pretrain`.
    """
    import yaml

    best, names = study.best_trial, list(study.user_attrs["space"])
    content = {**settings, **best.user_attrs[VALUES], "output_dir": str(folder / "best")}
    head = f"# {best.user_attrs[METRIC]} {best.value:.4f} on validation, trial {best.number} of {folder}\n"
    with whole_files(folder) as draft:
        (draft / "best.yaml").write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        with (draft / "trials.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "state", "value", "steps", "seconds", *names])
            for trial in finished_trials(study):
                values = [trial.user_attrs[VALUES].get(name, "") for name in names]
                writer.writerow([trial.number, trial.state.name.lower(), *_figures(trial), *values])


def _figures(trial: optuna.trial.FrozenTrial) -> tuple[float | None, int, int]:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return trial.value, max(trial.intermediate_values, default=0), round(seconds)


def trials_table(study: optuna.Study, most: int = 10) -> str:
    """The best trials, how many were pruned, and what the search has gained over the recipe's own settings."""
    finished, own, best = finished_trials(study), own_trial(study), study.best_trial
    complete = sorted((t for t in finished if t.state.name == "COMPLETE"), key=lambda t: -_value(t))[:most]
    names = [name for name in study.user_attrs["space"] if any(name in t.user_attrs[VALUES] for t in complete)]
    body = [[str(t.number), f"{_value(t):.4f}", *_cells(t, names)] for t in complete]
    metric = best.user_attrs[METRIC]
    lines = [align([["trial", metric, *names], *body])]
    pruned = sum(trial.state.name == "PRUNED" for trial in finished)
    lines.append(f"{len(finished)} trials, {pruned} of them pruned")
    line = f"Best on validation: trial {best.number}, {metric} {_value(best):.4f}"
    if own is not None and own.value is not None:
        line += f", {_value(best) - own.value:+.4f} over the recipe's own settings ({own.value:.4f})"
    return "\n".join([*lines, line])


def _value(trial: optuna.trial.FrozenTrial) -> float:
    """The metric; the best one seen where the trial was pruned."""
    return trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=0.0)


def _cells(trial: optuna.trial.FrozenTrial, names: Sequence[str]) -> list[str]:
    values = trial.user_attrs[VALUES]
    return [f"{values[name]:g}" if isinstance(values.get(name), float) else str(values.get(name, "")) for name in names]


def trial_line(study: optuna.Study, number: int) -> str:
    """One line on a trial that ended."""
    trial = study.trials[number]
    state = "" if trial.state.name == "COMPLETE" else f" ({trial.state.name.lower()})"
    values = trial.user_attrs.get(VALUES, {})
    settings = "  ".join(f"{name} {cell}" for name, cell in zip(values, _cells(trial, list(values)), strict=True))
    return f"trial {number}{state}: {_value(trial):.4f}  {settings}"


def sampler_seed(seed: int, number: int) -> int:
    """A seed of its own for each trial: every trial has a new sampler, which would otherwise draw the same again."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
