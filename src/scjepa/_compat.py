"""Every branch on the versions of the libraries underneath lives here."""

from __future__ import annotations

from typing import Any

import pandas as pd

TEXT = pd.Series([""]).dtype
"""What columns of strings are: objects up to pandas 2, a type of their own (``str``) from pandas 3."""


def prepare_scvi() -> None:
    """Import what scvi-tools 1.4 uses without importing: ``view_anndata_setup`` reads ``rich.pretty`` (fixed in 1.5)."""
    import rich.pretty  # noqa: F401


def layer_names(adata: Any) -> list[str]:
    """Return the names of the layers; anndata 0.13 lists X itself as a layer named None."""
    return [name for name in adata.layers if name is not None]


def as_text(values: pd.Series) -> pd.Series:
    """Return each value as a string, missing ones as ``"nan"``; ``astype(str)`` of pandas 3 keeps them missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa._compat import as_text
    >>> as_text(pd.Series(["a", None, 1.5])).tolist()
    ['a', 'nan', '1.5']
    """
    return values.astype(str).astype(object).where(values.notna(), "nan")


def text_as_objects(value: Any) -> Any:
    """Return ``value`` with the text of data frames in it, in plain dictionaries at any depth, as Python objects.

    The type that pandas 3 has for text is pickled as pyarrow's where that is installed, and then can't be read without.
    """
    if type(value) is dict:
        return {k: text_as_objects(v) for k, v in value.items()}
    if not isinstance(value, pd.DataFrame):
        return value
    frame = value.astype({c: object for c, d in value.dtypes.items() if isinstance(d, pd.StringDtype)})
    index, columns = (
        i.astype(object) if isinstance(i.dtype, pd.StringDtype) else i for i in (frame.index, frame.columns)
    )
    return frame.set_axis(index, axis=0).set_axis(columns, axis=1)
