"""The demo command: what it reads, holds out, writes and says, and how it fails."""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa import demo
from scjepa.datasets import simulate_perturbseq
from scjepa.demo import Results, Screen, UserError, default_holdout, main, read_screen, resolve_holdout, select_genes
from scjepa.model import PerturbJEPA


def make_screen(labels: list[str], contexts: list[str] | None = None, genes: tuple[str, ...] = ("A", "B", "g1", "g2")):
    """Cells with the given labels and arbitrary values."""
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
    if contexts is not None:
        obs["line"] = contexts
    x = np.random.default_rng(0).uniform(0.1, 2.0, (len(labels), len(genes))).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=list(genes)))
    return Screen(adata, "p", "control", None if contexts is None else "line", None)


@pytest.fixture
def counts(tmp_path) -> Path:
    adata = simulate_perturbseq(40, 6, 4, 2, n_cells=8, n_control=20, kinds=("KD",), contexts=("K562", "RPE1"))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


class FakeModel:
    """Stands in for PerturbJEPA: predicts the controls of the context, remembers what it was asked."""

    calls: dict = {}
    fail: dict[str, BaseException] = {}

    @classmethod
    def setup_anndata(cls, adata, perturbation_key, control="control", **kwargs):
        cls.calls = {"setup": {"perturbation_key": perturbation_key, "control": control, **kwargs}}
        cls.data = adata

    def __init__(self, adata):
        self._step("init")

    def _step(self, name):
        if name in self.fail:
            raise self.fail[name]

    def train(self, **kwargs):
        self.calls["train"] = kwargs
        self._step("train")

    def save(self, path, **kwargs):
        Path(path).mkdir()
        (Path(path) / "model.pt").write_text("weights")
        self._step("save")

    def predict_perturbation(self, perturbations, context=None, seed=0):
        self._step("predict")
        setup = self.calls["setup"]
        obs = self.data.obs
        source = (obs[setup["perturbation_key"]] == setup["control"]).to_numpy()
        if context is not None:
            source &= (obs[setup["context_key"]] == context).to_numpy()
        parts = []
        for name in perturbations:
            part = self.data[source].copy()
            part.obs[setup["perturbation_key"]] = name
            parts.append(part)
        out = ad.concat(parts)
        out.obs_names_make_unique()
        out.uns = {"jepa": {"prediction": {"by": "fake"}}}
        return out


class FakePlots:
    """Writes a file for each figure."""

    asked: list = []

    def history(self, model, save):
        Path(save).write_bytes(b"png")

    def scores(self, scores, save):
        Path(save).write_bytes(b"png")

    def predicted_vs_true(self, pred, real, perturbation, save, context, **kwargs):
        self.asked.append((perturbation, context))
        Path(save).write_bytes(b"png")


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(FakeModel, "fail", {})
    monkeypatch.setattr(FakePlots, "asked", [])
    monkeypatch.setattr(demo, "PerturbJEPA", FakeModel)
    monkeypatch.setattr(demo, "pl", FakePlots())
    return FakeModel


ARGS = ["--perturbation-key", "perturbation", "--context-key", "context"]

# ---- reading


def test_counts_are_normalised_over_all_genes_before_the_choice_of_genes(tmp_path):
    x = np.array([[1, 3, 0, 6], [2, 2, 4, 2], [5, 1, 2, 2]], dtype=np.float32)
    cells = ad.AnnData(sp.csc_matrix(x), obs=pd.DataFrame({"p": ["control", "A", "A"]}, index=list("abc")))
    cells.write_h5ad(tmp_path / "x.h5ad")
    screen = read_screen(tmp_path / "x.h5ad", "p")
    np.testing.assert_allclose(screen.adata.X.toarray(), np.log1p(x / 10 * 1e4), rtol=1e-6)
    part = select_genes(screen, np.ones(3, bool), 2)
    kept = screen.adata.var_names.get_indexer(part.adata.var_names)
    assert len(kept) == 2
    np.testing.assert_allclose(part.adata.X.toarray(), np.log1p(x / 10 * 1e4)[:, kept], rtol=1e-6)


