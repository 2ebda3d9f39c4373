"""tl.split: what is held out, what stays seen, and that the draw depends on labels and seed only."""

from __future__ import annotations

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa.tl import split
from scjepa.tl._split import KINDS

GENES = list("ABCDEFGH")
PAIRS = [f"{a}+{b}" for a, b in combinations(GENES, 2)]
RINGS = {"A": "Cc1ccccc1", "B": "Oc1ccccc1", "C": "Cc1ccncc1", "D": "Oc1ccncc1", "E": "CC1CCNCC1", "F": "OC1CCNCC1",
         "G": "Cc1ccc2ccccc2c1", "H": "CCO"}  # fmt: skip
"""structures of the perturbations, read as drugs: three scaffolds of two, one of one, and a molecule without rings"""


def cells(labels, contexts=("x",), n=2, doses=(0.0,)) -> ad.AnnData:
    rows = [(p, c, d) for c in contexts for p in labels for d in (doses if p != "control" else doses[:1])]
    obs = pd.DataFrame([r for r in rows for _ in range(n)], columns=["p", "cell_type", "dose"])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    obs["smiles"] = obs["p"].map(RINGS)
    return ad.AnnData(np.ones((len(obs), 1), np.float32), obs=obs)


def screen(**kwargs) -> ad.AnnData:
    return cells(["control", *GENES, *PAIRS[::2]], **kwargs)


def run(adata, kind, **kwargs) -> pd.DataFrame:
    keys = {"perturbation_key": "p"}
    if "context" in kind or "perturbench" in kind:
        keys["context_key"] = "cell_type"
    if kind.endswith("_dose"):
        keys["dose_key"] = "dose"
    if kind == "unseen_scaffold":
        pytest.importorskip("rdkit")
        keys["smiles_key"] = "smiles"
    return split(adata, kind, **{**keys, **kwargs})


def genes_of(table, *parts) -> set[str]:
    return {g for p in table.loc[table["split"].isin(parts), "perturbation"] for g in p.split("+")}


def full(kind) -> ad.AnnData:
    contexts = ("x", "y", "z") if "context" in kind or "perturbench" in kind else ("x",)
    return screen(contexts=contexts, n=10, doses=(1.0, 10.0, 100.0) if kind.endswith("_dose") else (0.0,))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_controls_fills_all_parts_and_counts_all_cells(kind):
    adata = full(kind)
    table = run(adata, kind)
    assert (adata.obs.loc[adata.obs["p"] == "control", "split"] == "train").all()
    perturbed = adata.obs[adata.obs["p"] != "control"]
    assert {"train", "validation", "test"} <= set(perturbed["split"])
    assert table["n_cells"].sum() == len(perturbed)
    assert table.groupby("split")["n_cells"].sum().to_dict() == perturbed["split"].value_counts().to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_draw_does_not_depend_on_the_order_of_cells_but_on_the_seed(kind):
    adata = full(kind)
    small = {"test_size": 0.15, "validation_size": 0.0} if kind == "unseen_combination_1" else {}
    run(adata, kind, **small)
    mixed = full(kind)[np.random.default_rng(3).permutation(adata.n_obs)].copy()
    run(mixed, kind, **small)
    assert mixed.obs.loc[adata.obs_names, "split"].tolist() == adata.obs["split"].tolist()
    others = []
    for seed in range(1, 6):
        other = full(kind)
        run(other, kind, seed=seed, **small)
        others.append(other.obs["split"].astype(str).tolist())
    assert any(other != adata.obs["split"].astype(str).tolist() for other in others)


def test_unseen_perturbation_keeps_its_genes_out_of_training_everywhere():
    adata = screen(contexts=("x", "y"))
    table = run(adata, "unseen_perturbation", context_key="cell_type", test_size=0.25, validation_size=0.125)
    singles = table[table["perturbation"].isin(GENES)]
    part = singles.groupby("perturbation")["split"].unique()
    assert part.str.len().max() == 1, "the same part in both contexts"
    assert part.str[0].value_counts().to_dict() == {"train": 5, "test": 2, "validation": 1}
    test = set(part.index[part.str[0] == "test"])
    assert not test & genes_of(table, "train", "validation")
    assert not set(part.index[part.str[0] == "validation"]) & genes_of(table, "train")
    assert all(set(p.split("+")) & test for p in table.loc[table["split"] == "test", "perturbation"])


