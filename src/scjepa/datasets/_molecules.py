"""The chemistry of the simulated drug screen: families that share a ring system, told apart by two substituents."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._types import IntArray

FAMILIES = {
    "anilinoquinazoline": "c1cc({a})cc(Nc2ncnc3cc({b})ccc23)c1",
    "benzodiazepinone": "O=C1CN=C(c2ccc({b})cc2)c2cc({a})ccc2N1",
    "fluoroquinolone": "O=C(O)c1cn(C2CC2)c2cc({b})c({a})cc2c1=O",
    "benzylpurine": "c1cc({a})ccc1Nc1ncnc2c1ncn2Cc1ccc({b})cc1",
    "pyrrolyl oxindole": "O=C1Nc2ccc({a})cc2C1=Cc1[nH]cc({b})c1",
    "phenothiazine": "c1cc({a})c2c(c1)Sc1ccc({b})cc1N2",
    "coumarin": "O=c1cc({a})c2ccc({b})cc2o1",
    "pyrazolopyrimidine": "Nc1ncnc2c1c(-c1ccc({a})cc1)nn2-c1ccc({b})cc1",
    "phenylbenzimidazole": "c1c({b})ccc2[nH]c(-c3ccc({a})cc3)nc12",
    "diarylpyrazole": "NS(=O)(=O)c1ccc(-n2nc({b})cc2-c2ccc({a})cc2)cc1",
    "imidazopyridine": "c1cc({b})ccc1-c1cn2cc({a})ccc2n1",
    "anilinothiazole": "c1(-c2ccc({b})cc2)csc(Nc2ccc({a})cc2)n1",
}
"""Ring systems of known drugs with two places for substituents; the last family is that of drugs without effect."""

SUBSTITUENTS = ("F", "Cl", "Br", "C", "CC", "C(C)C", "O", "OC", "OCC", "C#N", "N(C)C", "C(F)(F)F")
"""No rings among them: they leave the Bemis-Murcko scaffold of a family as it is."""

N_CORE = 64
"""Bits that a family's pattern is spread over in the feature table; about a quarter of them are on."""

MOST_ACTIVE = (len(FAMILIES) - 1) * len(SUBSTITUENTS) ** 2
MOST_NULL = len(SUBSTITUENTS) ** 2


def draw_molecules(n_active: int, n_null: int, n_families: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw distinct molecules: active ones dealt evenly over the first families, those without effect of the last.

    Returns
    -------
    Table of ``family``, ``substituent_a``, ``substituent_b`` (numbers) and ``smiles``; active molecules first.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.datasets._molecules import draw_molecules
    >>> drawn = draw_molecules(4, 1, 2, np.random.default_rng(0))
    >>> drawn["family"].tolist(), drawn["smiles"].nunique()
    ([0, 1, 0, 1, 11], 5)
    """
    family = np.concatenate([np.arange(n_active) % n_families, np.full(n_null, len(FAMILIES) - 1)]).astype(int)
    pair = np.zeros(len(family), dtype=int)
    for f in range(len(FAMILIES)):
        here = family == f
        pair[here] = rng.permutation(len(SUBSTITUENTS) ** 2)[: here.sum()]
    a, b = np.divmod(pair, len(SUBSTITUENTS))
    templates = list(FAMILIES.values())
    smiles = [templates[f].format(a=SUBSTITUENTS[i], b=SUBSTITUENTS[j]) for f, i, j in zip(family, a, b, strict=True)]
    return pd.DataFrame({"family": family, "substituent_a": a, "substituent_b": b, "smiles": smiles})


def feature_table(family: IntArray, a: IntArray, b: IntArray, rng: np.random.Generator) -> pd.DataFrame:
    """Write molecules as binary features: the pattern of the family, and one bit for each substituent at each place."""
    patterns = (rng.random((len(FAMILIES), N_CORE)) < 0.25).astype(np.int8)
    eye = np.eye(len(SUBSTITUENTS), dtype=np.int8)
    columns = [f"core_{i + 1:02d}" for i in range(N_CORE)]
    columns += [f"{place}_{name}" for place in ("a", "b") for name in SUBSTITUENTS]
    return pd.DataFrame(np.hstack([patterns[family], eye[a], eye[b]]), columns=columns)
