"""What the demo holds out: as asked, or by its own choice."""

from __future__ import annotations

import pytest
import scipy.sparse as sp

from scjepa.demo import UserError, default_holdout, resolve_holdout
from tests.demo.cases import make_screen


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
    with pytest.raises(
        UserError, match=r"no perturbed gene \('Y', 'Z'\) is a measured one \('A', 'B', 'g1' and 1 more\)"
    ):
        default_holdout(make_screen(["control", "Y", "Z"]), 0)
    with pytest.raises(UserError, match="nothing can be held out by default: the screen has one perturbation in one"):
        default_holdout(make_screen(["control", "A"]), 0)


def test_a_gene_that_no_training_cell_expresses_is_not_measured():
    screen = make_screen(["control", "control", "A", "B", "B"])
    values = screen.adata.X.toarray()
    values[:, 0] = [0, 0, 3, 0, 0]  # A is expressed where it is perturbed, nowhere else
    screen.adata.X = sp.csr_matrix(values)
    assert all(default_holdout(screen, seed)[0] == [("B", "")] for seed in range(5))
    assert resolve_holdout(["B"], screen) == [("B", "")]
    with pytest.raises(UserError, match="leaves 'A' without any training cells of the perturbed gene"):
        resolve_holdout(["A"], screen)
