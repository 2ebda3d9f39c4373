"""The simulated drug screen has the pharmacology it states, and counts that agree with it."""

from __future__ import annotations

import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa._keys import Keys
from scjepa._scale import lognormalise
from scjepa.datasets import simulate_drug_screen, true_drug_effects, true_effects
from scjepa.datasets._molecules import FAMILIES, SUBSTITUENTS
from scjepa.datasets._pharmacology import FADED, INTERACTION
from scjepa.pharma import hill

SMALL = {"n_genes": 60, "n_drugs": 10, "n_targets": 3, "n_cells": 4, "n_control": 10, "contexts": ("A", "B")}
NOISE_FREE = {"depth": 1e8, "depth_sd": 0.0, "dispersion": 0.0, "state_effect": 0.0}


def truth(adata: ad.AnnData) -> dict:
    return adata.uns[Keys.uns.root][Keys.uns.simulation]


def change(adata: ad.AnnData) -> pd.DataFrame:
    """Log fold changes by condition: on this scale pharmacology is exact."""
    return pd.DataFrame(truth(adata)["log_fold_change"], index=true_drug_effects(adata).index).sort_index()


def ratio(a: pd.Series, b: pd.Series) -> float:
    """How many times b is a, if they point the same way everywhere."""
    np.testing.assert_allclose(a, b * (a @ b) / (b @ b), atol=1e-9)
    return float((a @ b) / (b @ b))


# ---------------------------------------------------------------- doses, targets, structures


def test_a_drug_has_half_of_its_effect_at_its_ec50():
    first = simulate_drug_screen(**SMALL, off_target=0.0)
    drug, row = next((d, r) for d, r in truth(first)["drugs"].iterrows() if not r["null"])
    adata = simulate_drug_screen(**SMALL, off_target=0.0, doses=(0.01, row["ec50"], 10.0))
    again = truth(adata)["drugs"].loc[drug]
    assert again["ec50"] == row["ec50"], "drawn from the ends of the dose range alone"
    w, s, p = (truth(adata)[k] for k in ("targets", "sensitivity", "programmes"))
    full = row["emax"] * s.loc["A", row["target"]] * p.loc[row["target"]].to_numpy()
    half, top = (change(adata).loc[(drug, "A", x)] for x in (row["ec50"], 10.0))
    np.testing.assert_allclose(half, full / 2)
    np.testing.assert_allclose(top, full * 10 ** row["slope"] / (10 ** row["slope"] + row["ec50"] ** row["slope"]))
    assert w.loc[drug].to_dict() == {t: float(t == row["target"]) for t in w.columns}


def test_half_effects_lie_within_the_measured_doses():
    for doses in ((0.0, 0.01, 0.1, 1.0, 10.0), (100.0, 1e4)):
        drugs = truth(simulate_drug_screen(**SMALL, doses=doses))["drugs"]
        ec50 = drugs.loc[~drugs["null"], "ec50"]
        assert ec50.between(min(d for d in doses if d), max(doses)).all() and ec50.nunique() == len(ec50)
        assert drugs.loc[~drugs["null"], "slope"].between(0.8, 2).all()


def test_hill_by_hand():
    dose, slope = np.array([0.0, 1.0, 3.0]), np.array([2.0, 2.0, 1.0])
    np.testing.assert_allclose(hill(dose, ec50=np.array([1.0, 1.0, 1.0]), slope=slope), [0, 0.5, 0.75])


def test_null_drugs_do_nothing_and_are_a_family_of_their_own():
    adata = simulate_drug_screen(**(SMALL | {"n_drugs": 20}), null_fraction=0.2, times=(6, 24))
    drugs = truth(adata)["drugs"]
    assert drugs["null"].sum() == 4 and set(drugs.loc[drugs["null"], "family"]) == {list(FAMILIES)[-1]}
    size = true_drug_effects(adata).abs().max(axis=1).groupby("drug").max()
    assert (size[drugs.index[drugs["null"]]] == 0).all() and (size[drugs.index[~drugs["null"]]] > 0.05).all()
    assert not truth(adata)["targets"][drugs["null"]].to_numpy().any()
    null = set(drugs.index[drugs["null"]])
    assert not null & {d for c in truth(adata)["combinations"]["combination"] for d in c.split("+")}


@pytest.mark.parametrize("cliffs", [0.0, 0.25])
def test_families_share_targets_except_at_cliffs(cliffs):
    drugs = truth(simulate_drug_screen(200, 40, 6, cliffs=cliffs, null_fraction=0.0, n_combinations=0, n_cells=1))[
        "drugs"
    ]
    assert drugs["cliff"].sum() == round(cliffs * 40)
    regular = drugs[~drugs["cliff"]].groupby("family")["target"].unique()
    assert (regular.str.len() == 1).all() and set(regular.str[0]) == {f"T{i:02d}" for i in range(1, 7)}
    for _, row in drugs[drugs["cliff"]].iterrows():
        assert row["target"] != regular[row["family"]][0]


