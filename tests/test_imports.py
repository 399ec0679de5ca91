"""The shape of the package: who imports whom, what `import hfrec` costs, and what no module may hold."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from hfrec_command import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hfrec"
HARNESS = ROOT / "benchmarks" / "study"  # which the commands load by name, where there is a checkout

# Every room and the rooms it may import from, besides itself. The longest matching name decides.
_DATA = {"hfrec.tokenization"}
# One order of items for ranking and for recommending, so that what is measured is what is served.
_SCORING = {"hfrec.scoring"}
_MODEL_USERS = {"hfrec.models", "hfrec.data", *_DATA}
_L2SP = {"hfrec.training.l2sp", "hfrec.training.anchors", "hfrec.training.reference"}
# What to do about a failure of the hub; a leaf, so that training can say it too.
_HUB_ERRORS = {"hfrec.hub.errors"}
_TRAINING = {
    *_MODEL_USERS,
    *_HUB_ERRORS,
    "hfrec.classical",
    "hfrec.evaluation",
    "hfrec.evaluation.metrics",
    *_L2SP,
    "hfrec.transfer",
}
_HUB = {*_TRAINING, "hfrec.training", "hfrec.inference", "hfrec.inference.prior"}
ALLOWED: dict[str, set[str]] = {
    "hfrec.models": set(),
    "hfrec.tokenization": set(),
    "hfrec.scoring": _DATA,
    "hfrec.evaluation.metrics": set(),
    # L2-SP works on any transformers model: its three files know each other and nothing else of ours.
    "hfrec.training.l2sp": {"hfrec.training.anchors", "hfrec.training.reference"},
    "hfrec.training.anchors": {"hfrec.training.reference"},
    "hfrec.training.reference": set(),
    "hfrec.data": _DATA,
    "hfrec.classical": _DATA,
    "hfrec.evaluation": {
        *_MODEL_USERS,
        *_SCORING,
        "hfrec.classical",
        "hfrec.evaluation.metrics",
        "hfrec.inference.prior",
    },
    "hfrec.transfer": _MODEL_USERS,
    "hfrec.inference": {*_MODEL_USERS, *_SCORING, "hfrec.inference.prior"},
    # A leaf: ranking mixes the prior in as recommending does; its file is written whole, by `data.files`.
    "hfrec.inference.prior": {"hfrec.data", *_DATA, *_SCORING},
    "hfrec.blending": {
        *_MODEL_USERS,
        *_SCORING,
        "hfrec.classical",
        "hfrec.evaluation",
        "hfrec.evaluation.metrics",
        "hfrec.inference",
    },
    "hfrec.training": _TRAINING,
    "hfrec.hub": _HUB,
    "hfrec.hub.errors": set(),
    "benchmarks.study": {*_HUB, "hfrec.hub", "hfrec.commands"},
    "hfrec.app": {*_MODEL_USERS, *_SCORING, "hfrec.inference", "hfrec.inference.prior", "hfrec.hub"},
    "hfrec.serving": {*_MODEL_USERS, *_SCORING, "hfrec.inference", "hfrec.inference.prior", "hfrec.hub"},
    "hfrec.reports": {*_DATA, "hfrec.data", "hfrec.evaluation", "hfrec.evaluation.metrics"},
    "hfrec.commands": {
        *("hfrec.app", "hfrec.reports", "hfrec.serving", "hfrec.blending", "hfrec.hub", "hfrec"),
        *_HUB,
    },
    "hfrec": {*_HUB, "hfrec.hub", "hfrec.registration"},
    # What `import hfrec` does; it names the classes of the rooms for transformers.
    "hfrec.registration": {"hfrec.models", "hfrec.inference"},
}
# What a checkpoint's remote code may count on; `strict` of huggingface_hub is how transformers types its own configs.
REMOTE_CODE_LIBRARIES = {"torch", "transformers", "huggingface_hub", *sys.stdlib_module_names}
LONGEST_MODULE = 400  # lines
MOST_PARAMETERS = 8  # of a public function; a constructor holds the settings of what it makes, as a dataclass does
WIDER = {
    "hfrec.inference.recommend.recommend": "its keywords are those of the pipeline and of the ONNX recommender",
    "hfrec.hub.push.push_to_hub": "its keywords are those of transformers' own `push_to_hub`, which people know",
}
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _trees() -> dict[str, tuple[Path, ast.Module]]:
    files = sorted([*PACKAGE.rglob("*.py"), *HARNESS.rglob("*.py")])
    return {_module_name(path): (path, ast.parse(path.read_text(encoding="utf-8"), str(path))) for path in files}


def _imported_names(module: str, path: Path, tree: ast.AST) -> Iterator[str]:
    """Absolute dotted names of all imports, those inside functions and behind TYPE_CHECKING included."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, node.module] if node.module else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports; `from hfrec.data import splits` points at the submodule."""
    trees = _trees()
    graph: dict[str, set[str]] = {}
    for module, (path, tree) in trees.items():
        names = [name for name in _imported_names(module, path, tree) if name.split(".")[0] in ("hfrec", "benchmarks")]
        targets = {name if name in trees else name.rpartition(".")[0] for name in names}
        graph[module] = targets - {module}
    return graph