def test_unseen_combination_2_trains_the_singles():
    labels = ["control", "A", "B", "C", "A+B", "A+C", "C+D"]  # D was never measured alone
    table = run(cells(labels), "unseen_combination_2", test_size=0.5, validation_size=0)
    held = table[table["split"] == "test"]
    assert len(held) == 1 and held["perturbation"].item() in {"A+B", "A+C"} and held["group"].item() == "combo_seen2"
    both = run(cells(labels), "unseen_combination_2", test=["B+A", "A+C"], validation_size=0)
    assert both.loc[both["split"] == "test", "perturbation"].tolist() == ["A+B", "A+C"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [0, 1])
def test_unseen_combination_0_and_1_see_exactly_that_many_genes(k, seed):
    adata = screen()
    table = run(adata, f"unseen_combination_{k}", seed=seed, test_size=0.15, validation_size=0.05)
    seen = genes_of(table, "train")
    for part, least in (("test", 2), ("validation", 1)):
        held = table.loc[table["split"] == part, "perturbation"]
        assert len(held) >= least
        assert {sum(g in seen for g in p.split("+")) for p in held} == {k}
        assert set(table.loc[table["split"] == part, "group"]) == {f"combo_seen{k}"}
    unused = table.loc[table["split"] == "unused", "perturbation"]
    assert len(unused) and all(not seen.issuperset(p.split("+")) for p in unused)


def test_combinations_of_three_are_between_none_and_all():
    labels = ["control", *"ABCDE", "A+B+C", "A+B+D", "C+D+E"]
    table = run(cells(labels), "unseen_combination_2", test=["C+B+A"], validation_size=0)
    assert table.loc[table["split"] == "test", "perturbation"].tolist() == ["A+B+C"]
    table = run(cells(labels), "unseen_perturbation", test=["A"], validation_size=0)
    held = table[table["split"] == "test"].set_index("perturbation")["group"].to_dict()
    assert held == {"A": "unseen_single", "A+B+C": "combo_seen1", "A+B+D": "combo_seen1"}


def test_unseen_context_and_dose_hold_out_all_their_perturbed_cells():
    adata = cells(["control", "A", "B"], contexts=("x", "y", "z"))
    table = run(adata, "unseen_context", test=["y"], validation_size=0)
    assert table.loc[table["split"] == "test", ["perturbation", "context"]].values.tolist() == [["A", "y"], ["B", "y"]]
    assert set(table["group"]) == {"seen_single"}
    adata = cells(["control", "A", "B"], doses=(0.5, 1.0, 5.0, 25.0))
    table = run(adata, "unseen_dose", test=[5], validation_size=0.25)
    assert set(table.loc[table["split"] == "test", "dose"]) == {5.0}
    assert table.groupby("dose")["split"].nunique().max() == 1
    assert table.loc[table["split"] == "validation", "dose"].nunique() == 1


def test_controls_need_no_dose():
    adata = cells(["control", "A", "B"], doses=(1.0, 2.0, 3.0))
    adata.obs.loc[adata.obs["p"] == "control", "dose"] = np.nan
    table = run(adata, "unseen_dose")
    assert sorted(table.drop_duplicates("dose")["split"]) == ["test", "train", "validation"]
    adata.obs.iloc[-1, adata.obs.columns.get_loc("dose")] = np.nan
    with pytest.raises(ValueError, match="dose_key='dose': 1 of 12 values are missing"):
        run(adata, "unseen_dose", key_added="other")


def test_unseen_cell_takes_its_share_of_every_condition():
    adata = cells(["control", "A", "B"], contexts=("x", "y"), n=20)
    table = run(adata, "unseen_cell", context_key="cell_type", test_size=0.25, validation_size=0.1)
    wide = table.pivot(index=["perturbation", "context"], columns="split", values="n_cells")
    assert (wide == pd.Series({"test": 5, "train": 13, "validation": 2})).all(axis=None)


