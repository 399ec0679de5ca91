"""Install peers, each in a virtual environment of its own, and write down what that took.

python benchmarks/peers/install.py --output_dir outputs/peers rectools replay

An environment with an install.json is complete and is left alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PEERS = ("t4rec", "replay", "rectools", "recbole")


def size_in_mb(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) // 2**20


def install(peer: str, folder: Path) -> None:
    """Build the environment of a peer; install.json is written last, so that an interrupted one is built again."""
    if (folder / "install.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", HERE / f"{peer}.txt"], check=True)
    without = HERE / f"{peer}_no_deps.txt"
    if without.exists():
        subprocess.run([*pip, "--no-deps", "--requirement", without], check=True)
    seconds = round(time.monotonic() - start)
    frozen = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    (folder / "freeze.txt").write_text(frozen, encoding="utf-8")
    took = {"seconds": seconds, "megabytes": size_in_mb(folder), "packages": len(frozen.splitlines())}
    (folder / "install.json").write_text(json.dumps(took) + "\n", encoding="utf-8")
    print(peer, took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", default=PEERS, help=f"Some of {', '.join(PEERS)}; all without.")
    parser.add_argument("--output_dir", default="outputs/peers")
    options = parser.parse_args()
    unknown = sorted(set(options.peers) - set(PEERS))
    if unknown:
        parser.error(f"no peer is called {', '.join(unknown)}: choose from {', '.join(PEERS)}")
    for peer in options.peers:
        install(peer, Path(options.output_dir) / peer)


if __name__ == "__main__":
    main()
