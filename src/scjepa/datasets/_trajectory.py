"""Cells of a developing system in unpaired snapshots, with known courses: branches, fates, tipping points, donors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scjepa._checks import require_member
from scjepa._keys import Keys
from scjepa._types import FloatArray, Matrix
from scjepa.datasets._counts import BLOCK, TARGET_SUM, share
from scjepa.datasets._course_arguments import check_arguments
from scjepa.datasets._courses import Biology, draw_biology, draw_fates, open_fates, shifted_odds, split_table

AT_BRANCH, AT_TIP = 0.45, 0.5
"""Where branch and tipping points lie by default, as a share of the range of times."""
VIRTUAL = 2000


def simulate_trajectory(
    n_genes: int = 200,
    n_times: int = 7,
    *,
    times: Sequence[float] | None = None,
    n_cells: int | Sequence[int] = 100,
    n_fates: int = 2,
    branch_times: float | Sequence[float] | None = None,
    fate_proportions: Sequence[float] | None = None,
    growth: Sequence[float] | None = None,
    fate_effect: float = 1.6,
    priming: float = 0.0,
    asynchrony: float = 0.04,
    static: bool = False,
    switch: bool = False,
    tipping: str | None = None,
    tip_time: float | None = None,
    tip_size: float = 0.8,
    n_module: int = 20,
    n_donors: int = 1,
    n_groups: int = 1,
    group_effect: str = "speed",
    group_shift: float = 0.8,
    donor_effect: float = 0.1,
    conditions: Sequence[str] = ("control",),
    condition_effect: str = "fate",
    condition_shift: float = 1.5,
    n_clones: int = 0,
    clone_fidelity: float = 0.8,
    state_effect: float = 0.3,
    batch_effect: float = 0.0,
    depth: float | Sequence[float] = 1500.0,
    depth_sd: float = 0.3,
    dispersion: float = 0.1,
    seed: int = 0,
    sparse: bool = True,
) -> anndata.AnnData:
    r"""Simulate counts of a developing system, seen in unpaired snapshots, whose course is known.

    The share of gene :math:`g` among the transcripts of a cell is

    .. math::
        \pi_g \propto \exp\Big(\mu_g + a_g\,\sigma(k_g (s - c_g)) + \sum_{j:\,f \in F_j} \sigma(25 (s - b_j))\,P_{jg}
        + \sum_l u_l L_{lg} + \tau(t)\,v\,m_g + \beta_{tg} + \delta_g\Big)

    with :math:`s` the cell's own progress (its time, give or take ``asynchrony``), :math:`f` its fate, :math:`F_j` the fates
    that part from the others at :math:`b_j` and :math:`P_j` what that changes, :math:`u` states that have nothing to do with
    time, :math:`m` a module whose fluctuation :math:`\tau` peaks at a tipping point, :math:`\beta` a shift of the snapshot
    and :math:`\delta` one of the donor. Counts are negative binomial around :math:`\pi_g` times a log-normal library size.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_times, times
        Number of snapshots, equally spaced from 0 to 1; or their times, ascending, in any unit and at any distance.
    n_cells
        Cells of each snapshot, donor and condition; one number, or one for each time.
    n_fates
        Number of fates; 0 or 1 for a course that does not branch.
    branch_times
        When fates part, in the unit of the times: one number, when all part at once, or ``n_fates - 1`` ascending ones, at
        each of which one fate parts from those that are left (nested). By default .45 of the range.
    fate_proportions
        Share of each fate (scaled to one), by default equal.
    growth
        Growth rate of each fate after it parted, per unit of time: its share among the cells rises by
        :math:`e^{g (t - b)}` against the others. By default 0.
    fate_effect
        Standard deviation of a fate's log fold changes over the fifth of the genes that it changes.
    priming
        Share of a fate's programme that its cells have from the start: 0 for fates that part at the branch time, 1 for
        populations that were separate all along.
    asynchrony
        Standard deviation of cells' progress at one time, as a share of the range of times.
    static
        All snapshots show the same mixture of early and late cells.
    switch
        All genes change at the same moment, fast, in the middle of the range.
    tipping, tip_time, tip_size, n_module
        ``"peak"``: fluctuations of a module peak at ``tip_time`` (by default the middle of the range); ``"rise"``: they rise
        to the end, which is no tipping point; None for neither. Their standard deviation at the highest (log scale), and the
        number of genes in the module.
    n_donors, n_groups, group_effect, group_shift
        Donors, dealt evenly into groups of different course. ``"speed"``: each group develops :math:`e^{-shift}` times as
        fast as the one before; ``"fate"``: the odds of its last fate are :math:`e^{shift}` times those of the group before.
    donor_effect
        Standard deviation over genes of donors' own shifts (log scale; none with one donor).
    conditions, condition_effect, condition_shift
        Names of the conditions, the first one the reference; what the others change, as for groups, one after another.
    n_clones, clone_fidelity
        Number of clones (barcodes) per donor and condition, 0 for none. Each has a preferred fate, drawn by the proportions;
        its cells take that one with this probability, and otherwise any.
    state_effect
        Standard deviation of three state programmes' loadings (log scale).
    batch_effect
        Standard deviation over genes of the shift of each snapshot (log scale).
    depth
        Mean counts per cell; one number, or one for each time.
    depth_sd, dispersion, sparse
        As in :func:`simulate_perturbseq`.
    seed
        Seed; genes, fates, module and donors do not depend on the numbers of cells.

    Returns
    -------
    AnnData with raw counts (float32) in random cell order; ``obs``: ``time``, ``sample`` (donor, condition and time),
    ``donor``, ``condition``, ``clone`` (``""`` without clones), ``fate`` (the one a cell has or will have, ``""`` without
    fates), ``branch`` (the fates open to it, joined by ``+``), ``pseudotime`` (:math:`s`), ``n_counts``; ``var``:
    ``driver`` (changed by a fate), ``module``. The truth is in ``uns["jepa"]["simulation"]``:

    - ``fates``: their names, ``proportions``, ``growth``; ``splits``: table of ``time`` and ``fates`` that part then;
    - ``fate_probabilities``: cells x fates, given a cell's progress, clone, donor and condition, in the order of ``obs_names``
      (commitment: descendants count once, whatever their growth);
    - ``programmes``: splits x genes, :math:`P`; ``module``: genes, :math:`m`; ``tip_time`` (NaN without a peak);
    - ``donors``: table of ``group``, ``speed`` and the odds ``shift`` of the last fate; ``conditions`` likewise;
    - ``course``: what :func:`true_trajectory` computes expected means from; ``parameters``: the arguments.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    Examples
    --------
    >>> from scjepa.datasets import simulate_trajectory, true_trajectory
    >>> adata = simulate_trajectory(60, times=(0, 2, 6), n_cells=20, n_fates=3, fate_proportions=(0.6, 0.3, 0.1))
    >>> adata.shape, adata.uns["jepa"]["simulation"]["splits"]["time"].round(1).tolist()
    ((60, 60), [2.7, 2.7, 2.7])
    >>> true_trajectory(adata, [0, 3, 6]).shape  # expected means at any time x genes
    (3, 60)
    """
    given = {name: value for name, value in locals().items() if value is not None}
    moments = check_arguments(given)
    first, span = float(moments[0]), float(moments[-1] - moments[0])
    when = [first + AT_BRANCH * span] if branch_times is None else np.atleast_1d(np.array(branch_times, dtype=float))
    tip = first + AT_TIP * span if tip_time is None else float(tip_time)
    genes = [f"G{i + 1:0{max(3, len(str(n_genes)))}d}" for i in range(n_genes)]
    fates = [f"fate {i + 1}" for i in range(n_fates)] if n_fates > 1 else []
    n_open = max(1, len(fates))
    odds = np.ones(n_open) if fate_proportions is None or not fates else np.array(fate_proportions, dtype=float)
    odds = odds / odds.sum()
    rates = np.zeros(n_open) if growth is None or not fates else np.array(growth, dtype=float)

    # one stream for each part, so that for example more cells leave genes and donors as they are
    gene_rng, fate_rng, tip_rng, batch_rng, donor_rng, clone_rng, cell_rng = np.random.default_rng(seed).spawn(7)
    biology = draw_biology(
        n_genes, len(fates), (np.array(when) - first) / span, fate_effect=fate_effect, priming=priming, switch=switch,
        noise=state_effect, n_module=n_module, tipping=tipping or "", tip_time=(tip - first) / span, tip_size=tip_size,
        streams=(gene_rng, fate_rng, tip_rng),
    )  # fmt: skip
    shift_of_batch = batch_effect * batch_rng.normal(size=(len(moments), n_genes))
    shift_of_donor = (donor_effect if n_donors > 1 else 0.0) * donor_rng.normal(size=(n_donors, n_genes))
    donors = _courses(
        [f"D{i + 1:02d}" for i in range(n_donors)], np.arange(n_donors) % n_groups, group_effect, group_shift
    )
    arms = _courses([str(c) for c in conditions], np.arange(len(conditions)), condition_effect, condition_shift)
    donors.insert(0, "group", [f"group {i % n_groups + 1}" for i in range(n_donors)])

    # cells: snapshot, donor, condition, clone, progress, fate
    per_time = np.broadcast_to(np.array(n_cells), len(moments))
    t, d, c = (i.ravel() for i in np.indices((len(moments), n_donors, len(arms))))
    t, d, c = (np.repeat(i, per_time[t]) for i in (t, d, c))
    order = cell_rng.permutation(len(t))
    t, d, c = t[order], d[order], c[order]
    relative = (moments - first) / span
    chance = shifted_odds(np.tile(odds, (len(t), 1)), (donors["shift"].to_numpy()[d] + arms["shift"].to_numpy()[c]))
    clone = np.full(len(t), "", dtype=object)
    if n_clones:
        number = cell_rng.integers(0, n_clones, len(t))
        table = shifted_odds(odds, donors["shift"].to_numpy()[:, None] + arms["shift"].to_numpy())
        table = np.broadcast_to(table, (n_donors, len(arms), n_open))
        likes = draw_fates(np.repeat(table.reshape(-1, n_open), n_clones, axis=0), clone_rng)
        liked = likes.reshape(n_donors, len(arms), n_clones)[d, c, number]
        chance = (1 - clone_fidelity) * chance + clone_fidelity * np.eye(n_open)[liked]
        clone = np.array([f"C{i + 1:04d}" for i in range(n_donors * len(arms) * n_clones)], dtype=object)[
            (d * len(arms) + c) * n_clones + number
        ]
    progress = _progress(relative[t] * (donors["speed"].to_numpy()[d] * arms["speed"].to_numpy()[c]),
                         asynchrony, static, cell_rng)  # fmt: skip
    parted = np.array([biology.split_time[w].max() if w.any() else 0.0 for w in biology.split_fates.T])
    grown = chance * np.exp(rates * span * np.maximum(progress[:, None] - parted, 0.0))
    fate = draw_fates(grown / grown.sum(1, keepdims=True), cell_rng)
    still = open_fates(progress, fate, biology.split_time, biology.split_fates)
    if priming == 1.0:
        still = np.eye(n_open, dtype=bool)[fate]
    left = np.where(still, chance, 0.0)

    library = np.broadcast_to(np.array(depth, dtype=float), len(moments))[t]
    library = library * np.exp(depth_sd * cell_rng.normal(size=len(t)) - depth_sd**2 / 2)
    counts = _draw(biology, progress, relative[t], fate, (shift_of_batch, t), (shift_of_donor, d), library, dispersion,
                   cell_rng, sparse)  # fmt: skip
    names = np.array([*fates] or [""], dtype=object)
    joined = {tuple(row): "+".join(names[row]) for row in np.unique(still, axis=0)}
    donor_names, arm_names = np.array(donors.index, dtype=object)[d], np.array(arms.index, dtype=object)[c]
    obs = pd.DataFrame(
        {
            "time": moments[t],
            "sample": pd.Categorical(
                [f"{a} {b} {moments[i]:g}" for a, b, i in zip(donor_names, arm_names, t, strict=True)]
            ),
            "donor": pd.Categorical(donor_names),
            "condition": pd.Categorical(arm_names),
            "clone": pd.Categorical(clone),
            "fate": pd.Categorical(names[fate]),
            "branch": pd.Categorical([joined[tuple(row)] for row in still]),
            "pseudotime": first + span * progress,
        },
        index=[f"cell{i:0{len(str(len(t)))}d}" for i in range(len(t))],
    )
    obs["n_counts"] = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    truth: dict[str, Any] = {
        "fates": pd.DataFrame({"proportion": odds, "growth": rates}, index=names),
        "splits": split_table(biology, fates, first, span),
        "fate_probabilities": left / left.sum(1, keepdims=True),
        "programmes": biology.programmes,
        "module": biology.module,
        "tip_time": tip if tipping == "peak" else float("nan"),
        "donors": donors,
        "conditions": arms,
        "course": {
            "base": biology.base, "size": biology.size, "steepness": biology.steepness, "middle": biology.middle,
            "noise": biology.noise, "donor_shift": shift_of_donor, "tip": tip,
        },
        "parameters": {
            name: np.array(value, dtype=object if name == "conditions" else float)
            if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else value
            for name, value in given.items()
        },
    }  # fmt: skip
    truth["parameters"]["times"] = moments
    var = pd.DataFrame(
        {"driver": (biology.programmes != 0).any(0), "module": (biology.module != 0) & (tipping is not None)},
        index=genes,
    )
    return anndata.AnnData(counts, obs=obs, var=var, uns={Keys.uns.root: {Keys.uns.simulation: truth}})


def true_trajectory(
    adata: anndata.AnnData,
    times: Sequence[float],
    *,
    fate: str | None = None,
    donor: str | None = None,
    condition: str | None = None,
) -> pd.DataFrame:
    """Return true expected means of a simulated system at any times, measured or not.

    Parameters
    ----------
    adata
        From :func:`simulate_trajectory`, also after a round trip through a file or a selection of cells or genes.
    times
        In the unit of the simulated times; also after the last one.
    fate
        Of cells with this fate; None for all, in their proportions at each time.
    donor, condition
        Whose course; None for the average over all.

    Returns
    -------
    Times x genes of ``adata``: means over cells of ``log1p(1e4 * share)``, without count noise and snapshot shifts, over 2,000
    virtual cells a row (of a fixed seed).

    Raises
    ------
    ValueError
        If ``adata`` was not simulated here, or fate, donor or condition are none of its own.

    Examples
    --------
    >>> from scjepa.datasets import simulate_trajectory, true_trajectory
    >>> adata = simulate_trajectory(40, 3, n_cells=10)
    >>> early = [true_trajectory(adata, [0.0], fate=fate) for fate in ("fate 1", "fate 2")]
    >>> bool(abs(early[0] - early[1]).max(axis=None) < 0.1)  # not parted yet
    True
    """
    truth = adata.uns.get(Keys.uns.root, {}).get(Keys.uns.simulation, {})
    if "course" not in truth:
        raise ValueError(
            f"adata.uns[{Keys.uns.root!r}][{Keys.uns.simulation!r}] holds no course: only cells made by "
            "scjepa.datasets.simulate_trajectory have known true means over time."
        )
    fates, donors, arms = (truth[k] for k in ("fates", "donors", "conditions"))
    for value, table, name in ((fate, fates, "fate"), (donor, donors, "donor"), (condition, arms, "condition")):
        if value is not None:
            require_member(value, table.index, name, where="those that were simulated")
    given, course = truth["parameters"], truth["course"]
    first, span = float(given["times"][0]), float(given["times"][-1] - given["times"][0])
    n_fates, splits = len(fates), truth["splits"]
    which = np.array([[f in joined.split("+") for f in fates.index] for joined in splits["fates"]], dtype=bool)
    biology = Biology(
        np.asarray(course["base"]), np.asarray(course["size"]), np.asarray(course["steepness"]), np.asarray(course["middle"]),
        (splits["time"].to_numpy(dtype=float) - first) / span, which.reshape(-1, n_fates), np.asarray(truth["programmes"]),
        float(given["priming"]), np.asarray(course["noise"]), np.asarray(truth["module"]),
        str(given.get("tipping", "")), (float(course["tip"]) - first) / span, float(given["tip_size"]),
    )  # fmt: skip
    parted = np.array([biology.split_time[w].max() if w.any() else 0.0 for w in biology.split_fates.T])
    n_genes, rows = len(biology.base), []
    for time in np.array(times, dtype=float):
        rng = np.random.default_rng(0)
        d = np.arange(VIRTUAL) % len(donors) if donor is None else np.full(VIRTUAL, donors.index.get_loc(donor))
        c = (
            np.arange(VIRTUAL) // len(donors) % len(arms)
            if condition is None
            else np.full(VIRTUAL, arms.index.get_loc(condition))
        )
        at = np.full(VIRTUAL, (time - first) / span)
        speed = donors["speed"].to_numpy()[d] * arms["speed"].to_numpy()[c]
        s = _progress(at * speed, float(given["asynchrony"]), bool(given["static"]), rng)
        shift = donors["shift"].to_numpy()[d] + arms["shift"].to_numpy()[c]
        chance = shifted_odds(np.tile(fates["proportion"].to_numpy(), (VIRTUAL, 1)), shift)
        chance = chance * np.exp(fates["growth"].to_numpy() * span * np.maximum(s[:, None] - parted, 0.0))
        f = draw_fates(chance / chance.sum(1, keepdims=True), rng)
        if fate is not None:
            f = np.full(VIRTUAL, fates.index.get_loc(fate))
        rate = biology.log_rate(s, at, f, rng.normal(size=(VIRTUAL, 3)), rng.normal(size=VIRTUAL))
        rows.append(np.log1p(TARGET_SUM * share(rate + np.asarray(course["donor_shift"])[d])).mean(0))
    names = [f"G{i + 1:0{max(3, len(str(n_genes)))}d}" for i in range(n_genes)]
    table = pd.DataFrame(rows, index=pd.Index(list(times), name="time"), columns=names)
    return table[[g for g in adata.var_names if g in table.columns]]


def _courses(names: list[str], rank: np.ndarray, effect: str, shift: float) -> pd.DataFrame:
    """Return speed and the shift of the last fate's log odds of donors or conditions."""
    fast = effect == "speed"
    return pd.DataFrame(
        {"speed": np.exp(-shift * rank) if fast else np.ones(len(rank)), "shift": 0.0 * rank if fast else shift * rank},
        index=names,
    )


