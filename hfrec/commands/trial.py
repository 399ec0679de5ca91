"""One trial of `hfrec tune`: a run of `hfrec pretrain` with other values, which stops before the test."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import SaveStrategy

from ..data.repeats import repeat_share, settle_filter_seen
from ..data.sources import JoinedSources
from ..data.splits import Split
from ..tokenization import ItemTokenizer
from ..training.arguments import TuneArguments
from ..training.printing import ProgressLines
from ..training.recipes import (
    BUDGET,
    RecipeName,
    choose_budget,
    choose_settings,
    recipe_defaults,
)
from ..training.rows import RunRows, load_split, split_rows
from ..training.runfile import split_content
from ..training.sources import load_sources, source_content, source_rows, vocabulary_of
from ..training.space import SearchSpace, search_space, space_facts, suggest
from ..training.trainer import build_trainer, prepare_model, seed_everything, train_and_evaluate_collator
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..training.tuning import METRIC, VALUES, require_optuna, sampler_seed, study_options
from .flags import FLAGS
from .new_models import PretrainArguments, content_of_items, start_model, statistics_of, statistics_of_sources
from .new_models import parse as parse_pretrain
from .parsing import given_values

if TYPE_CHECKING:
    import optuna


CLASSES = FLAGS["tune"]
TUNE_FIELDS = {place.name for place in fields(TuneArguments)}


@dataclass(frozen=True)
class Search:
    """What all trials of a command have in common.

    Args:
        folder: Of the study.
        split: The log, or several as one; its test part is never read.
        tokenizer: Vocabulary of the training part.
        settings: Flags that were given and what the recipe chose, names as the flags of `hfrec pretrain`.
        space: What is searched.
        own: The values of the recipe's own settings in this space.
        joined: The sources, where there are several.
    """

    folder: Path
    split: Split
    tokenizer: ItemTokenizer
    settings: dict[str, Any]
    space: SearchSpace
    own: dict[str, Any]
    joined: JoinedSources | None

    @property
    def identity(self) -> dict[str, Any]:
        """What a study that goes on has in common with its earlier commands."""
        items = content_of_items(self.arguments({}, str(self.folder)), self.tokenizer)
        logs = split_content(self.split) if self.joined is None else source_content(self.joined)
        content = {**logs, **items}
        return {"log": content, "space": space_facts(self.space), "settings": self.settings}

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """The values of a trial."""
        return suggest(trial, self.space, self.settings["loss"])

    def arguments(self, values: dict[str, Any], output_dir: str) -> PretrainArguments:
        """The arguments of the run with these values."""
        fixed = {"output_dir": output_dir, "disable_tqdm": True, "report_to": ["none"]}
        arguments = parse_pretrain((), defaults={**self.settings, **values, **fixed})
        # The best step is still found by its metric; a trial's settings make its model again.
        arguments.training.save_strategy = SaveStrategy.NO
        return arguments

    def rows(self, model: PreTrainedModel, arguments: PretrainArguments) -> RunRows:
        """The rows of the run; the model's config says whether seen items are filtered, as `pretrain` decides it."""
        if self.joined is None:
            rows = split_rows(model, self.tokenizer, self.split, arguments.data)
        else:
            rows = source_rows(model, self.joined, arguments.data, arguments.training)
        share = repeat_share(rows.validation)
        model.config.filter_seen = settle_filter_seen(arguments.protocol.filter_seen, share)[0]
        return rows


