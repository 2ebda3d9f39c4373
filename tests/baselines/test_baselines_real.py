"""The kernel anchor on real screens, against the additive model, ridge and context transfer."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from scjepa.baselines import Additive, ContextTransfer, KernelEffect, NoChange, Ridge
from scjepa.data import ConditionTable, condition_table


def score(baseline, table, query):
    """Return mean L2 and mean Pearson correlation of predicted and true effects."""
    predicted, true = baseline.fit(table).effects(query), query.effects
    r = [np.corrcoef(p, t)[0, 1] if p.std() > 0 else np.nan for p, t in zip(predicted, true, strict=True)]
    return np.array([np.linalg.norm(predicted - true, axis=1).mean(), np.mean(r)])


def read(folder, name):
    """Read a data set or skip the test."""
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not among the real data")
    return ad.read_h5ad(folder / name)


def norman(folder):
    """Return the table of conditions and the rows of doubles whose genes are both measured alone."""
    cells = read(folder, "perturbench_norman19_mcfaline23.h5ad")
    table = condition_table(cells[cells.obs["dataset"] == "norman19"].copy(), "condition")
    singles = {action[0] for action in table.actions if len(action) == 1}
    held_out = [i for i, action in enumerate(table.actions) if len(action) == 2 and singles.issuperset(action)]
    assert len(held_out) == 5
    return table, held_out


def test_norman_doubles_with_measured_singles(shared_data):
    table, held_out = norman(shared_data)
    numbers = np.arange(len(table))
    scores = {
        cls.name: np.mean([score(cls(), table.rows(numbers != i), table.rows([i])) for i in held_out], axis=0)
        for cls in (Additive, Ridge, KernelEffect)
    }
    np.testing.assert_allclose(scores["additive"], [0.446, 0.870], atol=2e-3)
    np.testing.assert_allclose(scores["ridge"], [0.381, 0.911], atol=2e-3)
    assert scores["kernel anchor"][0] < 0.31
    assert scores["kernel anchor"][1] > 0.945


def test_norman_doubles_held_out_together_are_predicted_better_than_by_adding(shared_data):
    table, held_out = norman(shared_data)
    train, query = table.rows(~np.isin(np.arange(len(table)), held_out)), table.rows(held_out)
    model = KernelEffect()
    additive, kernel = score(Additive(), train, query), score(model, train, query)
    assert np.isnan(model.picks_["combination"]["error"])  # no combination of measured singles is left to choose by
    np.testing.assert_allclose(additive, [0.446, 0.870], atol=2e-3)
    assert kernel[0] < 0.95 * additive[0]
    assert kernel[1] > 0.02 + additive[1]


def test_carpool_half_of_the_doubles(shared_data):
    profiles = read(shared_data, "wessel23_carpool_thp1_pseudobulk.h5ad")
    x, labels = np.asarray(profiles.X, dtype=float), profiles.obs["perturbation"].astype(str).to_numpy()
    assert labels[0] == "control"
    actions = tuple(tuple(sorted(label.split("+"))) for label in labels[1:])
    n = len(actions)
    table = ConditionTable(actions, np.array(["all"] * n, object), np.repeat(x[:1], n, axis=0), x[1:])
    doubles = np.flatnonzero(table.order == 2)
    test = np.isin(np.arange(n), np.random.default_rng(0).permutation(doubles)[:79])
    train, query = table.rows(~test), table.rows(test)
    additive, ridge, kernel = (score(cls(), train, query)[0] for cls in (Additive, Ridge, KernelEffect))
    assert kernel < 0.96 * ridge < 0.6 * additive


def test_line_left_out_is_no_worse_than_transfer_or_no_change(shared_data):
    cells = read(shared_data, "perturbench_norman19_mcfaline23.h5ad")
    table = condition_table(cells[cells.obs["dataset"] == "mcfaline23"].copy(), "condition", context_key="cell_type")
    scores = []
    for line in np.unique(table.contexts.astype(str)):
        train, query = table.rows(table.contexts != line), table.rows(table.contexts == line)
        scores.append([score(cls(), train, query)[0] for cls in (NoChange, ContextTransfer, KernelEffect)])
    nothing, transfer, kernel = np.mean(scores, axis=0)
    assert kernel <= min(nothing, transfer)


def test_kang_type_left_out_beats_context_transfer(shared_data):
    sc = pytest.importorskip("scanpy")
    cells = read(shared_data, "kang18_combined.h5ad")
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=2000)
    cells = cells[:, cells.var["highly_variable"]].copy()
    table = condition_table(cells, "condition", context_key="cell_type")
    scores = []
    for place in np.unique(table.contexts.astype(str)):
        train, query = table.rows(table.contexts != place), table.rows(table.contexts == place)
        scores.append([score(cls(), train, query) for cls in (ContextTransfer, KernelEffect)])
    transfer, kernel = np.mean(scores, axis=0)
    np.testing.assert_allclose(transfer, [7.145, 0.842], atol=5e-3)
    assert kernel[0] < 0.7 * transfer[0]
    assert kernel[1] > 0.92
