"""Claim: the drug anchor predicts drugs in contexts where others were measured, and never loses to the mean for new molecules.

OP3 (neurips23_op3_ranksig.h5ad: 135 drugs x 4 cell types, signed rank signatures against vehicle, so controls are zero).
Row Pearson and RMSE, means over conditions; baselines by closed form beside it, and the anchor with shuffled fingerprints (in
questions about drugs that were seen for the first seed, beside the anchor's own row of it). With ``--model`` DrugJEPA itself,
trained by ``train(embed=False)`` on the same signatures, for the first seed: it reads Morgan counts only.

``drug``, ``scaffold``
    Molecules never seen, five folds by drug or by Bemis-Murcko scaffold, in all contexts at once.
``80 %``, ``20 %``
    One cell type of which so many of the drugs are measured; the rest is predicted.
``context``
    A cell type never seen, and how high a drug's true signature ranks among the predictions of all drugs.
``both``
    A fifth of the drugs in a cell type, neither of which was seen.
``stress``
    Thinned to 20 drugs, to two contexts, noise added, shuffled contexts, effects exchanged between drugs (null): the ratio
    to the best plain row.

Example::

    python benchmarks/drug_unseen.py --seeds 3
    python benchmarks/drug_unseen.py --seeds 1 --model --questions drug "80 %" context both
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from _common import parser, read, start
from _drugs import (
    Molecules,
    Scores,
    by_cell,
    by_model,
    drugs_of,
    group_folds,
    keep,
    molecules,
    nearest_drugs,
    question,
    ridge,
)

from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable

Split = tuple[np.ndarray, np.ndarray]
MODEL, BESIDE = "drug anchor as DrugJEPA (seed 0)", "drug anchor (seed 0)"


def op3(folder: Path) -> tuple[ConditionTable, Molecules]:
    """Read the signatures as a table with controls of zero, and the structures."""
    cells = read(folder, "neurips23_op3_ranksig.h5ad")
    x = np.asarray(cells.X, dtype=float)
    drug = cells.obs["drug"].astype(str).to_numpy()
    smiles = dict(zip(drug, cells.obs["smiles"].astype(str), strict=True))
    where = cells.obs["cell_type"].astype(str).to_numpy()
    return ConditionTable(tuple((d,) for d in drug), where, np.zeros_like(x), x), molecules(smiles)


def structure_rows(
    table: ConditionTable,
    found: Molecules,
    train: np.ndarray,
    test: np.ndarray,
    out: Scores,
    fold: object,
    *,
    mean: bool = True,
) -> None:
    """Add the baselines of unseen molecules: mean, nearest drugs, ridge on bits, kernel ridge on similarity, by context."""
    y, drug, where = table.effects, drugs_of(table), table.contexts.astype(str)
    at = {name: i for i, name in enumerate(found.names)}
    i, j = (np.array([at[d] for d in drug[rows]]) for rows in (train, test))
    similarity, bits = found.similarity["morgan"].to_numpy(), found.bits @ found.bits.T
    apply = lambda rule: by_cell(rule, where[train], where[test], y.shape[1])
    target = y[train]
    if mean:
        out.add("mean per context", apply(lambda a, b: np.tile(target[a].mean(0), (len(b), 1))), y[test], fold)
    out.add("Tanimoto 5NN", apply(lambda a, b: nearest_drugs(similarity[np.ix_(j[b], i[a])], target[a])), y[test], fold)
    for name, k in (("ridge on Morgan", bits), ("Tanimoto kernel ridge", similarity)):
        rule = lambda a, b, k=k: ridge(k[np.ix_(i[a], i[a])], k[np.ix_(j[b], i[a])], target[a])
        out.add(name, apply(rule), y[test], fold)


def unseen(
    table: ConditionTable, found: Molecules, groups: np.ndarray, title: str, seeds: int, model: bool = False
) -> Scores:
    """Leave molecules out in five folds."""
    out = Scores(title)
    for seed in range(seeds):
        fold = group_folds(groups, 5, seed)
        for k in range(5):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            true, asked, name = table.effects[test], question(table, test), f"{seed}/{k}"
            structure_rows(table, found, train, test, out, name)
            for method, similarity in (
                ("drug anchor", found.similarity),
                ("drug anchor, shuffled", found.shuffled(seed)),
            ):
                out.add(method, DrugEffect(similarity=similarity).fit(table.rows(train)).effects(asked), true, name)
            if model and seed == 0:
                both_rows(out, lambda t=train, q=asked: by_model(table.rows(t), q, found.smiles), true, name)
    return out


def both_rows(out: Scores, predicted: Callable[[], np.ndarray], true: np.ndarray, fold: str, mine: str = MODEL) -> None:
    """Add a row that not all seeds have, and the anchor's own of the same fold to compare it with."""
    own = [row for row in out.rows if row["method"] == "drug anchor" and row["fold"] == fold]
    out.add(mine, predicted(), true, fold)
    known = {(row["method"], row["fold"]) for row in out.rows}
    if (BESIDE, fold) not in known:
        out.rows += [row | {"method": BESIDE} for row in own]