def test_lognormalised_values_and_layers_are_kept(tmp_path):
    x = np.log1p(np.array([[0.5, 1.5], [2.5, 0.0]], dtype=np.float32))
    cells = ad.AnnData(np.zeros((2, 2)), obs=pd.DataFrame({"p": ["control", "A"]}, index=list("ab")), layers={"log": x})
    cells.write_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(read_screen(tmp_path / "x.h5ad", "p", layer="log").adata.X, x)


def test_labels_are_written_one_way_and_empty_cells_are_counted(tmp_path, capsys):
    x = np.array([[1, 2], [3, 1], [1, 1], [0, 0], [2, 5]], dtype=np.float32)
    obs = pd.DataFrame({"p": ["NT", "B+A", "A+ctrl", "A", "A+B"]}, index=list("abcde"))
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=["g", "g"])).write_h5ad(tmp_path / "x.h5ad")
    screen = read_screen(tmp_path / "x.h5ad", "p", "NT")
    assert screen.adata.obs["p"].tolist() == ["NT", "A+B", "A", "A+B"]
    assert screen.adata.var_names.tolist() == ["g", "g-1"]
    assert "left out: 1 cells without any count" in capsys.readouterr().out
    assert screen.conditions().to_dict() == {("A", ""): 1, ("A+B", ""): 2}


def test_held_out_cells_have_no_say_in_the_choice_of_genes():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.uniform(5, 50, 300), (60, 300)).astype(float)  # many genes of each mean, so that bins are full
    on_off = 60 * (np.arange(60) % 2)
    x[40:, 3] = on_off[40:]  # varies in held-out cells only
    x[:40, 7] = on_off[:40]  # varies in training cells
    x[:40, 9] = 0  # never seen in training
    labels = ["control"] * 20 + ["A"] * 20 + ["g29"] * 20
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(60)])
    adata = ad.AnnData(sp.csr_matrix(np.log1p(x)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    screen, train = Screen(adata, "p", "control", None, None), np.arange(60) < 40
    chosen = select_genes(screen, train, 5).adata.var_names
    assert "g7" in chosen and "g3" not in chosen and "g9" not in chosen
    assert "g29" in chosen  # a perturbed gene that is measured
    other = adata.copy()
    other.X[40:] = sp.csr_matrix(np.log1p(rng.poisson(20, (20, 300))))
    assert select_genes(screen._replace(adata=other), train, 5).adata.var_names.tolist() == chosen.tolist()
    assert "g3" in select_genes(screen, np.ones(60, bool), 5).adata.var_names
    assert select_genes(screen, train, 300).adata.n_vars == 300  # no more genes than asked for: all stay
    assert select_genes(screen, train, 299).adata.var_names.tolist() == [g for g in adata.var_names if g != "g9"]


# ---- what is held out


def test_holdout_items_by_name():
    labels = ["control", "A", "B", "A+B", "control", "A", "A+B"]
    screen = make_screen(labels, ["CD14 Mono"] * 4 + ["B cells"] * 3)
    assert resolve_holdout(["B+A"], screen) == [("A+B", "B cells"), ("A+B", "CD14 Mono")]
    assert resolve_holdout(["CD14 Mono:B+A"], screen) == [("A+B", "CD14 Mono")]
    assert resolve_holdout(["B cells"], screen) == [("A", "B cells"), ("A+B", "B cells")]
    assert resolve_holdout(["B", "CD14 Mono:B", " A+ctrl "], screen) == [
        ("B", "CD14 Mono"), ("A", "B cells"), ("A", "CD14 Mono")]  # fmt: skip
    odd = make_screen(["control", "chr1:10", "A"], ["x:y"] * 3)
    assert resolve_holdout(["chr1:10"], odd._replace(adata=make_screen(["control", "chr1:10", "A"], ["x:y"] * 3,
                           ("chr1:10", "b")).adata)) == [("chr1:10", "x:y")]  # fmt: skip
    assert resolve_holdout(["x:y:A"], odd) == [("A", "x:y")]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["A+C"], r"'A\+C' matches no perturbed cells. Did you mean 'A\+B'"),
        (["T cells:C"], "contexts: 'B cells', 'T cells'"),
        (["control"], "controls can't be held out"),
        (["A", "B", "A+B", "B cells"], "leaves no perturbed cells to train on"),
        (["A++B"], "matches no perturbed cells"),
    ],
)
def test_unclear_holdouts_are_refused(items, message):
    screen = make_screen(["control", "A", "B", "A+B"] * 2, ["T cells"] * 4 + ["B cells"] * 4)
    with pytest.raises(UserError, match=message):
        resolve_holdout(items, screen)


