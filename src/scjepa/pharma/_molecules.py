"""Molecules from SMILES: cleaned structures, fingerprints, descriptors, scaffolds. Needs RDKit (extra ``drugs``)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from scjepa._checks import require_member, require_positive_int, some

logger = logging.getLogger(__name__)

Smiles: TypeAlias = "Mapping[str, str] | pd.Series | Iterable[str]"
"""Structures by name, or a plain list, whose names are the strings themselves."""
Kind = Literal["morgan", "feature_morgan", "atom_pair", "topological_torsion", "rdkit", "maccs"]
KINDS = ("morgan", "feature_morgan", "atom_pair", "topological_torsion", "rdkit", "maccs")

MACCS_BITS = 167
DESCRIPTORS = (
    "MolWt",
    "MolLogP",
    "TPSA",
    "NumHDonors",
    "NumHAcceptors",
    "NumRotatableBonds",
    "RingCount",
    "NumAromaticRings",
    "FractionCSP3",
    "HeavyAtomCount",
    "qed",
)
"""What :func:`descriptors` computes unless told otherwise, by RDKit's names."""
UNCLEAN = frozenset(".+-~>")
"""A SMILES without any of these is one molecule without charges."""
CACHED = 50_000
"""Molecules kept in memory by each cache."""


class Fingerprint(NamedTuple):
    """What a fingerprint is made of; see :func:`fingerprints`."""

    kind: str = "morgan"
    radius: int = 2
    size: int = 2048
    counts: bool = False
    chirality: bool = False

    def checked(self) -> Fingerprint:
        """Raise a :class:`ValueError` that says what doesn't fit; the size of MACCS keys is theirs."""
        require_member(self.kind, KINDS, "kind", where="the fingerprints")
        require_positive_int(self.radius, "radius", minimum=0)
        require_positive_int(self.size, "size", minimum=8)
        if self.kind == "maccs" and self.counts:
            raise ValueError("kind='maccs' with counts=True: MACCS keys are yes or no. Use counts=False, or 'morgan'.")
        return self._replace(size=MACCS_BITS) if self.kind == "maccs" else self

    def columns(self) -> list[str]:
        """Return the names of the features."""
        return [f"{self.kind}_{i}" for i in range(self.size)]

    @property
    def dtype(self) -> type:
        """Bits take a byte, counts two: some atom pairs occur more than 255 times."""
        return np.uint16 if self.counts else np.uint8


def rdkit_chem() -> ModuleType:
    """Import ``rdkit.Chem``, or say how to install it."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise ImportError("molecules need RDKit, which is not installed. Run: pip install 'scjepa[drugs]'") from error
    return Chem


@lru_cache(maxsize=CACHED)
def canonical(smiles: str) -> str | None:
    """Return the canonical SMILES of the cleaned molecule, or None for what RDKit can't read."""
    chem = rdkit_chem()
    from rdkit import rdBase

    with rdBase.BlockLogs():  # the caller names what can't be read
        mol = chem.MolFromSmiles(smiles.strip())
        if mol is None or not mol.GetNumAtoms():
            return None
        if UNCLEAN.isdisjoint(smiles):  # one molecule, without charges: nothing to clean
            return chem.MolToSmiles(mol)
        choose, uncharge = _cleaning()
        return chem.MolToSmiles(uncharge.uncharge(choose.choose(mol)))


@lru_cache(maxsize=1)
def _cleaning() -> tuple[Any, Any]:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    parameters = rdMolStandardize.CleanupParameters()
    parameters.largestFragmentChooserCountHeavyAtomsOnly = True  # type: ignore[assignment]  # else cisplatin would become ammonia
    return rdMolStandardize.LargestFragmentChooser(parameters), rdMolStandardize.Uncharger()


@lru_cache(maxsize=64)
def _generator(spec: Fingerprint) -> Any:
    from rdkit.Chem import rdFingerprintGenerator as made

    size, chiral = spec.size, spec.chirality
    if spec.kind == "morgan":
        return made.GetMorganGenerator(radius=spec.radius, fpSize=size, includeChirality=chiral)
    if spec.kind == "feature_morgan":
        invariants = made.GetMorganFeatureAtomInvGen()
        return made.GetMorganGenerator(
            radius=spec.radius, fpSize=size, includeChirality=chiral, atomInvariantsGenerator=invariants
        )
    if spec.kind == "atom_pair":
        return made.GetAtomPairGenerator(fpSize=size, includeChirality=chiral)
    if spec.kind == "topological_torsion":
        return made.GetTopologicalTorsionGenerator(fpSize=size, includeChirality=chiral)
    return made.GetRDKitFPGenerator(fpSize=size)


