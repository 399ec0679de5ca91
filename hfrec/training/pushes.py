"""Pushes of a stock `Trainer` that fail in the background: seen when they fail, told at the end, never fatal."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, wait
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, SaveStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from .. import models
from ..data.files import SEAL_FILE
from ..evaluation.user_ranks import RANKS_FILE
from ..hub.errors import explain, push_command
from ..models.body import REMOTE_CODE_FILES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.get_logger(__name__)
_NEVER = (TRAINING_ARGS_NAME, RANKS_FILE)
_STATES = ("*.pt", "*.pth", "trainer_state.json", SEAL_FILE)  # of a checkpoint to resume from


def hub_target(training: TrainingArguments) -> str | None:
    """The repository that a run shall be pushed to, or None."""
    if not training.push_to_hub:
        return None
    return training.hub_model_id or Path(training.output_dir or ".").resolve().name


def open_repository(training: TrainingArguments) -> None:
    """Make the repository and the branch of a run before the `Trainer` does, which makes no branch and needs a hub.

    When the hub refuses or cannot be reached, the run goes on without pushing, and an error in the log says so.

    Raises:
        ValueError: `hub_token` is given: the stock `Trainer` pickles it into `training_args.bin` and pushes that file.
    """
    repo_id = hub_target(training)
    if repo_id is None:
        return
    if training.hub_token is not None:
        raise ValueError(
            "`hub_token` must not be given, as the Trainer would publish it inside `training_args.bin`: log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if training.process_index != 0:
        return
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="hfrec")
        repo_id = api.create_repo(repo_id, private=training.hub_private_repo, exist_ok=True).repo_id
        if training.hub_revision is not None:
            api.create_branch(repo_id, branch=training.hub_revision, exist_ok=True)
    except Exception as error:  # the hub's and the connection's errors share no parent; the run must go on
        logger.error(f"Step 0: nothing can be pushed to {repo_id}: {explain(error)}. Training goes on without pushes.")
        training.push_to_hub = False


class RecommenderTrainer(Trainer):
    """The stock `Trainer`, but for what it pushes while training: no pickled arguments, no ranks of test users.

    The parent writes `training_args.bin`, a pickle, into the folder and sends whatever lies there. It also warns of
    weights that the best checkpoint lacks, where they are tied to others that it has.
    """

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The parent's warnings, but for tied weights, which no checkpoint holds twice."""
        tied = set(getattr(self.model, "_tied_weights_keys", None) or ())
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Send a checkpoint in the background, with the titles and by the strategies of the parent."""
        arguments, strategy = self.args, self.args.hub_strategy
        progress: Any = self.push_in_progress
        pushing = progress is not None and not progress.is_done()
        busy = pushing and not arguments.hub_always_push
        if not self.is_world_process_zero() or strategy == HubStrategy.END or busy:
            return
        self.callback_handler.on_push_begin(arguments, self.state, self.control)
        folder = Path(arguments.output_dir or ".")
        for path in Path(checkpoint_folder).iterdir():
            if path.is_file() and not any(path.match(pattern) for pattern in (*_STATES, *_NEVER)):
                shutil.copyfile(path, folder / path.name)
        steps = arguments.save_strategy == SaveStrategy.STEPS
        when = f"step {self.state.global_step}" if steps else f"epoch {int(self.state.epoch or 0)}"
        title = f"Training in progress, {when}"
        ignored = [*_NEVER, "_*", f"{PREFIX_CHECKPOINT_DIR}-*"]
        jobs = [self._upload(folder, title, ignore_patterns=ignored)]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            place = "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint_folder).name
            jobs.append(
                self._upload(
                    checkpoint_folder, f"{title}, checkpoint", ignore_patterns=list(_NEVER), path_in_repo=place
                )
            )
        make_progress: Any = PushInProgress  # whose own annotations say that it takes one job
        self.push_in_progress = make_progress([*(progress.jobs if pushing else []), *jobs])

    @cached_property
    def _hub(self) -> HfApi:
        """One for all pushes, which sends one after the other."""
        from huggingface_hub import HfApi

        return HfApi(library_name="hfrec")

    def _upload(self, folder: str | Path, title: str, **settings: Any) -> Future[Any]:
        job: Future[Any] = self._hub.upload_folder(
            repo_id=self.hub_model_id or "",
            folder_path=folder,
            commit_message=title,
            revision=self.args.hub_revision,
            run_as_future=True,
            **settings,
        )
        return job


class PushWatchCallback(TrainerCallback):
    """Says which background push of the stock `Trainer` failed, at which step, and how to push again.

    The Trainer drops these failures: `train()` ends as if all were pushed. This callback looks at the jobs at every
    step, logs a failure as an error, and repeats all of them at the end of training with the command that pushes the
    checkpoint. It also lays the remote code beside the weights, which the Trainer leaves out of such pushes.

    Args:
        trainer (`Trainer`): Whose pushes are watched; `trainer.add_callback(PushWatchCallback(trainer))`.

    Example:
        >>> trainer.add_callback(PushWatchCallback(trainer))  # doctest: +SKIP
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.jobs: list[tuple[int, Future[Any]]] = []
        self.failures: list[str] = []

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copies the remote code into the folder that is pushed."""
        if not state.is_world_process_zero or getattr(kwargs.get("model"), "base_model_prefix", None) is None:
            return
        if getattr(kwargs["model"].config, "model_type", None) == "bert4rec":
            for name in REMOTE_CODE_FILES:
                shutil.copyfile(Path(models.__file__).with_name(name), Path(args.output_dir or ".") / name)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes note of the jobs that this checkpoint started."""
        known = {id(job) for _, job in self.jobs}
        progress = getattr(self.trainer, "push_in_progress", None)
        for job in progress.jobs if progress is not None else []:
            if id(job) not in known:
                self.jobs.append((state.global_step, job))
        self._look()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Logs what failed since the last step."""
        self._look()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Waits for the last push, and repeats what failed."""
        wait([job for _, job in self.jobs])
        self._look()
        if self.failures:
            repo_id = getattr(self.trainer, "hub_model_id", None) or hub_target(args) or "NAMESPACE/NAME"
            again = push_command(args.output_dir or ".", repo_id, args.hub_revision)
            listed = "\n".join(self.failures)
            logger.error(
                f"{len(self.failures)} pushes failed. The checkpoints are whole in {args.output_dir}.\n{listed}\n"
                f"Push again: {again}"
            )

    def _look(self) -> None:
        waiting = []
        for step, job in self.jobs:
            if not job.done():
                waiting.append((step, job))
                continue
            error = job.exception()
            if error is not None:
                self.failures.append(f"Step {step}: the push failed: {explain(error)}")
                logger.error(self.failures[-1])
        self.jobs = waiting
