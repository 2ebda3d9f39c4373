"""Signatures as data: profiles that are differences already get untreated rows of zeros, and train like cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import closest, require_labels, require_member, require_numbers, some
from scjepa._keys import Keys
from scjepa._labels import parse_label

logger = logging.getLogger(__name__)


def signatures_to_conditions(
    adata: AnnData,
    drug_key: str,
    *,
    control: str = "DMSO",
    context_key: str | None = None,
    dose_key: str | None = None,
    time_key: str | None = None,
    layer: str | None = None,
    separator: str = "+",
    new_contexts: Sequence[str] = (),
) -> AnnData:
    """Add an untreated row of zeros for every context, so that signatures train like cells.

    A signature is what a drug changes: a log fold change, a z-score, a signed rank against vehicle. There the untreated
    profile is zero. Models are set up on the result with ``input_scale="signature"``: values may then be negative, and
    predictions are signatures.

    Parameters
    ----------
    adata
        One signature a row; rows with the same drug, context, dose and time are averaged.
    drug_key
        Column of ``adata.obs`` with drugs (or with what was perturbed).
    control
        Label that the rows of zeros get, as for ``setup_anndata``.
    context_key, dose_key, time_key
        Columns with contexts, doses and exposure times, as for ``setup_anndata``; None where there is one only.
    layer
        Layer with the signatures, by default ``adata.X``.
    separator
        What joins the parts of a combination, as for ``setup_anndata``.
    new_contexts
        Further contexts to be asked about, of which no signature is known.

    Returns
    -------
    New AnnData, float32: first a row of zeros for each context (dose and time 0, no other annotation), then the signatures,
    in the order of ``adata``. ``obs``: the columns of ``adata`` and ``n_profiles``, how many rows were averaged (0 for
    zeros; of other columns the first row's value stays).

    Raises
    ------
    KeyError, ValueError
        For absent columns, missing labels, wrong doses or times, values that are no finite numbers, rows labelled as
        controls which are not zero, and new contexts that are not new.

    Notes
    -----
    Control profiles of signatures say nothing: no model can tell from them how a context differs from others, and
    similarity of contexts is learned from drugs given in both. Each profile is one row, so models learn no network and no
    sampling noise from it; predictions are those of the closed form, :class:`scjepa.baselines.DrugEffect`.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.data import signatures_to_conditions
    >>> obs = pd.DataFrame({"drug": ["A", "B", "A"], "line": ["x", "x", "y"]}, index=["1", "2", "3"])
    >>> signatures = anndata.AnnData(np.array([[1.0, -2.0], [0.5, 0.0], [1.5, -1.0]]), obs=obs)
    >>> ready = signatures_to_conditions(signatures, "drug", context_key="line")
    >>> ready.obs["drug"].tolist(), ready.X[:3].tolist()
    (['DMSO', 'DMSO', 'A', 'B', 'A'], [[0.0, 0.0], [0.0, 0.0], [1.0, -2.0]])
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"expected an AnnData, one signature a row; found {type(adata).__name__}.")
    obs = adata.obs
    if Keys.obs.n_profiles in obs:
        raise ValueError(
            f"adata.obs has a column {Keys.obs.n_profiles!r}, where the number of averaged rows goes: were these signatures "
            "prepared before? Rename the column if not."
        )
    if layer is not None:
        require_member(layer, adata.layers, "layer", where="adata.layers")
    drugs = require_labels(obs, drug_key, "drug_key").astype(str)
    keys = {drug_key: drugs}
    if context_key is not None:
        keys[context_key] = require_labels(obs, context_key, "context_key").astype(str)
    for argument, key in (("dose_key", dose_key), ("time_key", time_key)):
        if key is not None:
            keys[key] = pd.Series(require_numbers(obs, key, argument, minimum=0.0), index=obs.index)
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise ValueError("adata.X is None. Name the layer with the signatures: layer='...'.")
    x = sp.csr_matrix(x) if sp.issparse(x) else np.asarray(x)
    values = x.data if sp.issparse(x) else x
    if not np.isfinite(values).all():
        raise ValueError(
            f"the signatures have {int((~np.isfinite(values)).sum())} NaN or infinite values. Fill them (0: no change) or "
            "leave these genes out."
        )
    contexts = _contexts(keys, context_key, new_contexts)
    treated = np.array([bool(parse_label(label, control, separator)) for label in drugs], dtype=bool)
    if not treated.all():
        size = np.asarray(abs(x[~treated]).sum(1)).ravel()
        if size.any():
            raise ValueError(
                f"{int((size > 0).sum())} of {len(size)} rows labelled {control!r} are not zero: are these profiles differences "
                f"from controls? If they are expression, set models up on adata itself.{closest(control, drugs.unique())}"
            )
        logger.info("%d rows labelled %r were zero already and are made anew.", len(size), control)
    if not treated.any():
        raise ValueError(f"drug_key={drug_key!r}: all rows are labelled {control!r}. Give one signature at least.")
    rows = np.flatnonzero(treated)
    frame = pd.DataFrame({name: column.to_numpy()[rows] for name, column in keys.items()})
    group = frame.groupby(list(frame.columns), sort=False, observed=True).ngroup().to_numpy()
    first, count = np.unique(group, return_index=True)[1], np.bincount(group)
    if count.max() > 1:
        logger.info(
            "%d signatures of %d conditions were averaged.", int(count[count > 1].sum()), int((count > 1).sum())
        )
    mean = sp.csr_matrix((1 / count[group], (group, np.arange(len(group)))), shape=(len(count), len(group))) @ x[rows]
    zeros = (len(contexts), adata.n_vars)
    if sp.issparse(mean):
        stacked = sp.vstack([sp.csr_matrix(zeros), mean], format="csr").astype(np.float32)
    else:
        stacked = np.vstack([np.zeros(zeros), mean]).astype(np.float32)
    told = obs.iloc[rows[first]].copy()
    for name, column in keys.items():
        told[name] = column.to_numpy()[rows[first]]
    none = pd.DataFrame({drug_key: control}, index=[f"{control} {c}".strip() for c in contexts])
    if context_key is not None:
        none[context_key] = contexts
    for key in (dose_key, time_key):
        if key is not None:
            none[key] = 0.0
    out = pd.concat(
        [none.reindex(columns=told.columns), told.astype({c: object for c in told if told[c].dtype == "category"})]
    )
    out[Keys.obs.n_profiles] = np.append(np.zeros(len(contexts), int), count)
    names = pd.Index(out.index.astype(str))
    out.index = names if names.is_unique else anndata.utils.make_index_unique(names)
    for name in (drug_key, *([] if context_key is None else [context_key])):
        out[name] = out[name].astype("category")
    return AnnData(stacked, obs=out, var=adata.var.copy())


def _contexts(keys: dict[str, pd.Series], context_key: str | None, new: Sequence[str]) -> list[str]:
    """Return the names of all contexts, known ones first; one without a name where there is one only."""
    new = [new] if isinstance(new, str) else [str(c) for c in new]
    if context_key is None:
        if new:
            raise ValueError(f"new_contexts={new}: name the column of contexts too, context_key='...'.")
        return [""]
    known = sorted(set(keys[context_key]))
    twice = sorted(set(new) & set(known))
    if twice:
        raise ValueError(f"new_contexts: {some(twice)} have signatures in adata, so they are not new. Leave them out.")
    return known + list(dict.fromkeys(new))