@lru_cache(maxsize=1)
def search_of(words: tuple[str, ...]) -> Search:
    """The log of a command and the space around the recipe's choice for it, read once in a process."""
    given = given_values("tune", CLASSES, words)
    tune = TuneArguments(**{name: given.pop(name) for name in TUNE_FIELDS & set(given)})
    folder = Path(given.pop("output_dir", RecommenderTrainingArguments.output_dir))
    arguments = parse_pretrain((), defaults=given)
    if arguments.data.several:
        _, joined = load_sources(arguments.data, arguments.protocol)
        split, tokenizer, log = joined.split, joined.tokenizer, statistics_of_sources(joined)
    else:
        joined, (_, split) = None, load_split(arguments.data, arguments.protocol)
        tokenizer = vocabulary_of(split.train, arguments.data, arguments.data.source)
        log = statistics_of(split.train)
    recipe = cast(RecipeName, arguments.recipe.recipe)  # `parse` refuses none
    choices = choose_settings(recipe, log, given)
    if tune.trial_steps is not None:
        choices = [choice for choice in choices if choice.name not in BUDGET]
        choices += choose_budget(tune.trial_steps, "trial_steps")
    settings = {**given, **recipe_defaults(choices, given)}
    arguments = parse_pretrain((), defaults=settings)
    own = {**vars(arguments.training), **vars(arguments.data), **vars(arguments.shape)}
    space = search_space(own, log, given)
    if not space:
        raise ValueError("every setting that is searched was given as a flag: leave some of them out.")
    return Search(
        folder,
        split,
        tokenizer,
        settings,
        space,
        {name: own[name] for name in space},
        joined,
    )


def run_trial(words: tuple[str, ...], number: int, deadline: float | None, *, may_diverge: bool = True) -> int | None:
    """One trial through `Trainer.hyperparameter_search`, with a Trainer of its own.

    Args:
        words: The command.
        number: Trials before it, for the seed of the sampler.
        deadline: Nothing starts after this time, in seconds since the epoch.
        may_diverge: Whether a loss that is no number makes a failed trial, or ends the command.

    Returns:
        The number of the trial in the study, None where the time was over.

    Raises:
        FloatingPointError: The loss became NaN in a trial that must end.
    """
    if deadline is not None and time.time() > deadline:
        return None
    require_optuna()
    search, ended = search_of(words), []
    with tempfile.TemporaryDirectory() as scratch:
        trainer = own_trainer(search, scratch)
        training: Any = trainer.args
        metric, found = f"eval_{training.metric_for_best_model.removeprefix('eval_')}", [float("-inf")]

        def best_so_far(metrics: dict[str, float]) -> float:
            """What the best checkpoint of the run has on validation."""
            found[0] = max(found[0], metrics[metric])
            return found[0]

        def start(trial: optuna.trial.Trial) -> PreTrainedModel:
            """The model of the trial, after the Trainer got its rows."""
            values = search.suggest(trial)
            arguments = search.arguments(values, scratch)
            model = start_model(arguments, search.split.train, search.tokenizer)
            trainer.train_dataset = search.rows(model, arguments).train
            trainer.data_collator = train_and_evaluate_collator(model, search.tokenizer, arguments.data, training)
            prepare_model(model, arguments.training)
            trial.set_user_attr(VALUES, values)
            trial.set_user_attr(METRIC, metric.removeprefix("eval_"))
            ended.append(trial.number)
            seed_everything(training)  # as `pretrain`, whose Trainer is made, and seeds, after its model
            return model

        trainer.model_init = start
        trainer.hyperparameter_search(
            hp_space=lambda trial: {k: v for k, v in search.suggest(trial).items() if hasattr(training, k)},
            compute_objective=best_so_far,
            n_trials=1,
            backend="optuna",
            catch=(FloatingPointError,) if may_diverge else (),
            **study_options(
                search.folder,
                seed=sampler_seed(training.seed, number),
                warmup_steps=training.max_steps // 4,
            ),
        )
    return ended[0]


def own_trainer(search: Search, output_dir: str) -> Trainer:
    """The Trainer of the recipe's own settings; trials put their model, rows and values into it."""
    arguments = search.arguments({}, output_dir)
    shape = replace(arguments.shape, item_start="random")  # this model is never trained
    model = start_model(arguments._replace(shape=shape), search.split.train, search.tokenizer)
    rows = search.rows(model, arguments)
    trainer = build_trainer(
        model, search.tokenizer, rows.train, rows.validation, data=arguments.data, training=arguments.training
    )
    trainer.compute_metrics = rows.compute_metrics or trainer.compute_metrics
    trainer.remove_callback(ProgressLines)
    return trainer
