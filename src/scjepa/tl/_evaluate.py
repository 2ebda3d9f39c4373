"""``evaluate``: scores of predicted cells, with the baselines' rows beside them, leak checks and verdicts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd
from anndata import AnnData

from scjepa._checks import require_positive_int
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.tl._embedding_metrics import embedding_metrics
from scjepa.tl._verdict import verdict
from scjepa.tl.evaluation._contenders import Baselines, contenders
from scjepa.tl.evaluation._inputs import check_anndata, prediction_record, resolve_labels, store_table
from scjepa.tl.evaluation._leaks import find_leaks
from scjepa.tl.evaluation._profiles import Profile, choose_metrics
from scjepa.tl.evaluation._stated import add_stated, read_stated, warn_pooled, warn_stated
from scjepa.tl.evaluation._table import score_table

logger = logging.getLogger(__name__)


@docs
def evaluate(
    pred: AnnData,
    real: AnnData,
    *,
    profile: Profile = "minimal",
    train: AnnData | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    metrics: Sequence[str] | str | None = None,
    baselines: Baselines = "auto",
    ceiling: bool = True,
    n_pcs: int = 50,
    method: str = "model",
    max_cells: int = 2000,
    key_added: str = Keys.uns.scores,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score predicted cells against real cells, condition by condition, beside baselines and the replicate ceiling.

    A condition is a perturbation in a context; ``"B+A"`` is ``"A+B"``. Every condition of ``pred`` is scored.

    Parameters
    ----------
    %(pred)s
    %(real)s
    profile
        ``"minimal"``: mean profiles, E-distance, ratios, discrimination. ``"full"``: everything below. ``"vcc"``: the
        three scores of the Virtual Cell Challenge. ``"embedding"``: :func:`scjepa.tl.embedding_metrics` of
        ``obsm["X_jepa"]``, which both AnnData need.
    %(train)s
    %(labels_of_pred)s
    %(measured_layer)s
    metrics
        Names from the table below, instead of those of the profile.
    %(baselines)s
    ceiling
        Whether to add the row "replicate ceiling": how well the data allow a prediction to score, see Notes.
    n_pcs
        Principal components in which scores of cells are computed. They are fitted on (at most 5,000 of the) real
        controls and training cells only, and all share one scale: coordinates are divided by the mean standard
        deviation of the components over these cells.
    %(method)s
    %(max_cells)s
    %(key_added)s
    seed
        Seed of the subsets.

    Returns
    -------
    Tidy table, one row per method x condition x metric: ``method``, ``kind`` (``"model"``, ``"baseline"`` or
    ``"ceiling"``), ``perturbation`` (label as written in ``real``), ``context`` (``"all"`` without ``context_key``),
    ``metric``, ``value`` (NaN where undefined). A baseline has no rows for conditions that it can't predict, the
    ceiling none for conditions with fewer than 4 real cells. Scores of all conditions at once have the perturbation
    ``"(all conditions)"``. Baselines that predict the same have rows each, with the same values; printed tables and
    figures show them once.
    If ``pred`` carries what its model says of the conditions (scjepa predictions do, in
    ``uns["jepa"]["prediction"]["conditions"]``), three more columns are filled in the rows of ``pred``: ``basis`` (what
    the size of the effect was judged by: ``"left out"`` conditions, ``"sampling noise"`` or ``"none"``), ``support``
    (``"trained"``, ``"near"``, ``"far"``, or a word of the anchor's own) and ``abstain``; in all other rows they are ``""`` and False.
    Writes the same table to ``pred.uns["jepa"][key_added]`` and what the leak checks found to
    ``pred.uns["jepa"]["leak_checks"]``; a ``pred`` that is a view becomes data of its own.

    Warns
    -----
    UserWarning
        When a prediction seems to have seen the answer: conditions that the record of ``pred`` counts as training
        conditions, predicted cells equal to real ones, or that follow them one by one, held-out cells in ``train``;
        and when the predicted cells of a condition are all the same. Also, once, when the record of ``pred`` says
        that the model abstains on conditions, or that the size of effects was judged by sampling noise or by nothing;
        and when a condition has cells of several doses or times, which are scored together.

    Raises
    ------
    KeyError
        If a label column is missing.
    ValueError
        If ``pred`` holds counts, genes or conditions of ``pred`` are not in ``real``, a context has no controls, or a
        predicted condition is among those of ``train``.

    Notes
    -----
    :func:`scjepa.tl.format_scores` prints the means and a verdict for each claim (:func:`scjepa.tl.verdict`: better
    than the best baseline?).

    .. list-table::
       :header-rows: 1

       * - score
         - function of :mod:`scjepa.metrics`, and what it reads
       * - ``l2``, ``mse``, ``mae``
         - same names, mean profiles
       * - ``mse_delta``, ``mae_delta``
         - ``mse``, ``mae`` of effects
       * - ``pearson_delta``
         - same name, effects against control
       * - ``pearson_delta_systema``
         - ``pearson_delta`` against the mean training effect
       * - ``weighted_mse``, ``weighted_r2``
         - same names, effects; ``de_weights`` from Welch's t of the real cells against those of all other
           perturbations
       * - ``cosine_logfc``
         - ``cosine`` of ``log_fold_change``
       * - ``shift_ratio``
         - ``shift_magnitude_ratio``
       * - ``discrimination_score_l1``, ``_l2``, ``_cosine``
         - ``discrimination_score`` within a context, the perturbed genes left out
       * - ``perturbench_rank``, ``perturbench_rank_cosine``
         - ``perturbench_rank`` within a context, of means and of log fold changes
       * - ``centroid_accuracy``, ``normalized_inverse_rank``
         - same names, among all conditions and within a context
       * - ``e_distance``, ``variance_ratio``
         - ``energy_distance``, ``variance_ratio`` of cells in principal components
       * - ``mmd``, ``sliced_wasserstein``
         - same names, of cells in principal components
       * - ``de_*``
         - same names; Wilcoxon test (``rank_sum_test``), FDR below 0.05; ``_at_N``: of all significant genes
       * - ``de_count_ratio``
         - ``de_count`` of the prediction over that of the truth
       * - ``de_spearman_count``, ``centroid_ami``, ``pearson_edistance``
         - same names, one number for all conditions; NaN for methods that lack some of them, the last also with
           several contexts

    Predicted cells of a baseline are real controls of the context moved by its effect
    (:func:`scjepa.data.shift_cells`); its mean scores come straight from the effect.

    Replicate ceiling: the real cells of a condition are split into halves of :math:`n_1 + n_2 = n` cells, and one half
    is scored as the prediction of the other (10 splits averaged, 2 for ranks, MMD and tests of genes; effects against
    the same controls), corrected for the size of the halves. Errors become those of a perfect prediction: squared ones
    times :math:`n_1 n_2/n^2`, L2 and absolute ones times its root, since :math:`E\|h_1 - h_2\|^2 = 4\,E\|\bar x -
    \mu\|^2` for equal halves. Correlations become those of a second experiment of full size, :math:`2r/(1+r)`
    (Spearman-Brown, as in cell-eval); a prediction with less noise than an experiment can exceed them. E-distance and
    MMD become those of a perfect prediction of ``n`` cells, :math:`2 n_1 n_2/n^2` of those of the halves. All others,
    ratios, ranks and tests of genes, are those of the halves: too low a ceiling where the number of cells matters.

    References
    ----------
    Why baselines belong in every table: Ahlmann-Eltze, Huber, Anders, Nat Methods 2025,
    doi:10.1038/s41592-025-02772-6. Why the training mean is a reference: Systema, Nat Biotechnol 2025.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import evaluate
    >>> rng = np.random.default_rng(0)
    >>> label = np.repeat(["control", "A", "B", "A+B"], 50)
    >>> shift = {"control": [0, 0, 0], "A": [2, 0, 0], "B": [0, 1, 0], "A+B": [2, 1, 0]}
    >>> x = 3 + np.array([shift[p] for p in label]) + rng.uniform(size=(200, 3))
    >>> real = anndata.AnnData(x, obs=pd.DataFrame({"p": label}, index=[f"cell{i}" for i in range(200)]))
    >>> pred = real[label == "A+B"].copy()  # a perfect prediction
    >>> scores = evaluate(pred, real, perturbation_key="p", metrics=["l2"])
    >>> float(scores.set_index("method").loc["model", "value"])
    0.0
    """
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    train = None if train is None else check_anndata(train, "train")
    chosen = choose_metrics(profile, metrics)
    require_positive_int(n_pcs, "n_pcs")
    require_positive_int(max_cells, "max_cells", minimum=2)
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)
    if profile == "embedding" and metrics is None:
        return embedding_metrics(pred, real, **labels.arguments(), method=method, key_added=key_added)
    who = contenders(
        pred,
        real,
        labels,
        train=train,
        layer=layer,
        baselines=baselines,
        method=method,
        max_cells=max_cells,
        seed=seed,
    )
    leaks = find_leaks(who)
    record = prediction_record(pred)
    warn_pooled(record, pred, real, labels)
    scores = score_table(who, chosen, n_pcs=n_pcs, ceiling=ceiling)
    stated = read_stated(record, who)
    if stated is not None:
        scores = add_stated(scores, stated, who)
        warn_stated(stated, record, method)
    store_table(pred, key_added, scores)
    store_table(pred, Keys.uns.leaks, leaks)
    for claim in verdict(scores).itertuples():
        logger.info("%s", claim.verdict)
    return scores.copy()