def seen_drugs(
    table: ConditionTable,
    found: Molecules,
    title: str,
    split: Callable[[str, int], Split],
    seeds: int,
    *,
    more: bool = False,
    model: bool = False,
) -> Scores:
    """Leave out conditions of one context at a time."""
    out = Scores(title)
    y, drug, where = table.effects, drugs_of(table), table.contexts.astype(str)
    for seed in range(seeds):
        for context in np.unique(where):
            train, test = split(context, seed)
            own = [train[drug[train] == d] for d in drug[test]]
            true, name = y[test], f"{seed}/{context}"
            out.add("mean of all", np.tile(y[train].mean(0), (len(test), 1)), true, name)
            if (where[train] == context).any():
                here = np.tile(y[train][where[train] == context].mean(0), (len(test), 1))
                out.add("mean per context", here, true, name)
            if all(map(len, own)):
                out.add("mean per drug", np.array([y[rows].mean(0) for rows in own]), true, name)
            anchor = lambda similarity, t=train, q=test: (
                DrugEffect(similarity=similarity).fit(table.rows(t)).effects(question(table, q))
            )
            if more and (where[train] == context).any():
                structure_rows(table, found, train, test, out, name, mean=False)
            out.add("drug anchor", anchor(found.similarity), true, name)
            if more and seed == 0:
                shuffled = lambda s=seed, a=anchor: a(found.shuffled(s))
                both_rows(out, shuffled, true, name, "drug anchor, shuffled (seed 0)")
            if model and seed == 0:
                asked = question(table, test)
                both_rows(out, lambda t=train, q=asked: by_model(table.rows(t), q, found.smiles), true, name)
    return out


