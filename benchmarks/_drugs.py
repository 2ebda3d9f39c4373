"""What the drug benchmarks share: structures by RDKit, tables of drug responses, control rows, scores by condition."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _common import save

from scjepa import DrugJEPA
from scjepa.data import ConditionTable, signatures_to_conditions
from scjepa.pharma import tanimoto

RIDGES = (0.3, 1, 3, 10, 30, 100)


# ------------------------------------------------------------------------------------------------- structures
@dataclass(frozen=True)
class Molecules:
    """Drugs with a structure: similarities by name, Morgan bits, scaffolds."""

    names: list[str]
    similarity: dict[str, pd.DataFrame]
    bits: np.ndarray
    scaffolds: dict[str, str]
    smiles: dict[str, str] = field(default_factory=dict)

    def shuffled(self, seed: int) -> dict[str, pd.DataFrame]:
        """Return the similarities with drugs exchanged."""
        order = np.random.default_rng(seed).permutation(len(self.names))
        change = lambda t: pd.DataFrame(t.to_numpy()[np.ix_(order, order)], index=t.index, columns=t.columns)
        return {name: change(table) for name, table in self.similarity.items()}


def molecules(smiles: dict[str, str]) -> Molecules:
    """Read structures: salts off, charges neutral, stereo kept; what RDKit can't read is left out."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import MACCSkeys
    from rdkit.Chem import rdFingerprintGenerator as fp
    from rdkit.Chem.MolStandardize import rdMolStandardize as standardize
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    RDLogger.DisableLog("rdApp.*")
    largest, neutral = standardize.LargestFragmentChooser(), standardize.Uncharger()
    read = {name: Chem.MolFromSmiles(s) for name, s in sorted(smiles.items()) if isinstance(s, str)}
    mols = {name: neutral.uncharge(largest.choose(m)) for name, m in read.items() if m is not None}
    names, ms = list(mols), list(mols.values())
    invariant = fp.GetMorganFeatureAtomInvGen()
    counted = [
        fp.GetMorganGenerator(2, fpSize=2048),
        fp.GetMorganGenerator(2, fpSize=2048, atomInvariantsGenerator=invariant),
        fp.GetAtomPairGenerator(fpSize=4096),
        fp.GetTopologicalTorsionGenerator(fpSize=4096),
    ]
    prints = [np.array([g.GetCountFingerprintAsNumPy(m) for m in ms], float) for g in counted]
    path = fp.GetRDKitFPGenerator(fpSize=4096, maxPath=6)
    prints.append(np.array([path.GetFingerprintAsNumPy(m) for m in ms], float))
    prints.append(np.array([list(MACCSkeys.GenMACCSKeys(m)) for m in ms], float))
    each = [tanimoto(f) for f in prints]
    table = lambda k: pd.DataFrame(k, index=names, columns=names)
    scaffold = {n: MurckoScaffoldSmiles(mol=m, includeChirality=False) or f"none {n}" for n, m in mols.items()}
    similarity = {"morgan": table(each[0]), "six fingerprints": table(np.mean(each, 0))}
    return Molecules(names, similarity, (prints[0] > 0).astype(float), scaffold, {n: smiles[n] for n in names})


# ------------------------------------------------------------------------------------------------- tables, splits
def question(table: ConditionTable, index: np.ndarray) -> ConditionTable:
    """Return rows without what was measured."""
    rows = table.rows(index)
    return ConditionTable(rows.actions, rows.contexts, rows.control, dose=rows.dose, time=rows.time)


def drugs_of(table: ConditionTable) -> np.ndarray:
    """Return the name of each row's drug."""
    return np.array(["+".join(action) for action in table.actions], dtype=object)


def group_folds(groups: Iterable[object], k: int, seed: int) -> np.ndarray:
    """Deal rows to folds, groups as a whole, folds of about the same size."""
    g = np.array([str(x) for x in groups])
    load, of = np.zeros(k), {}
    for x in np.unique(g)[np.random.default_rng(seed).permutation(len(np.unique(g)))]:
        j = int(np.argmin(load))
        of[x] = j
        load[j] += (g == x).sum()
    return np.array([of[x] for x in g])