def test_second_targets_follow_the_substituent():
    adata = simulate_drug_screen(200, 60, 4, n_combinations=0, n_cells=1, cliffs=0.0)
    drugs, features = truth(adata)["drugs"], truth(adata)["features"]
    active = drugs[~drugs["null"]]
    part = features.loc[active.index, [c for c in features if c.startswith("b_")]].idxmax(axis=1)
    second = active["second_target"].where(active["second_target"] != "").groupby(part).nunique()
    assert second.max() == 1, "one second target a substituent, or none"
    assert (active["second_target"] != "").any()
    weights = truth(adata)["targets"].loc[active.index]
    assert set(np.unique(weights)) == {0.0, 0.3, 1.0}


def test_features_are_alike_within_families():
    adata = simulate_drug_screen(**(SMALL | {"n_drugs": 30}))
    drugs, bits = truth(adata)["drugs"], truth(adata)["features"].to_numpy(dtype=float)
    assert set(np.unique(bits)) == {0.0, 1.0} and truth(adata)["features"].index.equals(drugs.index)
    shared = bits @ bits.T
    tanimoto = shared / (bits.sum(1)[:, None] + bits.sum(1) - shared)
    same = drugs["family"].to_numpy()[:, None] == drugs["family"].to_numpy()
    assert tanimoto[same].min() > 0.6 > tanimoto[~same].max()


def test_every_molecule_is_one_that_rdkit_reads_and_families_are_scaffolds():
    pytest.importorskip("rdkit")
    from rdkit import Chem
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    found, written = [], set()
    for template in FAMILIES.values():
        molecules = [Chem.MolFromSmiles(template.format(a=a, b=b)) for a in SUBSTITUENTS for b in SUBSTITUENTS]
        assert all(molecules)
        found.append({MurckoScaffoldSmiles(mol=m) for m in molecules})
        written |= {Chem.MolToSmiles(m) for m in molecules}
    assert [len(f) for f in found] == [1] * len(FAMILIES) and len(set.union(*found)) == len(FAMILIES)
    assert len(written) > 0.9 * len(FAMILIES) * len(SUBSTITUENTS) ** 2, "different molecules, but for symmetric ones"


def test_smiles_of_cells_are_those_of_their_drugs():
    adata = simulate_drug_screen(**SMALL)
    smiles = adata.obs.drop_duplicates("drug").set_index("drug")["smiles"].astype(str)
    assert smiles["DMSO"] == ""
    drugs = truth(adata)["drugs"]["smiles"]
    assert smiles[drugs.index].equals(drugs.rename_axis("drug")) and drugs.is_unique
    a, b = truth(adata)["combinations"]["combination"].iloc[0].split("+")
    assert smiles[f"{a}+{b}"] == f"{drugs[a]}.{drugs[b]}"


# ---------------------------------------------------------------- contexts, times, combinations, patients


@pytest.mark.parametrize("readable", [True, False])
def test_controls_tell_the_sensitivity_of_a_context_only_if_asked(readable):
    lines = [f"line {i}" for i in range(30)]
    given = SMALL | {"contexts": lines, "n_drugs": 6, "n_cells": 1, "n_control": 1, "n_combinations": 0}
    adata = simulate_drug_screen(**given, readable=readable)
    s, control = np.log(truth(adata)["sensitivity"]), truth(adata)["control"]
    r = [np.corrcoef(s[t], control[t])[0, 1] for t in s.columns]
    assert min(r) > 0.9 if readable else max(np.abs(r)) < 0.5
    drugs = truth(adata)["drugs"]
    drug = drugs.index[(drugs["second_target"] == "") & ~drugs["null"]][0]
    strong = change(adata).loc[drug].xs(10.0, level="dose")
    want = truth(adata)["sensitivity"][drugs.at[drug, "target"]]
    assert ratio(strong.loc["line 3"], strong.loc["line 7"]) == pytest.approx(want["line 3"] / want["line 7"])


