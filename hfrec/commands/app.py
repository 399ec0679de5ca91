"""Open a page that shows what a checkpoint recommends, and why; two checkpoints side by side.

hfrec app out --history_file interactions.csv
hfrec app outputs/demo/finetuned_l2sp --compare_with outputs/demo/scratch --labels Fine-tuned Scratch
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .columns import ColumnFlags
from .parsing import parse_into


@dataclass
class AppArguments(ColumnFlags):
    """The checkpoints, the users whose histories can be picked, and where the page is served."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path",)

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    compare_with: str | None = field(default=None, metadata={"help": "A second checkpoint, shown side by side."})
    labels: list[str] | None = field(
        default=None, metadata={"help": "Names of the checkpoints on the page; else those of the folders."}
    )
    history_file: str | None = field(
        default=None, metadata={"help": "Log whose users can be picked; without it titles are typed."}
    )
    title: str = field(default="What comes next?", metadata={"help": "Heading of the page."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen at: 0.0.0.0 opens it to the network."})
    port: int | None = field(default=None, metadata={"help": "Port; the first free one from 7860 on unless given."})
    open_browser: bool = field(default=False, metadata={"help": "Open the page in a browser."})
    category_column: str | None = field(
        default=None, metadata={"help": "Column of the items' categories; category or genres where there is one."}
    )
    category_separator: str = field(default="|", metadata={"help": "What joins the categories of an item."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the first checkpoint."})

    def __post_init__(self) -> None:
        names = 1 if self.compare_with is None else 2
        if self.labels is not None and len(self.labels) != names:
            raise ValueError(f"`labels` must name each of {names} checkpoints, found {len(self.labels)}.")


parse = parse_into("app", AppArguments)


def main(arguments: AppArguments) -> dict[str, Any]:
    """Load the checkpoints and serve the page until Ctrl-C."""
    try:
        from ..app.layout import build_page, launch
        from ..app.recommender import Recommender
    except ImportError as error:
        raise ImportError(f"`hfrec app` needs Gradio and scikit-learn: pip install 'hfrec[app]'. {error}") from error
    from ..evaluation.table import short_names

    names = [arguments.model_name_or_path, *([arguments.compare_with] if arguments.compare_with else [])]
    labels = arguments.labels or short_names(names)
    options = {"category_column": arguments.category_column, "separator": arguments.category_separator}
    revisions = [arguments.revision, None]
    recommenders = [
        Recommender.load(name, label=label, revision=revision, **options)
        for name, label, revision in zip(names, labels, revisions, strict=False)
    ]
    page = build_page(recommenders, read_histories(arguments), title=arguments.title)
    _, url, _ = launch(page, host=arguments.host, port=arguments.port, open_browser=arguments.open_browser)
    print(f"The page is at {url} (Ctrl-C ends it)", flush=True)
    page.block_thread()
    return {"url": url}


def read_histories(arguments: AppArguments) -> dict[str, list[str]] | None:
    """Histories of the log by user, or None without one."""
    from ..data.interactions import histories_of
    from ..hub.log_shape import load_log_like, log_shape

    if arguments.history_file is None:
        return None
    shape = log_shape(arguments.model_name_or_path, arguments, revision=arguments.revision)
    log = load_log_like(arguments.history_file, shape, arguments)
    return dict(zip(*histories_of(log.table), strict=True))
