"""Bad input of baselines: every message says what was found and how to mend it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import BASELINES, KernelEffect, MeanEffect


@pytest.mark.parametrize("cls", BASELINES.values(), ids=list(BASELINES))
def test_every_baseline_checks_what_it_is_fitted_on(make_table, cls):
    table = make_table(["A", "B"], [1.0, 2.0])
    with pytest.raises(RuntimeError, match=rf"{cls.__name__} is not fitted yet: call fit\(table\) first"):
        cls().effects(table)
    with pytest.raises(RuntimeError, match=rf"{cls.__name__} is not fitted yet"):
        cls().fitted_effects()
    with pytest.raises(ValueError, match=rf"{cls.__name__}.fit: the table has no perturbed profiles"):
        cls().fit(replace(table, perturbed=None))
    with pytest.raises(ValueError, match=rf"{cls.__name__}.fit: the table has no rows"):
        cls().fit(table.rows([]))
    with pytest.raises(ValueError, match=r"1 of 2 rows have NaN or infinite profiles \('B'\). Drop them"):
        cls().fit(replace(table, perturbed=np.array([[1.0], [np.nan]])))
    with pytest.raises(ValueError, match=r"1 of 2 rows have no perturbed gene \(controls\)"):
        cls().fit(replace(table, actions=(("A",), ())))


def test_query_with_another_number_of_genes(make_table):
    model = MeanEffect().fit(make_table(["A"], [[1.0, 2.0]]))
    with pytest.raises(ValueError, match="the query has 3 genes, the training table 2"):
        model.effects(make_table(["A"], n_genes=3))


def test_query_with_other_gene_names(make_table):
    model = MeanEffect().fit(make_table(["A"], [[1.0, 2.0]], genes=("g1", "g2")))
    with pytest.raises(ValueError, match="2 of 2 genes of the query differ from the training table .*'g2', 'g1'"):
        model.effects(make_table(["A"], genes=("g2", "g1")))


@pytest.mark.parametrize(("column", "values"), [("dose", np.ones(1)), ("kind", np.array(["KO"]))])
def test_dose_and_kind_are_given_for_both_or_neither(make_table, column, values):
    with_it, without = make_table(["A"], [1.0], **{column: values}), make_table(["A"], [1.0])
    with pytest.raises(ValueError, match=f"the training table has a {column} for every row, the query has none"):
        MeanEffect().fit(with_it).effects(without)
    with pytest.raises(ValueError, match=f"the query has a {column} for every row, the training table has none"):
        MeanEffect().fit(without).effects(with_it)


@pytest.mark.parametrize("links", [(), (0.0,), (-1.0,), (np.nan,)])
def test_links_must_be_positive_or_none(links):
    with pytest.raises(ValueError, match=r"links=.*: expected one or more positive numbers or None"):
        KernelEffect(links=links)


@pytest.mark.parametrize("lambdas", [(), (0.0,), (np.inf,)])
def test_lambdas_must_be_positive(lambdas):
    with pytest.raises(ValueError, match=r"lambdas=.*: expected one or more positive numbers"):
        KernelEffect(lambdas=lambdas)


def test_number_of_components_must_be_whole():
    with pytest.raises(ValueError, match="n_components=0: expected a whole number of at least 1"):
        KernelEffect(n_components=0)


def test_features_must_be_a_table_with_one_finite_row_a_gene():
    with pytest.raises(TypeError, match="features: expected a pandas DataFrame, gene x features; found ndarray"):
        KernelEffect(features=np.eye(2))
    with pytest.raises(ValueError, match="features: 1 genes have more than one row: 'A'"):
        KernelEffect(features=pd.DataFrame(np.eye(2), index=["A", "A"]))
    with pytest.raises(ValueError, match="features: 1 of 2 genes have values that are missing .*'B'"):
        KernelEffect(features=pd.DataFrame([[1.0], [np.nan]], index=["A", "B"]))


def test_classes_of_picks_are_checked(make_table):
    with pytest.raises(RuntimeError, match="KernelEffect is not fitted yet"):
        KernelEffect().left_out_effects()
    model = KernelEffect().fit(make_table(["A", "B"], [1.0, 2.0]))
    with pytest.raises(ValueError, match="cls='double': expected one of 'combination', 'single', 'context'"):
        model.fitted_effects("double")