# ------------------------------------------------------------------------------------------------- scores
def row_pearson(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the correlation of each predicted and measured row."""
    p, t = p - p.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
    return (p * t).sum(1) / (np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1) + 1e-12)


def row_rmse(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the root mean squared error of each row."""
    return np.sqrt(((p - t) ** 2).mean(1))


@dataclass
class Scores:
    """Scores of one question by method, printed as one table and kept as rows of a CSV."""

    title: str
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, method: str, predicted: np.ndarray, true: np.ndarray, fold: object) -> None:
        """Score predictions of one fold."""
        r, e = row_pearson(predicted, true), row_rmse(predicted, true)
        self.rows += [
            {"question": self.title, "method": method, "fold": fold, "r": a, "rmse": b}
            for a, b in zip(r, e, strict=True)
        ]

    def show(self, against: Iterable[str] = (), mine: str = "drug anchor") -> None:
        """Print means over rows, and how far the anchor is from the best other row, at worst in a fold."""
        table = pd.DataFrame(self.rows)
        means = table.groupby("method", sort=False)[["r", "rmse"]].mean()
        n = int((table["method"] == mine).sum())
        print(f"== {self.title} ({n} rows)")
        print(means.rename(columns={"r": "row Pearson", "rmse": "RMSE"}).round(4).to_string())
        plain = [m for m in means.index if not m.startswith(mine)]
        best = means.loc[plain, "rmse"].idxmin()
        said = [f"RMSE {means.loc[mine, 'rmse'] / means.loc[best, 'rmse']:.4f} of the best other row's ({best})"]
        folds = table.groupby(["method", "fold"])["rmse"].mean()
        for other in against:
            ratio = folds[mine] / folds[other]
            said.append(f"worst of {len(ratio)} folds {ratio.max():.4f} of that of {other!r}")
        print("   " + "; ".join(said) + "\n", flush=True)


def keep(scores: Iterable[Scores], folder: Path, name: str) -> None:
    """Write means by question, fold and method."""
    table = pd.DataFrame([row for part in scores for row in part.rows])
    save(table.groupby(["question", "fold", "method"], sort=False)[["r", "rmse"]].mean().reset_index(), folder, name)


# ------------------------------------------------------------------------------------------------- DrugJEPA itself
def by_model(train: ConditionTable, asked: ConditionTable, smiles: Mapping[str, str] | None = None) -> np.ndarray:
    """Return what DrugJEPA says of questions, trained as signatures train (no network, no embedding).

    Parameters
    ----------
    train
        Measured conditions.
    asked
        Questions of one drug each.
    smiles
        Structures by name; those of drugs that were not given are handed in with the question.
    """
    keys = {axis: getattr(train, axis) for axis in ("dose", "time") if getattr(train, axis) is not None}
    obs = pd.DataFrame({"drug": drugs_of(train), "context": train.contexts.astype(str), **keys})
    new = sorted(set(asked.contexts.astype(str)) - set(obs["context"]))
    names = {f"{axis}_key": axis for axis in keys}
    cells = ad.AnnData(np.asarray(train.effects), obs=obs.set_axis(obs.index.astype(str)))
    ready = signatures_to_conditions(cells, "drug", context_key="context", new_contexts=new, **names)
    if smiles:
        names["smiles_key"] = "smiles"
        ready.obs["smiles"] = [smiles.get(d, "") for d in ready.obs["drug"].astype(str)]
    DrugJEPA.setup_anndata(ready, "drug", context_key="context", input_scale="signature", **names)
    model = DrugJEPA(ready)
    model.train(embed=False, enable_progress_bar=False)
    known, out = set(obs["drug"]), np.empty((len(asked), ready.n_vars))
    frame = pd.DataFrame({"drug": drugs_of(asked), "context": asked.contexts.astype(str)})
    frame = frame.assign(**{axis: getattr(asked, axis) for axis in keys})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it abstains from is scored too
        for place, rows in frame.groupby(["context", *keys], sort=False):
            drugs = sorted(set(rows["drug"]))
            fresh = {d: smiles[d] for d in drugs if smiles and d not in known}
            at = dict(zip(["context", *keys], place, strict=True))
            said = model.predict_drug_response(drugs, smiles=fresh or None, **at)
            order = said.obs["drug"].astype(str).to_numpy()
            x = said.X.toarray() if sp.issparse(said.X) else np.asarray(said.X)
            for d in drugs:
                out[rows.index[rows["drug"] == d]] = x[order == d].mean(0)
    return out


# ------------------------------------------------------------------------------------------------- control rows
def by_cell(
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray], train: np.ndarray, test: np.ndarray, width: int
) -> np.ndarray:
    """Apply a rule of training and test rows within every context."""
    out = np.empty((len(test), width))
    for cell in np.unique(test):
        out[test == cell] = rule(np.flatnonzero(train == cell), np.flatnonzero(test == cell))
    return out


def ridge(among: np.ndarray, across: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kernel ridge with an intercept; its strength by leave-one-out."""
    mean, n = y.mean(0), len(among)
    centered = among - among.mean(0) - among.mean(0)[:, None] + among.mean()
    asked = across - across.mean(1, keepdims=True) - among.mean(0) + among.mean()
    size, best = np.trace(centered) / n, (np.inf, y)
    for strength in RIDGES:
        inverse = np.linalg.inv(centered + strength * size * np.eye(n))
        weight = inverse @ (y - mean)
        error = ((weight / inverse.diagonal()[:, None]) ** 2).mean()
        best = (error, weight) if error < best[0] else best
    return mean + asked @ best[1]


def nearest_drugs(similarity: np.ndarray, y: np.ndarray, k: int = 5) -> np.ndarray:
    """Average the ``k`` most similar drugs, weighted by similarity."""
    w = similarity * (similarity >= np.sort(similarity, 1)[:, [-min(k, similarity.shape[1])]]) + 1e-9
    return (w / w.sum(1, keepdims=True)) @ y
