"""Flows of torchcfm at left-out times, trained in their own environment (``peers/run_torchcfm.py``)."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _courses import JUDGED, POINTS, Question, project
from _peers import HERE, interpreter, require_peers

from scjepa.baselines.times import systematic
from scjepa.dynamics import wasserstein

FLOWS = {"cfm": "I-CFM", "otcfm": "OT-CFM"}
STEPS = 2000


def flows(questions: Sequence[Question], envs: Path, *, seed: int = 0) -> Iterator[tuple[str, Question, float]]:
    """Yield method, question and W1 of each flow at each question."""
    require_peers(envs, ["torchcfm"])
    answered = [project(question) for question in questions]
    for flow, name in FLOWS.items():
        with tempfile.TemporaryDirectory(prefix="scjepa_flows_") as held:
            folder = Path(held)
            for i, (question, cells) in enumerate(zip(questions, answered, strict=True)):
                np.savez(folder / f"{i:03d}.npz", z=cells.z, times=cells.times, time=question.time)
            (folder / "task.json").write_text(json.dumps({"flow": flow, "steps": STEPS, "seed": seed}))
            command = [str(interpreter(envs, "torchcfm")), str(HERE / "run_torchcfm.py"), str(folder)]
            env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"torchcfm failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
            for i, (question, cells) in enumerate(zip(questions, answered, strict=True)):
                found = np.load(folder / f"{i:03d}.out.npz")
                points, mass = found["points"][:, :JUDGED].astype(np.float64), found["mass"]
                if len(points) > POINTS:
                    points, mass = points[systematic(mass, POINTS)], None
                yield name, question, wasserstein(points, cells.true[:, :JUDGED], source_mass=mass)
