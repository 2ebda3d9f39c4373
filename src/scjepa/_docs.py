"""Paragraphs that the docstrings of several public functions share, and ``docs``, which puts them there.

Decorate a function or a class with ``docs`` (a class method below ``@classmethod``) and write ``%(key)s`` on a line of
its own, indented like the parameters around it; lines that follow go on in the same paragraph:

.. code-block:: python

    @docs
    def train(self, max_epochs=None, *, batch_size=512):
        '''Train the encoder.

        Parameters
        ----------
        %(max_epochs)s
        %(train_batch_size)s
            In joint training sets of controls and perturbed cells.
        '''

A key is the name of its parameter, except where two paragraphs describe parameters of one name. A paragraph that only
one function needs stays in that function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from docrep import DocstringProcessor

T = TypeVar("T")

FIGURES = {
    # figures of one axes, of several (key panel_axes), and the file of both
    "ax": """\
ax
    Axes to draw into; new ones by default.""",
    "panel_axes": """\
ax
    Axes to draw into, one per panel; new ones by default.""",
    "save": """\
save
    File to write.""",
    # tables of predict_effect
    "n_genes": """\
n_genes
    Number of genes to draw when ``genes`` is not given.""",
}

_LABELS = """\
perturbation_key, control, context_key, separator
    ``obs`` column of perturbation labels, label of controls, ``obs`` column of contexts (cell type, cell line) and what
    joins combinations."""

EVALUATION = {
    # predicted cells and measured cells
    "pred": """\
pred
    Predicted cells (or one profile per condition) x genes of *any* tool, log-normalised in ``X``, labels in ``obs``.
    Control cells are optional: with them a predicted effect is taken against the predictor's own controls of the
    context, without them against the real ones.""",
    "real": """\