@pytest.mark.parametrize(
    ("seed", "validation", "test"),
    # made with DataSplitter.split_data of cell-gears 0.1.2 on these labels
    [
        (1, "A+H B+H C+G H+ctrl", "A+D A+F B+D B+F C+E D+E D+G D+ctrl E+F E+H F+H F+ctrl"),
        (3, "D+E E+F E+H E+ctrl F+H", "A+B A+D A+F A+H A+ctrl B+D B+H C+E C+G C+ctrl"),
    ],
)
def test_gears_simulation_is_the_split_of_gears(seed, validation, test):
    adata = cells(["ctrl", *(f"{g}+ctrl" for g in GENES), *PAIRS[::2]])
    table = run(adata, "gears_simulation", control="ctrl", seed=seed)
    assert sorted(table.loc[table["split"] == "validation", "perturbation"]) == validation.split()
    assert sorted(table.loc[table["split"] == "test", "perturbation"]) == test.split()


@pytest.mark.parametrize("seed", range(4))
def test_perturbench_transfer_keeps_each_perturbation_in_some_context(seed):
    adata = cells(["control", *GENES], contexts=("x", "y", "z"))
    table = run(adata, "perturbench_transfer", seed=seed)
    assert set(table.loc[table["split"] == "train", "perturbation"]) == set(GENES)
    held = table[table["split"] != "train"]
    assert held.groupby("context").size().max() <= 3, "at most 0.3 of 8 conditions, rounded up"
    assert abs((held["split"] == "test").sum() - (held["split"] == "validation").sum()) <= 1


def test_perturbench_combination_holds_out_a_share_of_each_context():
    adata = screen(contexts=("x", "y"))  # 14 combinations: int(0.3 * 14) = 4 in each context
    table = run(adata, "perturbench_combination")
    held = table[table["split"] != "train"]
    assert held.groupby(["context", "split"]).size().tolist() == [2, 2, 2, 2]
    assert held["perturbation"].str.contains("+", regex=False).all()


# ---------------------------------------------------------------- drugs


def test_an_unseen_drug_is_in_no_combination_of_training():
    adata = screen(contexts=("x", "y"))
    table = run(adata, "unseen_drug", context_key="cell_type", test_size=0.25, validation_size=0.125)
    alone = table[table["perturbation"].isin(GENES)].groupby("perturbation")["split"].unique().str[0]
    assert alone.value_counts().to_dict() == {"train": 5, "test": 2, "validation": 1}
    assert not set(alone.index[alone == "test"]) & genes_of(table, "train", "validation")
    named = run(adata, "unseen_drug", test=["B", "F"], validation_size=0, key_added="named")
    assert genes_of(named, "train") == set(GENES) - {"B", "F"}


@pytest.mark.parametrize("seed", range(6))
def test_no_scaffold_is_on_two_sides(seed):
    adata = screen(contexts=("x", "y"))
    table = run(adata, "unseen_scaffold", context_key="cell_type", test_size=0.25, validation_size=0.125, seed=seed)
    scaffold = dict(zip(GENES, [1, 1, 2, 2, 3, 3, 4, 5], strict=True))
    alone = table[table["perturbation"].isin(GENES)].groupby("perturbation")["split"].unique().str[0]
    assert (alone == "test").sum() == 2 and (alone == "validation").sum() in (1, 2), "shares are of drugs"
    sides = [{scaffold[d] for d in alone.index[alone == part]} for part in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set().union(*sides))
    trained = {scaffold[d] for d in genes_of(table, "train")}
    assert not trained & sides[1] and not trained & sides[2], "nor in a combination"


def test_relatives_of_a_named_drug_are_tested_with_it():
    table = run(cells(["control", *GENES]), "unseen_scaffold", test=["C"], validation_size=0)
    assert table.loc[table["split"] == "test", "perturbation"].tolist() == ["C", "D"]


def test_a_drug_without_a_readable_structure_is_neither_trained_nor_tested(caplog):
    adata = cells(["control", *GENES, "A+B"])
    adata.obs.loc[adata.obs["p"] == "A", "smiles"] = "C1CC"
    adata.obs.loc[adata.obs["p"] == "E", "smiles"] = None
    with caplog.at_level("INFO", logger="scjepa"):
        table = run(adata, "unseen_scaffold")
    assert "2 drugs without a readable structure are 'unused': 'A', 'E'" in caplog.text
    assert table.loc[table["split"] == "unused", "perturbation"].tolist() == ["A", "A+B", "E"]


