"""``summarize_scores``: means per method over conditions that can be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scjepa._docs import docs
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, METRICS
from scjepa.tl.evaluation._scores import check_scores


@docs
def summarize_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Average scores over conditions, the same conditions for all methods where possible.

    Methods that score at least half of the conditions are averaged over the conditions that they *all* score, so
    their rows can be compared. A baseline that applies to fewer is averaged over those of them that it has; its
    ``n_conditions`` is then lower than that of the others. The same goes for the replicate ceiling, which never decides
    which conditions count.

    Parameters
    ----------
    %(scores)s

    Returns
    -------
    One row per method (models first, then baselines from low to high L2, the replicate ceiling last), one column per
    metric (those without any value are left out) and ``n_conditions``, the number of conditions averaged.

    Raises
    ------
    ValueError
        If ``scores`` is not such a table.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.tl import summarize_scores
    >>> rows = [("m", "model", p, "all", "l2", v) for p, v in [("A", 1.0), ("B", 2.0)]]
    >>> rows += [("mean", "baseline", p, "all", "l2", v) for p, v in [("A", 3.0), ("B", 5.0)]]
    >>> summarize_scores(pd.DataFrame(rows, columns=["method", "kind", "perturbation", "context", "metric", "value"]))
            l2  n_conditions
    method
    m      1.5             2
    mean   4.0             2
    """
    scores = check_scores(scores)
    kind = scores.drop_duplicates("method").set_index("method")["kind"]
    overall = scores[scores["perturbation"] == ALL_CONDITIONS].pivot_table(
        index="method", columns="metric", values="value", aggfunc="mean"
    )
    scores = scores[scores["perturbation"] != ALL_CONDITIONS]
    wide = scores.pivot_table(
        index=["method", "perturbation", "context"], columns="metric", values="value", aggfunc="mean", dropna=False
    ).dropna(how="all")
    wide = wide.dropna(axis=1, how="all")
    has = wide.notna().any(axis=1).unstack("method", fill_value=False).astype(bool)
    contenders = has[[m for m in has.columns if kind[m] != "ceiling"]]
    broad = contenders.columns[contenders.mean() >= 0.5]
    common = has[broad].all(axis=1) if len(broad) else has.any(axis=1)
    if not common.any():
        common[:] = True
    chosen = wide[wide.reset_index("method").index.isin(common.index[common])]
    out = chosen.groupby(level="method", observed=True).mean()
    out = out.join(overall.dropna(axis=1, how="all"))
    out = out[[m for m in METRICS if m in out] + [m for m in out if m not in METRICS]]
    out["n_conditions"] = chosen.groupby(level="method", observed=True).size()
    order = pd.DataFrame({"group": kind.reindex(out.index).map({"model": 0, "ceiling": 2}).fillna(1)})
    order["place"] = np.arange(len(out)) if "l2" not in out else out["l2"]
    appearance = {m: i for i, m in enumerate(kind.index)}
    models = order["group"] == 0
    order.loc[models, "place"] = [appearance[m] for m in out.index[models]]
    out = out.loc[order.sort_values(["group", "place"], kind="stable").index]
    out.columns.name = None
    return out