@lru_cache(maxsize=CACHED)
def _stored(smiles: str, spec: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
    """Return places and values of a canonical molecule's fingerprint: a few hundred bytes to keep."""
    mol = rdkit_chem().MolFromSmiles(smiles)
    if spec.kind == "maccs":
        from rdkit.Chem import rdMolDescriptors

        at = np.array(rdMolDescriptors.GetMACCSKeysFingerprint(mol).GetOnBits(), dtype=np.intp)
        return at, np.ones(len(at), dtype=spec.dtype)
    generator = _generator(spec)
    full = generator.GetCountFingerprintAsNumPy(mol) if spec.counts else generator.GetFingerprintAsNumPy(mol)
    at = np.flatnonzero(full)
    return at, np.minimum(full[at], np.iinfo(spec.dtype).max).astype(spec.dtype)


def fingerprint_rows(smiles: Iterable[str], spec: Fingerprint) -> np.ndarray:
    """Return ``(molecules, size)`` fingerprints of canonical SMILES, one row each, from the cache where they are."""
    known = list(smiles)
    rows: np.ndarray = np.zeros((len(known), spec.size), dtype=spec.dtype)
    for row, name in zip(rows, known, strict=True):
        at, values = _stored(name, spec)
        row[at] = values
    return rows


def named_structures(smiles: Smiles) -> tuple[list[str], list[object], int]:
    """Return names and structures as given, and how many entries of a list were there before."""
    if isinstance(smiles, str):
        raise TypeError(f"smiles is the string {smiles!r}: give a list, [{smiles!r}], or structures by name.")
    if isinstance(smiles, pd.DataFrame):
        raise TypeError(
            "smiles is a DataFrame: expected structures by name. Give one column, for example table['smiles'] with the "
            "names as its index."
        )
    if isinstance(smiles, (Mapping, pd.Series)):
        names, values = (
            [str(n) for n in smiles.keys()],
            list(smiles.to_numpy() if isinstance(smiles, pd.Series) else smiles.values()),
        )
        twice = pd.Index(names)[pd.Index(names).duplicated()].unique()
        if len(twice):
            raise ValueError(
                f"{len(twice)} names of smiles occur more than once: {some(list(twice))}. Give each drug one structure, "
                "for example smiles[~smiles.index.duplicated()]."
            )
        return names, values, 0
    given = list(smiles)
    once = list(dict.fromkeys(given))
    return [str(s) for s in once], list(once), len(given) - len(once)


def parse_smiles(smiles: Smiles, *, strict: bool = False) -> pd.Series:
    """Clean structures: counter-ions off, charges neutralised, stereo kept, written canonically.

    Of several fragments the one with most heavy atoms is kept. That is the drug in nearly all salts; a drug smaller
    than its counter-ion has to be given alone.

    Parameters
    ----------
    smiles
        Structures by name (a mapping or a Series), or a list of SMILES, whose names are the strings themselves and of
        which repeated ones are taken once.
    strict
        Raise on what RDKit can't read. Otherwise it is left out, and named and counted in one log line.

    Returns
    -------
    Series of canonical SMILES by name, in the order given; drugs that are one molecule have one SMILES.

    Raises
    ------
    ValueError
        If a name occurs twice, or a structure can't be read and ``strict`` is set or none is left.
    TypeError
        If ``smiles`` is a single string or a DataFrame.
    ImportError
        If RDKit is not installed.

    References
    ----------
    RDKit, ``rdMolStandardize.LargestFragmentChooser`` and ``Uncharger``; Bento et al., *Journal of Cheminformatics* 12,
    51 (2020).

    Examples
    --------
    >>> from scjepa.pharma import parse_smiles
    >>> parse_smiles({"metformin": "CN(C)C(=N)N=C(N)N.Cl", "acetate": "[Na+].CC(=O)[O-]"}).to_list()
    ['CN(C)C(=N)N=C(N)N', 'CC(=O)O']
    """
    names, values, repeated = named_structures(smiles)
    clean = [canonical(v) if isinstance(v, str) else None for v in values]
    left = [f"{n} ({v})" if n != str(v) else n for n, v, c in zip(names, values, clean, strict=True) if c is None]
    if left and (strict or len(left) == len(names)):
        raise ValueError(
            f"{len(left)} of {len(names)} SMILES can't be read: {some(left)}. Correct them (a SMILES looks like "
            f"'CC(=O)Oc1ccccc1C(=O)O')" + (", or leave them out with strict=False." if strict else ".")
        )
    if not names:
        raise ValueError("smiles is empty: give at least one structure.")
    if left:
        logger.info("%d of %d SMILES can't be read and are left out: %s.", len(left), len(names), some(left))
    if repeated:
        logger.info("%d SMILES occur before in the list and are taken once.", repeated)
    kept = [(n, c) for n, c in zip(names, clean, strict=True) if c is not None]
    return pd.Series(
        [c for _, c in kept], index=pd.Index([n for n, _ in kept], name="drug"), name="smiles", dtype=object
    )


def fingerprints(
    smiles: Smiles,
    kind: Kind = "morgan",
    *,
    radius: int = 2,
    size: int = 2048,
    counts: bool = False,
    chirality: bool = False,
    strict: bool = False,
) -> pd.DataFrame:
    """Compute fingerprints of cleaned molecules by RDKit's generators; kept per molecule, so asking again is free.

    Parameters
    ----------
    smiles
        Structures by name, or a list of SMILES, as in :func:`parse_smiles`.
    kind
        ``"morgan"`` (circular environments), ``"feature_morgan"`` (the same of pharmacophoric atom types),
        ``"atom_pair"``, ``"topological_torsion"``, ``"rdkit"`` (paths) or ``"maccs"`` (167 keys).
    radius
        Bonds that an environment reaches, of the two Morgan kinds: 2 is ECFP4, 3 is ECFP6.
    size
        Length of the fingerprint, except that of MACCS keys.
    counts
        How often an environment occurs, instead of whether it does.
    chirality
        Tell stereo-isomers apart (not the path and MACCS kinds, which can't).
    strict
        Raise on structures that can't be read, instead of leaving them out with a log line.

    Returns
    -------
    DataFrame, drugs x bits, columns ``"morgan_0"`` and so on: uint8 bits or uint16 counts.

    Raises
    ------
    ValueError
        If the kind or a size is unknown, or as in :func:`parse_smiles`.

    References
    ----------
    Rogers and Hahn, *Journal of Chemical Information and Modeling* 50, 742-754 (2010), for Morgan fingerprints; RDKit's
    ``rdFingerprintGenerator`` for all.

    Examples
    --------
    >>> from scjepa.pharma import fingerprints
    >>> table = fingerprints({"ethanol": "CCO", "propanol": "CCCO"}, counts=True)
    >>> table.shape, table.sum(axis=1).to_dict()
    ((2, 2048), {'ethanol': 6, 'propanol': 9})
    """
    spec = Fingerprint(kind, radius, size, counts, chirality).checked()
    molecules = parse_smiles(smiles, strict=strict)
    return pd.DataFrame(fingerprint_rows(molecules, spec), index=molecules.index, columns=spec.columns())


def descriptors(smiles: Smiles, names: Iterable[str] | None = None, *, strict: bool = False) -> pd.DataFrame:
    """Compute physico-chemical descriptors of cleaned molecules: weight, lipophilicity, polar surface, bonds.

    Parameters
    ----------
    smiles
        Structures by name, or a list of SMILES, as in :func:`parse_smiles`.
    names
        RDKit's names of descriptors, for example ``["MolWt", "BalabanJ"]``; None for eleven common ones.
    strict
        Raise on structures that can't be read, instead of leaving them out with a log line.

    Returns
    -------
    DataFrame, drugs x descriptors, float64, in RDKit's units (weight in Da, surface in square Angstrom).

    Raises
    ------
    ValueError
        If RDKit has no descriptor of a name, or as in :func:`parse_smiles`.

    Examples
    --------
    >>> from scjepa.pharma import descriptors
    >>> descriptors({"ethanol": "CCO"})[["MolWt", "NumHDonors"]].round(2).loc["ethanol"].to_list()
    [46.07, 1.0]
    """
    wanted = DESCRIPTORS if names is None else tuple(names)
    rdkit_chem()
    from rdkit.Chem import Descriptors

    known = dict(Descriptors.descList)
    for name in wanted:
        require_member(name, known, "names", where="RDKit's descriptors")
    molecules = parse_smiles(smiles, strict=strict)
    rows = [_described(s, wanted) for s in molecules]
    return pd.DataFrame(rows, index=molecules.index, columns=list(wanted), dtype=np.float64)


@lru_cache(maxsize=CACHED)
def _described(smiles: str, names: tuple[str, ...]) -> tuple[float, ...]:
    from rdkit.Chem import Descriptors

    mol, known = rdkit_chem().MolFromSmiles(smiles), dict(Descriptors.descList)
    return tuple(float(known[name](mol)) for name in names)


def scaffolds(smiles: Smiles, *, strict: bool = False) -> pd.Series:
    """Return the Bemis-Murcko scaffold of each drug: its rings and what links them, without side chains.

    Splitting by scaffold keeps close relatives on one side. Stereo is dropped, so that isomers share a scaffold.

    Parameters
    ----------
    smiles
        Structures by name, or a list of SMILES, as in :func:`parse_smiles`.
    strict
        Raise on structures that can't be read, instead of leaving them out with a log line.

    Returns
    -------
    Series of SMILES by name; a molecule without rings is its own scaffold, so that acyclic ones are not one group.

    Raises
    ------
    ValueError
        As in :func:`parse_smiles`.

    References
    ----------
    Bemis and Murcko, *Journal of Medicinal Chemistry* 39, 2887-2893 (1996).

    Examples
    --------
    >>> from scjepa.pharma import scaffolds
    >>> scaffolds({"toluene": "Cc1ccccc1", "aspirin": "CC(=O)Oc1ccccc1C(=O)O", "ethanol": "CCO"}).to_list()
    ['c1ccccc1', 'c1ccccc1', 'CCO']
    """
    return parse_smiles(smiles, strict=strict).map(_scaffold).rename("scaffold")


@lru_cache(maxsize=CACHED)
def _scaffold(smiles: str) -> str:
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    chem = rdkit_chem()
    mol = chem.MolFromSmiles(smiles)
    return MurckoScaffoldSmiles(mol=mol, includeChirality=False) or chem.MolToSmiles(mol, isomericSmiles=False)