def splits(table: ConditionTable) -> dict[str, Callable[[str, int], Split]]:
    """Return training and test rows by question, context and seed."""
    drug, where = drugs_of(table), table.contexts.astype(str)

    def rows(out: np.ndarray, test: np.ndarray) -> Split:
        train = np.flatnonzero(~out)
        return train, np.flatnonzero(test & np.isin(drug, drug[train]))

    def part(context: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(np.flatnonzero(np.unique(where) == context)[0])
        return where == context, group_folds(drug, 5, 10 * seed + number)

    def hidden(context: str, seed: int, few: bool) -> Split:
        here, fold = part(context, seed)
        out = here & ((fold == 0) if few else (fold != 0))
        return rows(out, out)

    def both(context: str, seed: int) -> Split:
        here, fold = part(context, seed)
        return np.flatnonzero(~here & (fold != 0)), np.flatnonzero(here & (fold == 0))

    return {
        "80 %": lambda c, s: hidden(c, s, few=True),
        "20 %": lambda c, s: hidden(c, s, few=False),
        "context": lambda c, s: rows(where == c, where == c),
        "both": both,
    }


def retrieval(table: ConditionTable, found: Molecules) -> None:
    """Print how high the true signature of a drug ranks among the predictions from the other contexts."""
    y, where = table.effects, table.contexts.astype(str)
    rank: list[float] = []
    for context in np.unique(where):
        train, test = np.flatnonzero(where != context), np.flatnonzero(where == context)
        model = DrugEffect(similarity=found.similarity).fit(table.rows(train))
        mean = y[train].mean(0)
        p, t = model.effects(question(table, test)) - mean, y[test] - mean
        score = t @ p.T / (np.linalg.norm(p, axis=1) + 1e-12)
        rank += [float(100 * (score[i] > score[i, i]).mean()) for i in range(len(test))]
    top = 100 * np.mean(np.array(rank) < 5)
    print(
        f"== rank of the true drug, context wholly unseen: median percentile {np.median(rank):.1f}, top 5 %: {top:.0f} %\n"
    )


def stress(table: ConditionTable, found: Molecules, seeds: int) -> list[Scores]:
    """Ask all questions of tables made small, noisy and null."""
    out = []
    drug, where, size = drugs_of(table), table.contexts.astype(str), table.effects.std()
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        names = np.unique(drug)

        def changed(
            effects: np.ndarray | None = None, keep: np.ndarray | None = None, contexts: np.ndarray | None = None
        ):
            rows = np.ones(len(table), bool) if keep is None else keep
            x = table.effects if effects is None else effects
            labels = where if contexts is None else contexts
            return ConditionTable(table.actions, labels, np.zeros_like(x), x).rows(rows)

        few, two = rng.choice(names, 20, replace=False), rng.choice(np.unique(where), 2, replace=False)
        null = table.effects.copy()
        for context in np.unique(where):
            mine = np.flatnonzero(where == context)
            null[mine] = null[rng.permutation(mine)]
        labels = where.copy()
        for name in names:
            labels[drug == name] = rng.permutation(labels[drug == name])
        noise = lambda share, rng=rng: table.effects + share * size * rng.normal(size=table.effects.shape)
        cases = {
            "20 drugs": changed(keep=np.isin(drug, few)),
            "2 contexts": changed(keep=np.isin(where, two)),
            "20 drugs, 2 contexts": changed(keep=np.isin(drug, few) & np.isin(where, two)),
            "noise 1": changed(noise(1.0)),
            "noise 3": changed(noise(3.0)),
            "null: effects exchanged between drugs": changed(null),
            "contexts shuffled within drugs": changed(contexts=labels),
            "20 drugs, noise 2": changed(noise(2.0), keep=np.isin(drug, few)),
        }
        for case, part in cases.items():
            fold = drugs_of(part)
            out.append(unseen(part, found, fold, f"{case}: unseen drug", 1))
            for name, split in splits(part).items():
                out.append(seen_drugs(part, found, f"{case}: {name}", split, 1))
    return out


def show_stress(found: list[Scores]) -> None:
    """Print the ratio of the anchor's RMSE to the least of the plain rows'."""
    rows = pd.DataFrame([row for part in found for row in part.rows])
    rows = rows[rows["method"] != "drug anchor, shuffled"]
    means = rows.groupby(["question", "method"], sort=False)["rmse"].mean().unstack()
    ratio = means["drug anchor"] / means.drop(columns="drug anchor").min(axis=1)
    table = pd.DataFrame({"ratio": ratio, "best plain row": means.drop(columns="drug anchor").idxmin(axis=1)})
    print("== stress: RMSE of the anchor over that of the best plain row")
    print(table.round(4).to_string())
    print(f"   mean {ratio.mean():.4f}, worst {ratio.max():.4f}\n", flush=True)


def main() -> None:
    """Run the benchmark."""
    names = ["drug", "scaffold", "80 %", "20 %", "context", "both", "retrieval", "stress"]
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--model", action="store_true", help="DrugJEPA beside its anchor, first seed")
    options.add_argument("--questions", nargs="+", choices=names, default=names)
    args = options.parse_args()
    start(args)
    table, found = op3(args.data)
    drug = drugs_of(table)
    scores: list[Scores] = []
    for name in args.questions:
        if name == "retrieval":
            retrieval(table, found)
        elif name == "stress":
            part = stress(table, found, args.seeds)
            show_stress(part)
            keep(part, args.out, "drug_unseen_stress.csv")
            continue
        elif name in ("drug", "scaffold"):
            groups = drug if name == "drug" else np.array([found.scaffolds[d] for d in drug])
            scores.append(unseen(table, found, groups, f"unseen molecule, by {name}", args.seeds, args.model))
            scores[-1].show(["mean per context"])
        else:
            titles = {"80 %": "80 % of drugs known", "20 %": "20 % of drugs known", "context": "context unseen"}
            title = titles.get(name, "drug and context unseen")
            seeds = 1 if name == "context" else args.seeds
            split = splits(table)[name]
            scores.append(seen_drugs(table, found, title, split, seeds, more=True, model=args.model))
            scores[-1].show(["mean of all"] if name == "both" else ["mean per drug"])
        keep(scores, args.out, "drug_unseen.csv")


if __name__ == "__main__":
    main()