def test_holdout_with_two_meanings_without_contexts_and_of_unknown_genes():
    with pytest.raises(UserError, match="is a perturbation and a context"):
        resolve_holdout(["A"], make_screen(["control", "A", "control", "B"], ["A", "A", "x", "x"]))
    with pytest.raises(UserError, match="Contexts need --context-key"):
        resolve_holdout(["T:A"], make_screen(["control", "A", "B"]))
    with pytest.raises(UserError, match="'Z' without any training cells"):
        resolve_holdout(["Z"], make_screen(["control", "A", "Z"]))


def test_default_holdout_is_combinations_first():
    names = [f"g{i}" for i in range(6)]
    pairs = [
        f"{a}+{b}" for a, b in [("g0", "g1"), ("g0", "g2"), ("g1", "g2"), ("g2", "g3"), ("g3", "g4"), ("g4", "g5")]
    ]
    screen = make_screen(["control", *names, *pairs, "g0+unknown"])
    held, reason = default_holdout(screen, seed=0)
    assert len(held) == 5 and {p for p, _ in held} <= set(pairs)
    assert reason == "5 of 6 combinations whose single perturbations are measured"
    assert default_holdout(screen, seed=0)[0] == held
    assert any(default_holdout(screen, seed=s)[0] != held for s in range(1, 8))


def test_default_holdout_asks_for_the_singles_in_the_same_context():
    screen = make_screen(["control", "A", "B", "control", "A+B", "A"], ["x"] * 3 + ["y"] * 3)
    held, reason = default_holdout(screen, 0)
    assert "largest context" in reason and all(context == held[0][1] for _, context in held)


def test_default_holdout_is_the_largest_context_next():
    screen = make_screen(["control", "A", "control", "A", "A", "Z"], ["small"] * 2 + ["large"] * 4)
    held, reason = default_holdout(screen, 0)
    assert held == [("A", "large")]
    assert (
        reason
        == "the perturbed cells of the largest context, 'large' (without 1 perturbations that no other context has)"
    )


def test_default_holdout_is_a_tenth_of_measured_perturbations_last():
    names = tuple(f"g{i}" for i in range(20))
    held, reason = default_holdout(make_screen(["control", *names, "Z"], genes=names), 0)
    assert len(held) == 2 and {p for p, _ in held} <= set(names)
    assert reason == "2 of 21 perturbations"
    with pytest.raises(UserError, match="nothing can be held out by default"):
        default_holdout(make_screen(["control", "Y", "Z"]), 0)
    with pytest.raises(UserError, match="nothing can be held out by default"):
        default_holdout(make_screen(["control", "A"]), 0)


# ---- the run


def test_a_run_writes_everything_and_trains_without_the_held_out(fake, counts, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predicted_vs_true_old.png").write_text("of an earlier run")
    (out / "notes.txt").write_text("mine")
    code = main(["demo", "--data", str(counts), *ARGS, "--batch-key", "batch", "--holdout", "K562", "--max-epochs", "3",
                 "--seed", "5", "--out", str(out)])  # fmt: skip
    assert code == 0
    table = ad.read_h5ad(counts).obs
    perturbed = sorted(set(table["perturbation"]) - {"control"})
    assert fake.calls["setup"] == {"perturbation_key": "perturbation", "control": "control", "context_key": "context",
                                   "batch_key": "batch"}  # fmt: skip
    assert fake.calls["train"] == {"max_epochs": 3, "seed": 5, "holdout": [(p, "K562") for p in perturbed]}
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert set(predicted.obs["perturbation"]) == set(perturbed)
    assert set(predicted.obs["context"]) == {"K562"}
    assert predicted.uns["jepa"]["prediction"]["by"] == "fake"
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["perturbation"]) == set(perturbed)
    value = scores.set_index(["method", "metric", "perturbation"])["value"]
    np.testing.assert_allclose(value["model"]["l2"], value["no change"]["l2"], rtol=1e-4)  # the fake predicts controls
    written = sorted(p.name for p in out.iterdir())
    figures = [f"predicted_vs_true_K562_{p}.png" for p in perturbed]
    assert len(figures) == 6
    assert written == sorted(
        ["model", "history.png", "predictions.h5ad", "scores.csv", "scores.png", "notes.txt", *figures]
    )
    assert FakePlots.asked == [(p, "K562") for p in perturbed]
    said = capsys.readouterr().out
    assert "held out: as asked" in said and "model" in said and "no change" in said


