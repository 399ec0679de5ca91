"""Checkpoints that carry the code to load them, and are read from safetensors weights alone."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import has_file

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


class SelfContainedModel(PreTrainedModel):
    """What the models share that have nothing else in common: checkpoints with their own code, and no pickles."""

    remote_code_map: dict[str, str]  # Auto class -> class, as `auto_map` of the config names it
    remote_code_files: tuple[str, ...]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load as the parent does, from safetensors weights alone: pickled ones may run code when they are loaded.

        Raises:
            OSError: The folder or repository holds only pickled weights.
            ValueError: `use_safetensors` is False.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError(f"`use_safetensors` must not be False: pickled weights are not read. {_PICKLES}")
        name = pretrained_model_name_or_path
        try:
            return super().from_pretrained(name, *model_args, use_safetensors=True, **kwargs)
        except OSError as error:
            found = _pickled_weights(name, **kwargs) if SAFE_WEIGHTS_NAME in str(error) and name is not None else None
            if found is None:
                raise
            raise OSError(f"`{name}`: expected {SAFE_WEIGHTS_NAME}, found {found}. {_PICKLES}") from error

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, config and the remote code with the full `auto_map`, so that every Auto class loads it."""
        self.config.auto_map = dict(self.remote_code_map)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        here = Path(__file__).parent
        for name in self.remote_code_files if is_main_process else ():
            if (Path(save_directory) / name).resolve() != (here / name).resolve():
                shutil.copyfile(here / name, Path(save_directory) / name)