def test_scaffolds_need_one_structure_a_drug_and_too_few_of_them_are_refused():
    adata = cells(["control", "A", "B"])
    with pytest.raises(ValueError, match="1 scaffolds of 2 drugs: 1 for the test and 0 for validation leave too few"):
        run(adata, "unseen_scaffold", validation_size=0)
    adata.obs.iloc[-1, adata.obs.columns.get_loc("smiles")] = "CCN"
    with pytest.raises(ValueError, match="'B' with more than one structure, for example 'Oc1ccccc1', 'CCN'"):
        run(adata, "unseen_scaffold")
    adata.obs["smiles"] = "?"
    with pytest.raises(ValueError, match="2 of 2 SMILES can't be read"):
        run(adata, "unseen_scaffold")
    adata.obs["smiles"] = None
    with pytest.raises(ValueError, match="no drug measured alone has a SMILES that RDKit can read"):
        run(adata, "unseen_scaffold")
    with pytest.raises(KeyError, match="smiles_key='smile' is not a column.*Did you mean 'smiles'"):
        run(adata, "unseen_scaffold", smiles_key="smile")


@pytest.mark.parametrize(("share", "held"), [(0.25, 2), (0.75, 6)])
def test_drugs_of_one_context_are_known_from_the_others(share, held):
    adata = screen(contexts=("x", "y", "z"))
    table = run(adata, "drug_in_context", test_size=share, validation_size=0)
    test = table[table["split"] == "test"]
    assert test["context"].nunique() == 1
    here = table[table["context"] == test["context"].iloc[0]]
    alone = test.loc[test["perturbation"].isin(GENES), "perturbation"]
    assert len(alone) == held
    assert not set(alone) & genes_of(here, "train") and genes_of(here, "train") == set(GENES) - set(alone)
    assert set(table.loc[table["context"] != here["context"].iloc[0], "split"]) == {"train"}
    assert not test["group"].str.contains("unseen|seen0|seen1").any(), "all drugs train somewhere"


def test_a_drug_that_only_the_held_out_contexts_know_trains():
    adata = cells(["control", *GENES], contexts=("x", "y", "z"))
    adata = adata[~((adata.obs["p"] == "A") & (adata.obs["cell_type"] == "z"))].copy()
    for seed in range(5):
        table = run(adata, "drug_in_context", test=["x", "y"], test_size=0.5, seed=seed, key_added=f"s{seed}")
        held = table[table["split"] != "train"]
        assert held.groupby(["context", "split"]).size().to_dict() == {
            (c, part): n for c in "xy" for part, n in (("test", 4), ("validation", 1))
        }
        assert "A" not in set(held["perturbation"])
    with pytest.raises(ValueError, match="too few to test and to validate on some and train on others"):
        run(adata, "drug_in_context", test=["x", "y", "z"])


@pytest.mark.parametrize(
    ("kind", "held"), [("highest_dose", {25.0}), ("lowest_dose", {0.5}), ("inner_dose", {1.0, 5.0})]
)
def test_one_dose_of_every_drug_is_held_out_in_all_contexts(kind, held):
    adata = cells(["control", *GENES], contexts=("x", "y"), doses=(0.5, 1.0, 5.0, 25.0))
    table = run(adata, kind, context_key="cell_type")
    out = table[table["split"] != "train"]
    assert set(out["dose"]) == held and (out.groupby("perturbation")["dose"].nunique() == 1).all()
    assert out.drop_duplicates("perturbation")["split"].value_counts().to_dict() == {"test": 5, "validation": 3}
    assert len(out) == 16 and out.groupby("perturbation")["split"].nunique().max() == 1
    everything = run(adata, kind, context_key="cell_type", validation_size=0, key_added="all")
    assert set(everything["split"]) == {"train", "test"} and (everything["split"] == "test").sum() == 16


def test_drugs_with_too_few_doses_train():
    adata = cells(["control", *GENES], doses=(0.5, 1.0, 5.0))
    adata = adata[~((adata.obs["p"] == "A") & (adata.obs["dose"] == 1.0))].copy()
    table = run(adata, "inner_dose", validation_size=0)
    assert set(table.loc[table["split"] == "test", "perturbation"]) == set(GENES) - {"A"}
    with pytest.raises(
        ValueError, match="0 of 2 perturbations have the 2 or more doses that kind='highest_dose' needs"
    ):
        run(cells(["control", "A", "B"]), "highest_dose")