def test_several_contexts_are_predicted_each_from_its_own_controls(fake, counts, tmp_path):
    names = sorted(set(ad.read_h5ad(counts).obs["perturbation"]) - {"control"})
    double = next(n for n in names if "+" in n)
    assert main(["demo", "--data", str(counts), *ARGS, "--holdout", double, "--out", str(tmp_path / "o")]) == 0
    predicted = ad.read_h5ad(tmp_path / "o" / "predictions.h5ad")
    assert predicted.obs["context"].value_counts().to_dict() == {"K562": 20, "RPE1": 20}
    assert predicted.obs_names.is_unique
    assert fake.calls["train"]["holdout"] == [(double, "K562"), (double, "RPE1")]
    assert FakePlots.asked == [(double, "K562"), (double, "RPE1")]


def test_without_contexts_conditions_are_named_by_the_perturbation(fake, counts, tmp_path):
    names = sorted(set(ad.read_h5ad(counts).obs["perturbation"]) - {"control"})
    double = next(n for n in names if "+" in n)
    args = ["--perturbation-key", "perturbation", "--holdout", double, "--out", str(tmp_path / "o")]
    assert main(["demo", "--data", str(counts), *args]) == 0
    assert fake.calls["train"]["holdout"] == [double]
    assert FakePlots.asked == [(double, None)]


@pytest.mark.parametrize(
    ("stage", "kept"),
    [("init", "nothing yet"), ("train", "nothing yet"), ("save", "nothing yet"), ("predict", "model, history.png")],
)
def test_interrupt_keeps_what_is_done(fake, counts, tmp_path, capsys, stage, kept):
    fake.fail[stage] = KeyboardInterrupt()
    out = tmp_path / "out"
    assert main(["demo", "--data", str(counts), *ARGS, "--out", str(out)]) == 130
    assert capsys.readouterr().err == f"\ninterrupted; {out} holds of this run: {kept}\n"
    assert sorted(p.name for p in out.iterdir()) == sorted([] if kept == "nothing yet" else kept.split(", "))


