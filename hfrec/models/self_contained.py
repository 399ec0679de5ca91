"""Checkpoints that carry the code to load them, and are read from safetensors weights alone."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import has_file

PIPELINE = "recommendation_pipeline.HistoryPipeline"
_PICKLES = (
    "Pickled weights may run code when they are loaded: ask their author to save the model again, as safetensors, or "
    "convert them where you trust them."
)


def _pickled_weights(
    name: str | os.PathLike[str], subfolder: str = "", revision: str | None = None, token: Any = None, **kwargs: Any
) -> str | None:
    """Name of the pickled weights of a folder or repository, which are not downloaded for it; None without."""
    hub = {key: kwargs[key] for key in ("cache_dir", "local_files_only") if key in kwargs}
    for file in (WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        if has_file(name, os.path.join(subfolder, file), revision=revision, token=token, **hub):
            return file
    return None


def _readable(folder: Path) -> None:
    """Give the weights the mode of any new file: safetensors lets nobody but the owner read them."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~mask)


class SelfContainedModel(PreTrainedModel):
    """What the models share that have nothing else in common: checkpoints with their own code, and no pickles."""

    remote_code_map: dict[str, str]  # Auto class -> class, as `auto_map` of the config names it
    remote_code_files: tuple[str, ...]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load as the parent does, from safetensors weights alone: pickled ones may run code when they are loaded.

        The weights must be all that the config describes: the parent fills up what is missing with random numbers. Only
        a head may be new, of a class that did not write the checkpoint.

        Raises:
            OSError: The folder or repository holds only pickled weights.
            ValueError: `use_safetensors` is False, or tensors are missing, too many or of another shape.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError(f"`use_safetensors` must not be False: pickled weights are not read. {_PICKLES}")
        name = pretrained_model_name_or_path
        wants_info, may_differ = (kwargs.pop(key, False) for key in ("output_loading_info", "ignore_mismatched_sizes"))
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
        try:
            loaded: Any = super().from_pretrained(name, *model_args, **kwargs)
        except OSError as error:
            found = _pickled_weights(name, **kwargs) if SAFE_WEIGHTS_NAME in str(error) and name is not None else None
            if found is None:
                raise
            raise OSError(f"`{name}`: expected {SAFE_WEIGHTS_NAME}, found {found}. {_PICKLES}") from error
        model, info = loaded
        if name is not None:
            cls._check_loaded(model, name, info, may_differ=may_differ)
        return (model, info) if wants_info else model

    @classmethod
    def _check_loaded(cls, model: Any, name: Any, info: dict[str, Any], *, may_differ: bool) -> None:
        """Refuse a checkpoint that left weights as they were initialised."""
        # `label_counts` comes and goes with the loss.
        wrote_it = cls.__name__ in (model.config.architectures or ())
        required = "" if wrote_it or model.base_model is model else f"{cls.base_model_prefix}."
        missing, unexpected = (set(info[key]) - {"label_counts"} for key in ("missing_keys", "unexpected_keys"))
        wrong = {
            "lack": sorted(key for key in missing if key.startswith(required)),
            "hold beside those of the config": sorted(unexpected if wrote_it else ()),
            "hold in another shape": [] if may_differ else sorted(str(key[0]) for key in info["mismatched_keys"]),
        }
        for what, keys in wrong.items():
            if keys:
                more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
                raise ValueError(
                    f"The weights of `{name}` {what}: {', '.join(keys[:5])}{more}. The checkpoint is damaged: copy or "
                    "save it again."
                )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, config and the remote code with the full `auto_map`, so that every Auto class loads it.

        The config also names the pipeline of the remote code; in memory it does not, where hfrec has a better one.
        """
        self.config.auto_map = dict(self.remote_code_map)
        if is_main_process:
            Path(save_directory, "sha256.json").unlink(missing_ok=True)  # `data.files.SEAL_FILE`, of what lay there
        written = {value.rpartition(".")[2]: name for name, value in self.remote_code_map.items()}
        auto_class = written.get(type(self).__name__)
        if auto_class is not None and hasattr(self, "score_items"):
            self.config.custom_pipelines = {"recommendation": {"impl": PIPELINE, "pt": [auto_class]}}
        try:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        finally:
            self.config.__dict__.pop("custom_pipelines", None)
        if is_main_process:
            _readable(Path(save_directory))
        here = Path(__file__).parent
        for name in self.remote_code_files if is_main_process else ():
            if (Path(save_directory) / name).resolve() != (here / name).resolve():
                shutil.copyfile(here / name, Path(save_directory) / name)