def _progress(time: FloatArray, asynchrony: float, static: bool, rng: np.random.Generator) -> FloatArray:
    return rng.uniform(0, 1, len(time)) if static else time + asynchrony * rng.normal(size=len(time))


def _draw(
    biology: Biology, progress: FloatArray, time: FloatArray, fate: np.ndarray,
    batch: tuple[FloatArray, np.ndarray], donor: tuple[FloatArray, np.ndarray],
    library: FloatArray, dispersion: float, rng: np.random.Generator, sparse: bool,
) -> Matrix:  # fmt: skip
    """Draw counts block by block of cells, so that only one block is ever dense."""
    n, n_genes = len(progress), len(biology.base)
    factors, module = rng.normal(size=(n, len(biology.noise))), rng.normal(size=n)
    step, blocks = max(1, BLOCK // n_genes), []
    for start in range(0, n, step):
        i = slice(start, start + step)
        rate = biology.log_rate(progress[i], time[i], fate[i], factors[i], module[i])
        rate = rate + batch[0][batch[1][i]] + donor[0][donor[1][i]]
        mean = library[i, None] * share(rate)
        if dispersion > 0:
            mean = rng.gamma(1.0 / dispersion, dispersion * mean)
        block = rng.poisson(mean).astype(np.float32)
        blocks.append(sp.csr_matrix(block) if sparse else block)
    return sp.vstack(blocks, format="csr") if sparse else np.vstack(blocks)
