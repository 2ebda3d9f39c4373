"""What :func:`scjepa.tl.evaluate` and its neighbors are made of; users call the functions of :mod:`scjepa.tl`.

In the order of an evaluation: ``_inputs`` reads both AnnData, ``_contenders`` fits the baselines, ``_leaks`` looks for
predictions that saw the answer, ``_table`` scores every method (``_scoring`` cells and profiles, ``_gene_tests`` genes,
``_ceiling`` halves of the real cells), ``_stated`` adds what a prediction says of itself. ``_profiles`` knows which
scores exist, ``_scores`` reads their tables again, ``_bootstrap`` tells luck from merit. ``_differential`` and
``_enrichment`` compare genes and pathways instead.
"""

__all__: list[str] = []