def _find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle as a path that ends where it starts, or an empty list."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if cycle := visit(target, [*trail, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def _room(module: str) -> str:
    return max((room for room in ALLOWED if module == room or module.startswith(room + ".")), key=len)


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def test_the_cycle_finder_finds_a_cycle() -> None:
    """A finder that always answers "none" would let every cycle through."""
    assert _find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert _find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_relative_and_absolute_imports_resolve_to_the_same_name() -> None:
    """An import spelled in another way would escape the direction rules."""
    code = (
        "from . import splits\nfrom .splits import Split\nfrom ..tokenization import ItemTokenizer\nimport torch.nn\n"
    )
    names = set(_imported_names("hfrec.data.sequences", PACKAGE / "data" / "sequences.py", ast.parse(code)))
    expected = {"hfrec.data.splits", "hfrec.data.splits.Split", "hfrec.tokenization.ItemTokenizer", "torch.nn"}
    assert names == expected
    in_init = set(_imported_names("hfrec.data", PACKAGE / "data" / "__init__.py", ast.parse("from . import splits")))
    assert in_init == {"hfrec.data.splits"}


def test_commands_import_no_command() -> None:
    """What two commands share belongs to a room below, or one of them can't be changed without the other."""
    commands = {f"hfrec.commands.{name}" for name in COMMANDS}
    graph = {name: others & commands for name, others in _graph().items() if name.startswith("hfrec.commands.")}
    graph.pop("hfrec.commands.demo")  # which runs them
    assert not {name: others for name, others in graph.items() if others}


def test_no_import_cycle() -> None:
    """A cycle works until somebody imports the other end first; lazy imports count, as they only hide it."""
    cycle = _find_cycle(_graph())
    assert not cycle, "import cycle: " + " -> ".join(cycle)


def test_imports_follow_the_direction_of_the_architecture() -> None:
    """A leaf that imports ours no longer stands alone: metrics fail in `evaluate.load`, models as remote code."""
    broken = []
    for module, targets in _graph().items():
        room = _room(module)
        wrong = sorted(t for t in targets if _room(t) != room and _room(t) not in ALLOWED[room])
        broken += [f"{module} imports {target}" for target in wrong]
    assert not broken, "against the import direction:\n" + "\n".join(broken)


def test_every_subpackage_has_its_direction_written_down() -> None:
    """A new room without a rule would be held to the root's rule, which allows everything."""
    rooms = {module for module in _trees() if module.count(".") == 1 and _room(module) == "hfrec"}
    assert not rooms - {"hfrec.__main__"}, f"add {sorted(rooms)} to ALLOWED"


def test_models_need_only_torch_and_transformers_and_are_flat() -> None:
    """Remote code that imports from another folder or library saves well and fails on the reader's machine."""
    broken = []
    for module, (path, tree) in _trees().items():
        if _room(module) != "hfrec.models":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level and (node.level > 1 or "." in (node.module or "")):
                broken.append(f"{_where(path, node)} leaves its folder")
        libraries = {name.split(".")[0] for name in _imported_names(module, path, tree)} - {"hfrec"}
        broken += [f"{path.name} imports {name}" for name in sorted(libraries - REMOTE_CODE_LIBRARIES)]
        absolute = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
        broken += [f"{_where(path, n)} is absolute" for n in absolute if (n.module or "").split(".")[0] == "hfrec"]
    assert not broken, "\n".join(broken)


def test_metrics_import_one_name_a_line() -> None:
    """`evaluate` reads a module's imports line by line and misses the second name of `import a, b`."""
    broken = []
    for module, (path, tree) in _trees().items():
        if _room(module) == "hfrec.evaluation.metrics":
            imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import)]
            broken += [_where(path, n) for n in imports if len(n.names) > 1]
    assert not broken, "\n".join(broken)


def _is_unsafe_torch_call(node: ast.Call, module: str) -> bool:
    function = node.func
    if not (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "torch"
    ):
        return False
    safe = any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
    # The Trainer reads moments in no other form, and only with `weights_only`.
    writes = function.attr == "save" and module != "hfrec.transfer.optimizers"
    return writes or (function.attr == "load" and not safe)


def test_no_pickle() -> None:
    """Unpickling a downloaded file runs the code of whoever wrote it."""
    broken = []
    for module, (path, tree) in _trees().items():
        broken += [f"{module}: {n}" for n in _imported_names(module, path, tree) if n.split(".")[0] in PICKLES]
        calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call))
        broken += [f"{_where(path, n)} pickles" for n in calls if _is_unsafe_torch_call(n, module)]
    assert not broken, "\n".join(broken)