def test_responses_rise_with_time_and_fade_where_and_when_stated():
    adata = simulate_drug_screen(**(SMALL | {"n_combinations": 0}), times=(24, 6, 48), off_target=0.0)
    drugs, fading = truth(adata)["drugs"], truth(adata)["fading"].set_index(["drug", "context"])["time"]
    assert sorted(adata.obs["time"].unique()) == [6.0, 24.0, 48.0]
    assert fading.index.get_level_values("drug").nunique() == round(0.25 * (~drugs["null"]).sum())
    assert set(fading) <= {24.0, 48.0}, "never from the first time on"
    for drug, row in drugs[~drugs["null"]].iterrows():
        for context in ("A", "B"):
            by_time = change(adata).loc[(drug, context, 10.0)]
            onset = {t: -np.expm1(-t / row["onset"]) for t in (6.0, 24.0, 48.0)}
            left = {t: FADED if t >= fading.get((drug, context), np.inf) else 1.0 for t in onset}
            for t in (24.0, 48.0):
                got = ratio(by_time.loc[t], by_time.loc[6.0])
                assert got == pytest.approx(onset[t] * left[t] / onset[6.0])


def test_combinations_depart_from_independence_as_their_sign_says():
    adata = simulate_drug_screen(**(SMALL | {"n_combinations": 6}), off_target=0.0)
    pairs, drugs, lfc = truth(adata)["combinations"], truth(adata)["drugs"], change(adata)
    assert pairs["interaction"].value_counts().to_dict() == dict.fromkeys(
        ["synergistic", "antagonistic", "independent"], 2
    )
    assert (pairs["sign"] == pairs["interaction"].map({"synergistic": 1, "antagonistic": -1, "independent": 0})).all()
    for _, pair in pairs.iterrows():
        a, b = drugs.loc[pair["drug_a"]], drugs.loc[pair["drug_b"]]
        assert a["target"] == b["target"], "pairs of one target come first"
        full = (
            truth(adata)["sensitivity"].loc["B", a["target"]] * truth(adata)["programmes"].loc[a["target"]].to_numpy()
        )
        for dose in (0.1, 10.0):
            level = [float(hill(np.array(dose), ec50=d["ec50"], slope=d["slope"])) for d in (a, b)]
            f_a, f_b = level[0] * a["emax"], level[1] * b["emax"]
            bliss = f_a + f_b - f_a * f_b
            got = ratio(lfc.loc[(pair["combination"], "B", dose)], pd.Series(full))
            assert got == pytest.approx(bliss * (1 + pair["sign"] * INTERACTION * np.sqrt(level[0] * level[1])))


def test_patients_respond_if_they_express_the_target():
    adata = simulate_drug_screen(**(SMALL | {"n_combinations": 0}), n_patients=8, off_target=0.0)
    patients, responders, s = (truth(adata)[k] for k in ("patients", "responders", "sensitivity"))
    assert adata.obs.groupby("patient", observed=True)["context"].nunique().max() == 1
    assert adata.obs.drop_duplicates("patient")["context"].value_counts().to_dict() == {"A": 4, "B": 4}
    assert (patients[["T01", "T02", "T03"]].sum() == 4).all()
    size = true_drug_effects(adata).abs().max(axis=1).groupby(["patient", "drug"]).max()
    for _, row in responders.iterrows():
        assert (
            (size[(row["patient"], row["drug"])] > 0) == row["responder"] == patients.at[row["patient"], row["target"]]
        )
    control = truth(adata)["control"]
    for target in s.columns:
        assert control.loc[patients[target], target].min() > control.loc[~patients[target], target].max() + 1
        assert (s.loc[~patients[target], target] == 0).all()
    assert set(true_drug_effects(adata).index.get_level_values("patient")) == set(patients.index)


# ---------------------------------------------------------------- counts and layout


def test_counts_without_noise_show_the_true_effects():
    adata = simulate_drug_screen(**SMALL, **NOISE_FREE, n_combinations=1)
    x = pd.DataFrame(lognormalise(adata.X, 1e4).toarray().astype(float), columns=adata.var_names)
    mean = x.groupby([adata.obs[k].to_numpy() for k in ("drug", "context", "dose")], observed=True).mean()
    effects = true_drug_effects(adata)
    control = pd.DataFrame([mean.loc[("DMSO", c, 0.0)] for c in effects.index.get_level_values("context")])
    np.testing.assert_allclose(mean.loc[effects.index].to_numpy() - control.to_numpy(), effects, atol=8e-3)
    assert effects.abs().to_numpy().max() > 0.5


def test_library_size_and_dispersion():
    given = SMALL | {
        "n_drugs": 2,
        "n_targets": 1,
        "n_combinations": 0,
        "contexts": ("A",),
        "n_cells": 1,
        "n_control": 4000,
    }
    totals = simulate_drug_screen(**given, depth=2000.0, depth_sd=0.5, dispersion=0.0, state_effect=0.0).obs["n_counts"]
    assert totals.mean() == pytest.approx(2000.0, rel=0.05) and np.log(totals).std() == pytest.approx(0.5, rel=0.06)
    adata = simulate_drug_screen(**given, depth=4000.0, depth_sd=0.0, dispersion=0.25, state_effect=0.0)
    counts = adata[(adata.obs["drug"] == "DMSO").to_numpy()].X.toarray()
    mean, variance = counts.mean(0), counts.var(0)
    assert np.median((variance - mean) / mean**2) == pytest.approx(0.25, rel=0.1)


