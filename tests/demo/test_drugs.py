"""The demo of drugs: conditions with doses, what is held out, a run of the real model."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa.datasets import simulate_drug_screen
from scjepa.demo import UserError, _run, main, resolve_holdout
from scjepa.demo._drugs import Arguments, default_drug_holdout, labels, read_drugs
from scjepa.model import DrugJEPA

COLUMNS = ["--model", "drug", "--drug-key", "drug", "--smiles-key", "smiles", "--dose-key", "dose"]
KEYS = Arguments("drug", "DMSO", "smiles", "dose", None, "context")


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    adata = simulate_drug_screen(30, 4, 2, doses=(0.01, 0.1, 1, 10), contexts=("x", "y"), n_combinations=1, n_cells=5,
                                 n_control=12)  # fmt: skip
    path = tmp_path_factory.mktemp("demo") / "drugs.h5ad"
    adata.write_h5ad(path)
    return path


def test_labels_say_drugs_and_doses():
    assert labels(["DMSO", "A", "B+A"], [[0.0, 1e6, 0.5]], "DMSO") == ["DMSO", "A at 1e06", "A at 0.5+B at 0.5"]
    assert labels(["A at home"], [[2.0], [24.0]], "DMSO") == ["A at home at 2 24"]


def test_a_file_is_read_with_its_doses(counts):
    screen = read_drugs(counts, KEYS)
    known = screen.conditions()
    assert len(known) == 5 * 4 * 2 and ("D01 at 0.1", "x") in known.index
    assert screen.drug_of("D01 at 0.1+D02 at 0.1") == "D01+D02"
    assert screen.dose_of()["D02 at 10"] == 10 and screen.dose_of()["DMSO"] == 0
    assert screen.with_structure() >= {"D01", "D02", "D03", "D04"} and "DMSO" not in screen.with_structure()
    plain = read_drugs(counts, KEYS._replace(dose=None))
    assert plain.perturbation_key == "drug" and len(plain.conditions()) == 5 * 2


def test_what_is_asked_to_be_held_out(counts):
    screen = read_drugs(counts, KEYS)
    assert len(resolve_holdout(["D01"], screen)) == 8  # at all doses, in all contexts
    assert resolve_holdout(["x:D01"], screen) == [(f"D01 at {d}", "x") for d in ("0.01", "0.1", "1", "10")]
    assert resolve_holdout(["D01 at 0.1"], screen) == [("D01 at 0.1", "x"), ("D01 at 0.1", "y")]
    assert len(resolve_holdout(["y"], screen)) == 20
    with pytest.raises(UserError, match="'D0' matches no perturbed cells.*Found drugs: 'D01'"):
        resolve_holdout(["D0"], screen)
    bare = read_drugs(counts, KEYS._replace(smiles=None))
    with pytest.raises(UserError, match="without any training cells of the drug, which has no SMILES either"):
        resolve_holdout(["D03", "D02+D03"], bare)


def test_nothing_held_out_trains(counts):
    screen = read_drugs(counts, KEYS)
    held = [("D01 at 0.1", "x"), ("D02 at 1", "y")]
    assert _run._what_trains(screen, held) == {"split_by": "split"}
    obs = screen.adata.obs
    test = obs[obs["split"] == "test"]
    assert set(zip(test["condition"], test["context"], strict=True)) == set(held) and len(test) == 10
    assert set(obs["split"]) == {"train", "test"}


def test_by_default_a_drug_in_a_context_and_an_inner_dose_of_another(counts):
    held, said = default_drug_holdout(read_drugs(counts, KEYS), 0)
    first, context = held[0]
    drug = first.split(" at ")[0]
    assert held[:4] == [(f"{drug} at {d}", context) for d in ("0.01", "0.1", "1", "10")]
    (other,) = {label for label, _ in held[4:]}
    assert not other.startswith(drug) and other.endswith(" at 1") and {c for _, c in held[4:]} == {"x", "y"}
    assert said == f"{drug} in {context}, which 1 other context measured; {other}, a dose between others"
    assert default_drug_holdout(read_drugs(counts, KEYS), 0)[0] == held
    assert any(default_drug_holdout(read_drugs(counts, KEYS), seed)[0] != held for seed in range(1, 6))


def test_by_default_of_one_context_and_dose(counts, tmp_path):
    adata = ad.read_h5ad(counts)
    few = adata[(adata.obs["context"] == "x") & adata.obs["dose"].isin([0, 1])].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    held, said = default_drug_holdout(read_drugs(tmp_path / "few.h5ad", KEYS), 0)
    assert len(held) == 1 and said == "1 of 4 drugs" and "+" not in held[0][0]
    with pytest.raises(UserError, match="nothing can be held out by default: no drug in a second context"):
        default_drug_holdout(read_drugs(tmp_path / "few.h5ad", KEYS._replace(smiles=None)), 0)


def test_the_command_runs_the_real_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_run, "MAX_SCATTERS", 1)  # figures take most of the time
    small = simulate_drug_screen(20, 3, 2, doses=(0.01, 0.1, 1, 10), contexts=("x", "y"), n_combinations=0, n_cells=4,
                                 n_control=12)  # fmt: skip
    small.write_h5ad(tmp_path / "small.h5ad")
    out = tmp_path / "out"
    args = [
        "demo",
        "--data",
        str(tmp_path / "small.h5ad"),
        *COLUMNS,
        "--context-key",
        "context",
        "--max-epochs",
        "1",
        "--out",
        str(out),
    ]
    assert main([*args, "--holdout", "y:D02", "D01 at 1"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "held out: as asked: 'x: D01 at 1', 'y: D01 at 1'" in said or "held out: as asked: 'y: D02 at 0.01'" in said
    scores = pd.read_csv(out / "scores.csv")
    held = {(f"D02 at {d}", "y") for d in ("0.01", "0.1", "1", "10")} | {("D01 at 1", "x"), ("D01 at 1", "y")}
    model = scores[scores["method"] == "model"]
    assert {(p, c) for p, c in zip(model["perturbation"], model["context"], strict=True) if p[0] != "("} == held
    assert {"no change", "mean", "context transfer"} <= set(scores["method"])
    assert set(model.loc[model["perturbation"] == "D02 at 1", "support"]) <= {"near", "far"}
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert predicted.obs["condition"].value_counts().to_dict() == {p: 12 * (1 + (p[:3] == "D01")) for p, _ in held}
    assert set(predicted.uns["jepa"]["prediction"]["conditions"]["perturbation"]) == {p for p, _ in held}
    again = DrugJEPA.load(str(out / "model"), adata=None)
    trained = again.trained_on_
    assert not ((trained["perturbation"] == "D02") & (trained["context"] == "y")).any()
    curve, ranked = pd.read_csv(out / "dose_curve.csv"), pd.read_csv(out / "screen.csv")
    assert curve["dose"].tolist() == [0.01, 0.1, 1, 10] and sorted(ranked["name"]) == ["D01", "D02", "D03"]
    assert len(pd.read_csv(out / "dose_response.csv")) == 1
    for name in ("history", "scores", "dose_response", "screen"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--data", "{data}", "--model", "drug"],
            "--data needs --drug-key: the obs column that says which drug each cell got",
        ),
        (
            ["--data", "{data}", "--perturbation-key", "drug", "--dose-key", "dose"],
            "--dose-key is not for --model perturb",
        ),
        (["--data", "{data}", *COLUMNS, "--perturbation-key", "drug"], "--perturbation-key is not for --model drug"),
        (["--model", "drug", "--dose-key", "dose"], "--dose-key needs --data"),
        (["--data", "{data}", *COLUMNS[:3], "dru"], "--drug-key='dru' is not a column"),
        (["--data", "{data}", *COLUMNS[:4], "--smiles-key", "smile"], "--smiles-key='smile' is not a column"),
        (["--data", "{data}", *COLUMNS[:4], "--dose-key", "context"], "--dose-key='context'"),
        (["--data", "{data}", *COLUMNS, "--control", "PBS"], "--control='PBS' is not among the labels"),
    ],
)
def test_errors_of_use_are_one_line(counts, tmp_path, capsys, args, message):
    args = [a.replace("{data}", str(counts)) for a in args]
    assert main(["demo", *args, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_effects_that_were_measured(counts):
    from scjepa.demo._drugs import _measured

    screen = read_drugs(counts, KEYS)
    found = _measured(screen, "D01", "x")
    obs, x = screen.adata.obs, screen.adata.X.toarray()
    here = (obs["context"] == "x").to_numpy()
    treated = here & ((obs["drug"] == "D01") & (obs["dose"] == 0.1)).to_numpy()
    expected = x[treated].mean(0) - x[here & (obs["drug"] == "DMSO").to_numpy()].mean(0)
    assert found.index.tolist() == [0.01, 0.1, 1, 10]
    np.testing.assert_allclose(found.loc[0.1], expected, atol=1e-5)
