"""Links between features: signed, within a window, found where they are and not where they are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import average_precision_score

from scjepa.omics import feature_links

NAMES = [f"p{i}" for i in range(120)]
GENES = [f"g{j}" for j in range(30)]


def linked(n=400, seed=0):
    """Each of 30 genes follows one peak (half of them against it) among 120, 60 of which do nothing."""
    rng = np.random.default_rng(seed)
    peaks = (rng.random((n, 120)) < rng.uniform(0.1, 0.5, 120)).astype(float)
    sign = np.where(np.arange(30) % 2, -1.0, 1.0)
    genes = 1.5 * sign * peaks[:, :30] + rng.normal(size=(n, 30))
    return peaks, genes, sign


def test_links_are_found_signed_and_the_rate_is_kept():
    peaks, genes, sign = linked()
    links = feature_links(sp.csr_matrix(peaks), genes, source_names=NAMES, target_names=GENES)
    true = (links["source"].str[1:] == links["target"].str[1:]).to_numpy()
    assert (
        len(links) == 120 * 30
        and average_precision_score(true, 1 - links["p_value"] + links["correlation"].abs()) > 0.9
    )
    called = links[links["fdr"] <= 0.05]
    assert (called["source"].str[1:] != called["target"].str[1:]).mean() < 0.1
    found = links[true].set_index("target").loc[GENES]
    np.testing.assert_array_equal(np.sign(found["correlation"]), sign)
    k = 5
    assert found["correlation"].iloc[k] == pytest.approx(np.corrcoef(peaks[:, k], genes[:, k])[0, 1])


def test_nothing_is_linked_where_nothing_is():
    peaks, genes, _ = linked()
    genes = np.random.default_rng(1).permutation(genes)
    links = feature_links(peaks, genes, source_names=NAMES, target_names=GENES)
    assert (links["fdr"] <= 0.05).sum() <= 3 and (links["p_value"] <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_only_pairs_within_the_window_are_asked_for():
    peaks, genes, _ = linked(100)
    where = pd.DataFrame({"chromosome": ["1"] * 60 + ["2"] * 60, "start": np.arange(120) * 1000})
    where["end"] = where["start"] + 200
    genome = pd.DataFrame({"chromosome": ["1"] * 30, "start": np.arange(30) * 1000 + 100})
    genome["end"] = genome["start"] + 5000
    links = feature_links(
        peaks,
        genes,
        source_names=NAMES,
        target_names=GENES,
        source_positions=where,
        target_positions=genome,
        window=2000,
    )
    gap = links["source"].str[1:].astype(int) - links["target"].str[1:].astype(int)
    assert set(gap) == {-2, -1, 0, 1, 2} and (links["distance"] == 1000 * gap).all()
    assert links.groupby("target").size().max() == 5
    best = feature_links(peaks, genes, source_names=NAMES, target_names=GENES, top=2)
    assert (best.groupby("target").size() == 2).all()
    with pytest.raises(ValueError, match="no pair lies within window=10"):
        feature_links(
            peaks[:, 60:], genes, source_names=NAMES[60:], target_names=GENES, source_positions=where[60:],
            target_positions=genome, window=10,
        )  # fmt: skip


def test_differences_between_groups_do_not_count():
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b"], 100)
    shift = 3.0 * (group == "b")[:, None]
    x, y = shift + rng.normal(size=(200, 2)), shift + rng.normal(size=(200, 1))
    ask = lambda **options: feature_links(x, y, source_names=["u", "v"], target_names=["w"], **options)
    assert (ask()["fdr"] < 0.05).all() and (ask(groups=group)["fdr"] > 0.05).all()


def test_same_seed_same_links():
    peaks, genes, _ = linked(80)
    ask = lambda seed: feature_links(peaks, genes, source_names=NAMES, target_names=GENES, seed=seed)
    pd.testing.assert_frame_equal(ask(1), ask(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros((3, 30))}, "of the same cells"),
        ({"source_names": NAMES[1:]}, "source_names has 119 names"),
        ({"groups": ["a"]}, "groups has 1 entries"),
        ({"source_positions": pd.DataFrame({"chromosome": ["1"] * 120})}, "positions of one modality only"),
        (
            {"source_positions": pd.DataFrame(index=range(120)), "target_positions": pd.DataFrame(index=range(30))},
            "lacks \\['chromosome', 'start', 'end'\\]",
        ),
        ({"n_permutations": 0}, "n_permutations"),
    ],
)
def test_errors(change, message):
    peaks, genes, _ = linked(40)
    given = {"source": peaks, "target": genes, "source_names": NAMES, "target_names": GENES} | change
    with pytest.raises(ValueError, match=message):
        feature_links(given.pop("source"), given.pop("target"), **given)