def test_interrupt_that_the_trainer_turned_into_an_exit(fake, counts, tmp_path, monkeypatch, capsys):
    def train(self, **kwargs):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.exit(1)

    monkeypatch.setattr(FakeModel, "train", train)
    before = signal.getsignal(signal.SIGINT)
    assert main(["demo", "--data", str(counts), *ARGS, "--out", str(tmp_path / "out")]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "interrupted" in capsys.readouterr().err


def test_results_appear_whole_or_not_at_all(tmp_path):
    results = Results(tmp_path)
    with results.write("a.csv") as path:
        path.write_text("first")
    with pytest.raises(RuntimeError), results.write("a.csv") as path:
        path.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.csv").read_text() == "first"
    for text in ("one", "two"):
        with results.write("model") as path:
            path.mkdir()
            (path / text).write_text(text)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["two"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "model"]


# ---- errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "{tmp}/absent.h5ad", *ARGS], "absent.h5ad: no such file"),
        (["--data", "{tmp}/scren.h5ad", *ARGS], "Did you mean 'screen.h5ad'?"),
        (["--data", "{tmp}/text.h5ad", *ARGS], "not an .h5ad (HDF5) file"),
        (["--data", "{tmp}/other.h5ad", *ARGS], "other.h5ad:"),
        (["--data", "{data}"], "--data needs --perturbation-key"),
        (["--data", "{data}", "--perturbation-key", "perturbatoin"], "Did you mean 'perturbation'?"),
        (["--data", "{data}", *ARGS, "--control", "NT"], "--control='NT' is not among the labels"),
        (["--data", "{data}", *ARGS[:2], "--context-key", "cell"], "--context-key='cell' is not a column"),
        (["--data", "{data}", *ARGS[:2], "--context-key", "perturbation"], "give different columns"),
        (["--data", "{data}", *ARGS, "--batch-key", "lane"], "--batch-key='lane' is not a column"),
        (["--data", "{data}", *ARGS, "--layer", "counts"], "--layer='counts' is not among"),
        (["--data", "{data}", *ARGS, "--holdout", "R99"], "--holdout 'R99' matches no perturbed cells."),
        (["--data", "{data}", *ARGS, "--out", "{data}/x"], "can't be written"),
        (["--control", "NT"], "--control needs --data"),
    ],
)
def test_errors_of_use_are_one_line(counts, tmp_path, capsys, args, message):
    import h5py

    (tmp_path / "text.h5ad").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = [1, 2]
    fill = {"{tmp}": str(tmp_path), "{data}": str(counts)}

    def filled(text: str) -> str:
        for key, value in fill.items():
            text = text.replace(key, value)
        return text

    args = [filled(a) for a in args]
    args += [] if "--out" in args else ["--out", str(tmp_path / "out")]
    assert main(["demo", *args]) == 2
    err = capsys.readouterr().err
    assert filled(message) in err
    assert err.startswith("scjepa demo: error: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["demo", "--seed", "x"], "'x' is not a whole number of at least 0"),
        (["demo", "--n-top-genes", "0"], "'0' is not a whole number of at least 1"),
        (["demo", "--perturbation", "p", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["train"], "invalid choice: 'train'"),
    ],
)
def test_errors_of_the_command_line_are_one_line(capsys, args, message):
    with pytest.raises(SystemExit) as stop:
        main(args)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.count("\n") == 1


def test_errors_of_the_model(fake, counts, tmp_path, capsys):
    args = ["demo", "--data", str(counts), *ARGS, "--out", str(tmp_path / "out")]
    fake.fail["init"] = ValueError("no such\n thing")
    assert main(args) == 2
    assert capsys.readouterr().err == "scjepa demo: error: no such thing\n"
    fake.fail["init"] = RuntimeError("broken")
    assert main(args) == 1
    assert capsys.readouterr().err == "scjepa demo: error: RuntimeError: broken (--verbose shows where)\n"
    assert main([*args, "--verbose"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("scjepa demo: error: RuntimeError: broken\n")


def test_controls_only_are_refused(tmp_path, capsys):
    simulate_perturbseq(20, 2, 0, 0, n_control=10).write_h5ad(tmp_path / "x.h5ad")
    args = ["--data", str(tmp_path / "x.h5ad"), *ARGS, "--out", str(tmp_path / "out")]
    assert main(["demo", *args]) == 2
    assert "control cells only" in capsys.readouterr().err


# ---- the real thing


def test_the_command_runs_the_real_model(tmp_path, monkeypatch, capsys):
    simulate_perturbseq(30, 4, 3, 1, n_cells=8, n_control=12, kinds=("KD",)).write_h5ad(tmp_path / "x.h5ad")
    out = tmp_path / "out"
    args = ["demo", "--data", str(tmp_path / "x.h5ad"), *ARGS, "--max-epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["scjepa", *args])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("scjepa", run_name="__main__")
    assert stop.value.code == 0
    assert "1 of 1 combinations whose single perturbations are measured" in capsys.readouterr().out
    scores = pd.read_csv(out / "scores.csv")
    assert {"model", "no change", "additive"} <= set(scores["method"])
    predicted = ad.read_h5ad(out / "predictions.h5ad")
    assert predicted.obs["context"].value_counts().to_dict() == {"state A": 12, "state B": 12}
    figures = list(out.glob("*.png"))
    assert len(figures) == 4 and all(f.read_bytes().startswith(b"\x89PNG") for f in figures)
    again = PerturbJEPA.load(str(out / "model"), adata=None)
    assert again.trained_on_["perturbation"].str.contains("+", regex=False).sum() == 0  # the double was held out
    assert len(again.trained_on_) == 6
