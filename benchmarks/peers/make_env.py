"""Makes the environment of a peer: ``python benchmarks/peers/make_env.py scgen biolord --envs DIR``.

A peer never shares an environment with scjepa, whose dependencies it would break. ``DIR`` is, by default, the
environment variable ``SCJEPA_PEER_ENVS`` or ``scjepa-peers`` in the user's cache folder: outside the repository.
Versions are the last that install together on Python 3.11:

- pertpy 1.0.3 imports a name that statsmodels 0.15 has removed, and brings no scvi-tools, which its scGen needs;
- biolord 0.0.3 and scVI run on the scvi-tools that scjepa is tested with;
- cell-gears 0.1.2 leaves torch_geometric to the user;
- cellflow-tools 0.0.9 imports requests without declaring it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = {
    "scgen": ["pertpy==1.0.3", "statsmodels<0.15", "scvi-tools==1.4.2", "scanpy"],
    "biolord": ["biolord==0.0.3", "scvi-tools==1.4.2", "scanpy"],
    "scvi": ["scvi-tools==1.4.2", "scanpy"],
    "gears": ["cell-gears==0.1.2", "torch_geometric==2.8.1", "torch", "scanpy"],
    "moscot": ["moscot"],
    "torchcfm": ["torchcfm==1.0.7", "torch"],
    "cellflow": ["cellflow-tools==0.0.9", "requests", "torch"],
}
CONSTRAINTS = Path(__file__).with_name("constraints.txt")


def default_envs() -> Path:
    """Return the folder of the environments: ``$SCJEPA_PEER_ENVS`` or one in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("SCJEPA_PEER_ENVS", cache / "scjepa-peers"))


def interpreter(envs: Path, peer: str) -> Path:
    """Return the Python of a peer's environment, which may not exist yet."""
    return envs / peer / ("Scripts" if os.name == "nt" else "bin") / "python"


def make(envs: Path, peer: str) -> None:
    """Create the environment of a peer, or bring it up to date."""
    python = interpreter(envs, peer)
    if not python.exists():
        venv.create(envs / peer, with_pip=True)
    command = [python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *REQUIREMENTS[peer]]
    subprocess.run([str(part) for part in command], check=True)
    print(f"{peer}: {python}", flush=True)


def main() -> None:
    """Make the environments that are asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(REQUIREMENTS)} (default: all)")
    options.add_argument("--envs", type=Path, default=default_envs(), metavar="DIR", help="folder of the environments")
    args = options.parse_args()
    unknown = sorted(set(args.peers) - set(REQUIREMENTS))
    if unknown:
        options.error(f"no peer {', '.join(unknown)}: expected some of {', '.join(REQUIREMENTS)}")
    if sys.version_info[:2] != (3, 11):
        print(f"Python {sys.version_info[0]}.{sys.version_info[1]}: the versions were chosen for 3.11", file=sys.stderr)
    for peer in args.peers or REQUIREMENTS:
        make(args.envs, peer)


if __name__ == "__main__":
    main()