def test_evaluation_imports_no_library_of_tables() -> None:
    """Metrics that load evaluate, datasets, scipy, pandas or pyarrow make every import of them seconds slower."""
    heavy = {"evaluate", "datasets", "scipy", "pandas", "pyarrow"}
    reached, asked = set[str](), ["hfrec.evaluation"]
    while asked:
        module = asked.pop()
        reached.add(module)
        path, tree = _trees()[module]
        top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        names = list(_imported_names(module, path, top))
        assert not heavy & {name.split(".")[0] for name in names}, f"{module} imports {names}: import them where used"
        assert not [name for name in names if name.startswith("transformers.") and "rainer" in name], module
        ours = {name if name in _trees() else name.rpartition(".")[0] for name in names if name.startswith("hfrec")}
        asked += ours - reached
    assert "hfrec.evaluation.metrics.functions" in reached


def test_no_module_is_too_long_to_be_read() -> None:
    """A file that grows by a little each time is never divided."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path, _ in _trees().values()}
    broken = [f"{path.relative_to(ROOT)}: {lines}" for path, lines in lengths.items() if lines > LONGEST_MODULE]
    assert not broken, "divide at a seam:\n" + "\n".join(broken)


def _public_functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods that others call, with their dotted names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and child.name[0] != "_":
            if not isinstance(child, ast.ClassDef):
                yield f"{name}.{child.name}", child
            yield from _public_functions(child, f"{name}.{child.name}")


def test_no_public_function_has_too_many_parameters() -> None:
    """Nobody remembers eleven names; those that belong together are a small dataclass."""
    wide = set()
    for module, (_, tree) in _trees().items():
        for name, function in _public_functions(tree, module):
            places = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            if len([place for place in places if place.arg not in ("self", "cls")]) > MOST_PARAMETERS:
                wide.add(name)
    assert wide == set(WIDER), f"group parameters, or say in WIDER why not: {sorted(wide ^ set(WIDER))}"


def test_no_assert_in_the_package() -> None:
    """`python -O` removes an assert, and with it the check of the input."""
    broken = [_where(p, n) for p, tree in _trees().values() for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    assert not broken, "raise an error that names what was expected and found:\n" + "\n".join(broken)


def test_no_swallowed_error() -> None:
    """A handler that does nothing turns a failure into a wrong result."""
    broken = []
    for path, tree in _trees().values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            silent = all(
                isinstance(s, ast.Pass) or getattr(getattr(s, "value", None), "value", 0) is ... for s in node.body
            )
            if silent or node.type is None:
                broken.append(_where(path, node))
    assert not broken, "\n".join(broken)


@pytest.fixture(scope="module")
def imported() -> dict[str, object]:
    """What a fresh process sees when it imports hfrec, then its config, its data and its tokenizer."""
    code = """
import json, sys, logging, random
before = set(sys.modules)
state, level = random.getstate(), logging.getLogger().level
import hfrec
after = set(sys.modules)
hfrec.ItemTokenizer, hfrec.load_interactions, hfrec.leave_one_out
without_torch = "torch" not in sys.modules
hfrec.Bert4RecConfig(vocab_size=9), hfrec.DataCollatorForNextItem
print(json.dumps({
    "new": sorted(after - before),
    "without_torch": without_torch,
    "with_config": sorted(sys.modules),
    "random_state_kept": state == random.getstate(),
    "log_level_kept": level == logging.getLogger().level,
    "stdlib": sorted(sys.stdlib_module_names),
}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    return {**json.loads(lines[-1]), "printed": lines[:-1], "stderr": process.stderr}


def test_import_loads_no_library(imported: dict[str, list[str]]) -> None:
    """One careless top-level import makes every `import hfrec` seconds slower, and nothing shows it."""
    libraries = {name.split(".")[0] for name in imported["new"]} - {"hfrec", *imported["stdlib"]}
    assert not libraries, f"`import hfrec` loads {sorted(libraries)}: import them where used"


def test_config_data_and_tokenizer_load_no_heavy_part(imported: dict[str, list[str]]) -> None:
    """transformers' models, Trainer and pipelines cost more than torch itself; who reads a log needs none of them."""
    assert imported["without_torch"], "data and tokenizer load torch: import it where used"
    heavy = {
        "transformers.modeling_utils",
        "transformers.activations",
        "transformers.trainer",
        "transformers.pipelines",
    }
    heavy |= {"transformers.models.auto.modeling_auto", "transformers.training_args", "datasets", "torch._dynamo"}
    assert not heavy & set(imported["with_config"]), f"loaded {sorted(heavy & set(imported['with_config']))}"


def test_import_prints_seeds_and_logs_nothing(imported: dict[str, object]) -> None:
    """A library that seeds or reconfigures logging on import changes its host program's behaviour."""
    assert imported["printed"] == []
    assert imported["stderr"] == ""
    assert imported["random_state_kept"]
    assert imported["log_level_kept"]


def test_every_public_name_can_be_imported() -> None:
    """A lazily exported name with a wrong path fails only in the user's hands."""
    import hfrec

    missing = [name for name in hfrec.__all__ if not hasattr(hfrec, name)]
    assert not missing, f"`hfrec.__all__` lists names that do not exist: {missing}"
    assert set(hfrec.__all__) <= set(dir(hfrec))
