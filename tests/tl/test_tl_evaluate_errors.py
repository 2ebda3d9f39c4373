"""tl.evaluate: what bad input gets, one test per message."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from scjepa.tl import evaluate

# copies of measured cells are the simplest predictions with known scores; the warning has tests of its own
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the answer was copied"),
    pytest.mark.filterwarnings("ignore:.*cell by cell"),
]
KEY = "perturbation"


def fails(prediction, screen, match, error=ValueError, **kwargs):
    with pytest.raises(error, match=match):
        evaluate(prediction, screen, **{"perturbation_key": KEY, **kwargs})


def test_not_anndata(screen):
    fails(screen.to_df(), screen, "pred is a DataFrame: expected an AnnData", TypeError)


def test_empty(screen, prediction):
    fails(prediction[:0].copy(), screen, "pred is empty")


def test_backed(screen, prediction, tmp_path):
    screen.write_h5ad(tmp_path / "real.h5ad")
    backed = ad.read_h5ad(tmp_path / "real.h5ad", backed="r")
    fails(prediction, backed, r"real is backed by a file.*to_memory\(\)")
    backed.file.close()


def test_repeated_genes(screen, prediction):
    screen.var_names = ["g1", "g1", "g3", "g4", "g5", "g6"]
    fails(prediction, screen, "real.var_names has 1 repeated names: 'g1'")


def test_missing_key(screen, prediction):
    fails(prediction, screen, "perturbation_key is missing.*'cell_type'", perturbation_key=None)


def test_unknown_column(screen, prediction):
    fails(prediction, screen, "pred: perturbation_key='pertubation'.*Did you mean 'perturbation'", KeyError,
          perturbation_key="pertubation")  # fmt: skip


def test_missing_labels(screen, prediction):
    screen.obs[KEY] = screen.obs[KEY].astype(object)
    screen.obs.iloc[3, 0] = np.nan
    fails(prediction, screen, "real: perturbation_key='perturbation': 1 of 180 cells have a missing value")


def test_unknown_control(screen, prediction):
    screen.obs[KEY] = screen.obs[KEY].astype(str).replace({"control": "vehicle"})
    fails(prediction, screen, "real: control='vehicel'.*Did you mean 'vehicle'", control="vehicel")


def test_context_without_controls(prediction, make_screen):
    real = make_screen(("x", "y"))
    real = real[~((real.obs.cell_type == "y") & (real.obs[KEY] == "control"))].copy()
    fails(prediction, real, "real: 1 contexts have perturbed cells but no control cells.*'y'", context_key="cell_type")


def test_predicted_counts(screen, prediction):
    prediction.X = np.rint(prediction.X)
    fails(prediction, screen, "pred.X holds whole numbers only.*look like counts.*log1p")


def test_prediction_not_logged(screen, prediction):
    prediction.X = np.expm1(prediction.X)
    fails(prediction, screen, "normalized but not logged")


def test_nan_prediction(screen, prediction):
    prediction.X[0, 0] = np.nan
    fails(prediction, screen, "pred.X has 1 NaN or infinite values")


def test_missing_genes(screen, prediction):
    prediction.var_names = ["g1", "g2", "g33", "g4", "g5", "other"]
    fails(prediction, screen, r"2 of the 6 genes of pred are not in real.var_names: 'g33', 'other'. Did you mean 'g3'")


def test_missing_conditions(screen, prediction):
    prediction.obs[KEY] = prediction.obs[KEY].astype(str).replace({"A+B": "A+Bb"})
    fails(prediction, screen, r"1 of 2 predicted conditions have no cells in real.*'A\+Bb'.*Did you mean 'A\+B'")


def test_only_controls(screen):
    fails(screen[screen.obs[KEY] == "control"].copy(), screen, "pred has no predicted cells")


def test_unknown_metric(screen, prediction):
    fails(prediction, screen, "metrics='pearson' is not among the metrics.*Did you mean", metrics=["pearson"])


def test_unknown_layer(screen, prediction):
    fails(prediction, screen, "layer='count' is not among real.layers", layer="count")


@pytest.mark.parametrize(("argument", "bad"), [("n_pcs", 0), ("max_cells", 1)])
def test_numbers(screen, prediction, argument, bad):
    fails(prediction, screen, f"{argument}={bad}: expected a whole number", **{argument: bad})


def test_method_named_like_a_baseline(screen, prediction):
    fails(prediction, screen, "method='additive' is the name of a baseline or ceiling", method="additive")


def test_wrong_baselines(screen, prediction):
    fails(prediction, screen, "baselines='all'", baselines="all")
    fails(prediction, screen, "baselines holds a int", TypeError, baselines=[3])
