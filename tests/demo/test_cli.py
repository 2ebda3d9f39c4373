"""How the demo command fails: exit codes and one line of text."""

from __future__ import annotations

import pytest

from scjepa.datasets import simulate_perturbseq
from scjepa.demo import main
from tests.demo.cases import ARGS


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
