"""Ways to group genes into modules: user gene sets, or k-means on PCA loadings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from scjepa._checks import require_positive_int, some

REMAINDER = "remainder"
"""Name of the module of all genes that are in no user set."""


def gene_set_modules(
    gene_names: Sequence[str], gene_sets: Mapping[str, Sequence[str]]
) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Turn named gene sets into a membership matrix, with a last module for the genes that are in no set.

    Parameters
    ----------
    gene_names
        Names of the measured genes, in the order of the expression matrix.
    gene_sets
        Name of each set and its genes, for example pathways. Sets may overlap; genes that are not measured are left out.

    Returns
    -------
    names
        The sets in the given order, then ``"remainder"`` (absent when every gene is in a set).
    membership
        ``(len(names), len(gene_names))`` bool.

    Raises
    ------
    ValueError
        When a set has no measured gene (all such sets are named), when there is no set, when gene names repeat, or
        when a set is called ``"remainder"``.

    Examples
    --------
    >>> from scjepa.nn import gene_set_modules
    >>> names, membership = gene_set_modules(["A", "B", "C"], {"first": ["A", "B"], "second": ["B", "X"]})
    >>> names
    ['first', 'second', 'remainder']
    >>> membership.astype(int).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    """
    genes = np.asarray(gene_names, dtype=str)
    if len(np.unique(genes)) < len(genes):
        values, counts = np.unique(genes, return_counts=True)
        raise ValueError(f"gene_names has repeated names: {some(list(values[counts > 1]))}. Make them unique.")
    if not gene_sets:
        raise ValueError("gene_sets is empty: give at least one set of genes.")
    if REMAINDER in gene_sets:
        raise ValueError(f"gene_sets has a set named {REMAINDER!r}: the name is taken by genes in no set. Rename it.")
    rows = {}
    for name, members in gene_sets.items():
        if isinstance(members, str):
            raise ValueError(f"gene_sets[{name!r}] is the string {members!r}: expected a list of gene names.")
        rows[str(name)] = np.isin(genes, np.asarray(list(members), dtype=str))
    unmatched = [name for name, row in rows.items() if not row.any()]
    if unmatched:
        example = next(iter(gene_sets[name] for name in gene_sets if str(name) == unmatched[0]))
        raise ValueError(
            f"{len(unmatched)} of {len(rows)} gene sets have no measured gene: {some(unmatched, len(unmatched))}. "
            f"Genes of {unmatched[0]!r}: {some(list(example), 3) or 'none'}; measured genes: {some(list(genes), 3)}. "
            "Check that both use the same names (symbols or Ensembl ids, upper or lower case), or drop these sets."
        )
    rest = ~np.any(list(rows.values()), axis=0)
    if rest.any():
        rows[REMAINDER] = rest
    return list(rows), np.stack(list(rows.values()))


def kmeans_modules(loadings: npt.ArrayLike, n_modules: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Group genes that vary together: k-means on each gene's direction in PCA space.

    Parameters
    ----------
    loadings
        ``(d, n_genes)`` PCA axes; scale each by its standard deviation so that leading axes count more.
    n_modules
        Number of modules.
    seed
        Seed of the k-means initialisation.

    Returns
    -------
    ``(n_modules, n_genes)`` bool; every gene is in exactly one module.

    Raises
    ------
    ValueError
        When there are fewer genes than modules, or loadings are not finite.

    Examples
    --------
    >>> from scjepa.nn import kmeans_modules
    >>> kmeans_modules([[1.0, 2.0, 0.0, 0.1], [0.0, 0.1, 1.0, 3.0]], 2).sum(1).tolist()
    [2, 2]
    """
    genes = np.asarray(loadings, dtype=np.float64).T
    require_positive_int(n_modules, "n_modules")
    if genes.ndim != 2 or not np.isfinite(genes).all():
        raise ValueError(f"loadings: expected finite numbers of shape (d, n_genes); found shape {genes.T.shape}.")
    if len(genes) < n_modules:
        raise ValueError(f"n_modules={n_modules} is more than the {len(genes)} genes. Use fewer modules.")
    genes = genes / (np.linalg.norm(genes, axis=1, keepdims=True) + 1e-9)  # a gene with no loading stays at zero
    labels = KMeans(n_modules, n_init=1, random_state=seed).fit(genes).labels_
    return labels[None] == np.arange(n_modules)[:, None]
