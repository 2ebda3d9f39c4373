"""What differs between versions of the libraries underneath comes out the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa._compat import TEXT, as_text


@pytest.mark.parametrize("dtype", [object, "category", "string", None])
def test_missing_text_is_written_out(dtype: object) -> None:
    text = as_text(pd.Series(["a", None, np.nan, pd.NA], index=list("wxyz"), dtype=dtype))
    assert text.dtype == object and text.tolist() == ["a", "nan", "nan", "nan"]
    assert list(text.index) == list("wxyz")


def test_numbers_are_written_as_pandas_writes_them() -> None:
    assert as_text(pd.Series([1, 2])).tolist() == ["1", "2"]
    assert as_text(pd.Series([1.5, np.nan])).tolist() == ["1.5", "nan"]
    assert as_text(pd.Series([True, None], dtype="boolean")).tolist() == ["True", "nan"]


def test_columns_of_strings_have_the_type_of_this_pandas() -> None:
    assert pd.Series(["a", "b"]).dtype == TEXT