def test_layout_of_a_screen():
    adata = simulate_drug_screen(**SMALL, times=(6, 24), n_patients=4)
    assert list(adata.obs.columns) == ["drug", "dose", "context", "smiles", "time", "patient", "n_counts"]
    assert adata.n_obs == 4 * (16 * 4 * 2 * 4 + 10)
    assert sp.issparse(adata.X) and adata.X.dtype == np.float32 and (adata.X.data == np.rint(adata.X.data)).all()
    np.testing.assert_array_equal(adata.obs["n_counts"], adata.X.toarray().sum(1))
    assert ((adata.obs["dose"] == 0) == (adata.obs["drug"] == "DMSO")).all()
    assert adata.obs[adata.obs["drug"] == "DMSO"].groupby(["patient", "time"], observed=True).size().eq(5).all()
    assert adata.var_names[:3].tolist() == ["T01", "T02", "T03"] and adata.var["target"].sum() == 3
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    plain = simulate_drug_screen(**SMALL)
    assert not {"time", "patient"} & set(plain.obs) and not {"fading", "patients", "responders"} & set(truth(plain))


def test_seeds_and_numbers_of_cells():
    first, second, other = (simulate_drug_screen(**SMALL, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
    pd.testing.assert_frame_equal(first.obs, second.obs)
    assert not np.array_equal(first.X.toarray(), other.X.toarray())
    dense = simulate_drug_screen(**SMALL, seed=3, sparse=False)
    np.testing.assert_array_equal(first.X.toarray(), dense.X)
    more = simulate_drug_screen(**(SMALL | {"n_cells": 7, "n_control": 3}), seed=3, depth=500.0)
    pd.testing.assert_frame_equal(true_drug_effects(first), true_drug_effects(more))


def test_round_trip_through_a_file(tmp_path):
    adata = simulate_drug_screen(**SMALL, times=(6, 24), n_patients=2, fading_fraction=0.0, n_combinations=0)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    pd.testing.assert_frame_equal(true_drug_effects(back), true_drug_effects(adata))
    for table in ("drugs", "targets", "features", "combinations", "responders", "patients", "sensitivity", "fading"):
        pd.testing.assert_frame_equal(truth(back)[table], truth(adata)[table], check_dtype=False, check_names=False)
    part = back[:20, ["G003", "T01"]].copy()
    pd.testing.assert_frame_equal(true_drug_effects(part), true_drug_effects(adata)[["G003", "T01"]])


def test_twenty_thousand_cells_take_seconds():
    start = time.process_time()
    adata = simulate_drug_screen(times=(6, 24), n_cells=29, n_control=100)
    assert adata.n_obs > 20_000
    assert time.process_time() - start < (30 if sys.gettrace() else 15), "3 s on a quiet machine"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_drugs": 0}, "n_drugs=0: expected a whole number of at least 1"),
        ({"n_targets": 12}, "n_targets=12: expected at most 11"),
        ({"n_genes": 3}, "fewer than n_genes=3"),
        ({"n_drugs": 2000, "n_cells": 1}, "molecules for 1584 drugs with and 144 without effect"),
        ({"n_combinations": 99}, "only 36 pairs can be made of the 9 drugs with an effect"),
        ({"contexts": "A"}, "contexts='A': expected a sequence of distinct names"),
        ({"contexts": ("A", "A")}, "expected a sequence of distinct names"),
        ({"doses": (0.0,)}, "doses: expected distinct non-negative numbers, one of them above 0, found '0.0'"),
        ({"doses": (1.0, 1.0)}, "doses: expected distinct"),
        ({"doses": (-1.0, 1.0)}, "doses=-1.0: expected a finite number of at least 0"),
        ({"times": (0.0, 6.0)}, "times: expected distinct positive numbers"),
        ({"times": ()}, "times: expected distinct positive numbers, found none"),
        ({"null_fraction": 1.5}, "null_fraction=1.5: expected a finite number between 0 and 1"),
        ({"cliffs": "some"}, "cliffs='some': expected a finite number"),
        ({"depth": 0}, "depth=0: expected a finite number of at least 1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        simulate_drug_screen(**(SMALL | given))


def test_true_effects_of_other_cells_are_refused():
    with pytest.raises(ValueError, match="only cells made by scjepa.datasets.simulate_drug_screen"):
        true_drug_effects(ad.AnnData(np.ones((2, 2))))
    with pytest.raises(ValueError, match="only cells made by scjepa.datasets.simulate_perturbseq"):
        true_effects(simulate_drug_screen(**SMALL))
