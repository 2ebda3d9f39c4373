"""Predicts cells at a left-out time by conditional flow matching between neighbouring snapshots (torchcfm), with and without transport.

Runs in its own environment (make_env.py torchcfm): ``python run_torchcfm.py FOLDER``. Each ``FOLDER/*.npz`` holds ``z`` (cells in scaled
components), ``times`` and the ``time`` asked for; ``FOLDER/task.json`` the flow (``"cfm"``: independent pairs, ``"otcfm"``: minibatch
transport), ``steps`` and ``seed``. One velocity field is trained on all pairs of neighbouring training times, as in the examples of
the package; cells of the time before are integrated forward, those of the time after backward, and written together with their
masses as ``points`` and ``mass`` to ``*.out.npz``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

BATCH, WIDTH, RATE, EULER = 128, 64, 1e-3, 100


def main() -> None:
    """Answer every question of the folder."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(1)
    make = {"cfm": ConditionalFlowMatcher, "otcfm": ExactOptimalTransportConditionalFlowMatcher}[task["flow"]]
    for file in sorted(folder.glob("*.npz")):
        if file.name.endswith(".out.npz"):
            continue
        held = np.load(file)
        torch.manual_seed(task["seed"])
        np.random.seed(task["seed"])
        z, times, asked = held["z"].astype(np.float32), held["times"], float(held["time"])
        levels = np.unique(times)
        unit = (levels - levels[0]) / (levels[-1] - levels[0])
        shots = [torch.from_numpy(z[times == t]) for t in levels]
        layers = []
        for a, b in ((z.shape[1] + 1, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH)):
            layers += [torch.nn.Linear(a, b), torch.nn.SELU()]
        net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, z.shape[1]))
        optimizer, matcher = torch.optim.AdamW(net.parameters(), RATE), make(sigma=0.1)
        for _ in range(task["steps"]):
            parts = []
            for k in range(len(levels) - 1):
                x, y = (s[torch.randint(len(s), (BATCH,))] for s in shots[k : k + 2])
                t, at, velocity = matcher.sample_location_and_conditional_flow(x, y)
                gap = unit[k + 1] - unit[k]
                when = (unit[k] + gap * t).float()
                parts.append((net(torch.cat([at, when[:, None]], 1)) - velocity / gap).square().mean() * gap**2)
            optimizer.zero_grad()
            torch.stack(parts).mean().backward()
            optimizer.step()
        j = int(np.searchsorted(levels, asked))
        goal = (asked - levels[0]) / (levels[-1] - levels[0])
        w = (asked - levels[j - 1]) / (levels[j] - levels[j - 1])
        clouds, masses = [], []
        with torch.no_grad():
            for k, share in ((j - 1, 1 - w), (j, w)):
                x, step = shots[k].clone(), (goal - unit[k]) / EULER
                for i in range(EULER):
                    when = torch.full((len(x), 1), float(unit[k] + i * step))
                    x = x + step * net(torch.cat([x, when], 1))
                clouds.append(x.numpy())
                masses.append(np.full(len(x), share / len(x)))
        np.savez(file.with_suffix(".out.npz"), points=np.concatenate(clouds), mass=np.concatenate(masses))


if __name__ == "__main__":
    main()