def test_record_survives_a_file_and_a_second_split_stands_beside_it(tmp_path):
    adata = screen(n=10)
    table = run(adata, "unseen_perturbation", seed=4)
    run(adata, "unseen_cell", key_added="by_cell")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    record = back.uns["jepa"]["split"]["split"]
    assert (record["kind"], record["seed"], record["test_size"]) == ("unseen_perturbation", 4, 0.2)
    assert record["conditions"]["split"].tolist() == table["split"].tolist()
    assert {"split", "by_cell"} == set(back.uns["jepa"]["split"])
    run(back, "unseen_perturbation", seed=5)  # our own column may be replaced
    assert back.uns["jepa"]["split"]["split"]["seed"] == 5


def test_a_view_becomes_data_of_its_own():
    adata = screen()
    view = adata[adata.obs["p"] != "H"]
    run(view, "unseen_perturbation")
    assert "split" in view.obs and "split" not in adata.obs and "jepa" not in adata.uns


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "kwargs", "match"),
    [
        ("unseen_perturbations", {}, "kind='unseen_perturbations'.*Did you mean 'unseen_perturbation'"),
        ("unseen_cell", {"test_size": 0.8, "validation_size": 0.2}, "test_size=0.8 and validation_size=0.2.*sum below"),
        ("unseen_cell", {"test_size": 0.0}, "expected 0 < test_size < 1"),
        ("unseen_cell", {"test": ["A"]}, "test=.*can't be used with kind='unseen_cell'"),
        ("gears_simulation", {"test": ["A"]}, "can't be used with kind='gears_simulation'"),
        ("unseen_context", {"context_key": None}, "kind='unseen_context' needs context_key"),
        ("unseen_dose", {"dose_key": None}, "kind='unseen_dose' needs dose_key"),
        ("unseen_scaffold", {"smiles_key": None}, "kind='unseen_scaffold' needs smiles_key"),
        ("highest_dose", {"dose_key": None}, "kind='highest_dose' needs dose_key"),
        ("drug_in_context", {"context_key": None}, "kind='drug_in_context' needs context_key"),
        ("drug_in_context", {}, "how many of their drugs train in another context: 'x' 0. All: too few"),
        ("drug_in_context", {"test": ["u"]}, "test='u': not among the contexts of perturbed cells"),
        ("highest_dose", {"test": ["A"]}, "can't be used with kind='highest_dose'"),
        ("unseen_drug", {"test": ["Z"]}, "test='Z': not among the drugs"),
        ("unseen_scaffold", {"test": ["Z"]}, "test='Z': not among the drugs"),
        ("unseen_context", {}, "1 contexts of perturbed cells: 1 for the test and 1 for validation leave too few"),
        ("unseen_perturbation", {"test": ["A", "Z"]}, "test='Z': not among the genes"),
        ("unseen_combination_2", {"test": ["A+Z"]}, "not among the combinations of genes measured alone"),
        ("unseen_perturbation", {"test": []}, "8 perturbed genes: 0 for the test"),
        ("unseen_perturbation", {"control": "contrl"}, "control='contrl'.*Did you mean 'control'"),
    ],
)
def test_errors_name_the_way_out(kind, kwargs, match):
    with pytest.raises(ValueError, match=match):
        run(screen(), kind, **kwargs)


def test_no_combinations_leave_nothing_to_test():
    adata = cells(["control", *GENES])
    with pytest.raises(ValueError, match="0 combinations whose genes were all measured alone"):
        run(adata, "unseen_combination_2")
    with pytest.raises(ValueError, match="leaves no perturbed cells for test and validation"):
        run(adata, "unseen_combination_0")


def test_no_perturbed_cells():
    with pytest.raises(ValueError, match="adata has no perturbed cells"):
        run(cells(["control"]), "unseen_perturbation")


def test_a_column_of_the_user_is_not_replaced():
    adata = screen()
    adata.obs["split"] = "mine"
    with pytest.raises(ValueError, match=r"adata.obs\['split'\] is there already"):
        run(adata, "unseen_perturbation")
    assert set(adata.obs["split"]) == {"mine"}