real
    Measured cells: controls of every context and every predicted condition; usually also the training conditions.
    Counts (normalised to 10,000 per cell and log1p'd here) or log-normalised. All genes of ``pred`` must be there, in
    any order.""",
    "train": """\
train
    Cells that the predictor was trained on (controls included), for the baselines. By default the training conditions
    that scjepa predictions carry in ``uns``; without such a record every condition of ``real`` that is not predicted.""",
    # columns and labels: given, or (key labels_of_pred) read from the record of a prediction
    "labels": _LABELS,
    "labels_of_pred": f"""\
{_LABELS}
    By default what ``pred.uns`` says, else no context, ``"control"`` and ``"+"``; ``context_key=""`` means no context.""",
    "measured_layer": """\
layer
    Layer of the measured cells with the expression values (``X`` by default).""",
    # rows beside those of the prediction, and what they are called
    "baselines": """\
baselines
    ``"auto"`` for every baseline that has a prediction for one of the conditions, a list of
    :class:`~scjepa.baselines.Baseline` objects (fitted here), or None.""",
    "method": """\
method
    Name of the rows of ``pred``.""",
    "max_cells": """\
max_cells
    Cells of a condition, and controls of a context, beyond which scores of cells and tests of genes use a random
    subset. Means always use all.""",
    "key_added": """\
key_added
    Key of the table in ``pred.uns["jepa"]``.""",
    # tables that evaluate returned
    "scores": """\
scores
    Table of :func:`scjepa.tl.evaluate`, or several joined with :func:`pandas.concat`.""",
}

_ENCODER = {
    "n_latent": """\
n_latent
    Dimension of the embedding.""",
    "encoder": """\
encoder
    ``"mlp"``, or ``"modules"``: one token per gene module, for interpretation and for ``give_tokens``.""",
    "gene_sets": """\
gene_sets
    Name -> genes; used as gene modules (plus one module with all other genes) instead of k-means modules.""",
    "n_modules": """\
n_modules
    Number of k-means modules, cut from the PCA loadings of the training cells.""",
    "encoder_size": """\
n_hidden, n_layers
    Width and depth of the encoder.""",
    "regularizer": """\
regularizer
    ``"visreg"``, ``"sigreg"``, ``"vicreg"``, or ``"ema"`` (slow target encoder instead of a term).""",
    "regularizer_weight": """\
regularizer_weight
    Its weight; None takes the measured default.""",
    "mask_rate": """\
mask_rate
    Share of modules hidden in each view.""",
}

MODELS = {
    # a model is made: its data, its encoder (all of it in one: encoder_arguments)
    "model_adata": """\
adata
    Set up with :meth:`setup_anndata`.""",
    "registry": """\
registry
    For loading without data; not for users.""",
    **_ENCODER,
    "encoder_arguments": "\n".join(_ENCODER.values()),
    "batch_aware": """\
batch_aware
    Subtract a learned offset per batch (of ``batch_key``) before encoding. Batch effects are *not* removed otherwise.""",
    # setup_anndata
    "setup_adata": """\
adata
    Cells x genes; raw counts or log1p of library-normalized counts, dense or sparse.""",
    "setup_layer": """\
layer
    Layer with the matrix, by default ``adata.X``.""",
    "batch_key": """\
batch_key
    Column of ``adata.obs`` with batches.""",
    "input_scale": """\
input_scale
    ``"counts"``, ``"lognorm"``, or ``"auto"`` to find out; what was found is recorded.
    ``"signature"`` for differences of any sign, see :func:`scjepa.data.signatures_to_conditions`.""",
    "target_sum": """\
target_sum
    Library size that counts are scaled to before log1p, below 3.27e6.""",
    "setup_kwargs": """\
**kwargs
    Used by scvi-tools when it replays a setup.""",
    # train
    "max_epochs": """\
max_epochs
    Epochs, of each stage where there are several; by default as many as make 400 steps.""",
    "devices": """\
accelerator, devices
    As in Lightning.""",
    "train_batch_size": """\
batch_size
    Embeddings per step and process: two views of each of ``batch_size // 2`` cells where an encoder trains.""",
    "early_stopping": """\
early_stopping
    Stop when the validation loss stalls, and keep the weights of the best epoch, stage by stage; acts only where there
    is something to validate on.""",
    "train_seed": """\
seed
    Same seed, same numbers on one machine.""",
    "plan_kwargs": """\
plan_kwargs
    Options of :class:`scjepa.train.PlanConfig` (``lr``, ``weight_decay``, ...).""",
    "checkpoint_dir": """\
checkpoint_dir
    Folder to which every finished epoch is written. The same call after an interruption, even a kill, goes on after
    the last of them, and ends with the same numbers as without. Of a finished training the result is taken and nothing
    is trained anew; a folder of other data or arguments is refused.""",
    "trainer_kwargs": """\
**trainer_kwargs
    For :class:`scvi.train.Trainer`.""",
}


class Docs:
    r"""Writes fragments into docstrings and returns what it was given: types and signatures stay.

    Parameters
    ----------
    fragments
        Key -> paragraph, without indentation.

    Examples
    --------
    >>> from scjepa._docs import Docs
    >>> @Docs({"ax": "ax\n    Axes to draw into."})
    ... def dots(ax):
    ...     '''Draw 100 % of the dots.
    ...
    ...     %(ax)s
    ...     '''
    >>> dots.__doc__
    'Draw 100 % of the dots.\n\nax\n    Axes to draw into.'
    """

    def __init__(self, fragments: Mapping[str, str]) -> None:
        self.fragments = dict(fragments)
        self._processor = DocstringProcessor(**self.fragments)

    def __call__(self, thing: T) -> T:
        """Fill in the docstring of a function or class; there is none under ``python -OO``."""
        if thing.__doc__ is not None:
            # only %(key)s is ours: other percent signs are text, which docrep would read as formats
            thing.__doc__ = self._processor.dedent(re.sub(r"%(?!\()", "%%", thing.__doc__))
        return thing


docs = Docs({**FIGURES, **EVALUATION, **MODELS})
