"""What forbids collapse: the loss of that name, weighted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scjepa.losses import SIGRegLoss, VICRegLoss, VISRegLoss
from scjepa.module import Regularizer


@pytest.mark.parametrize(
    ("name", "weight", "loss"), [("visreg", 1.0, VISRegLoss), ("sigreg", 2.0, SIGRegLoss), ("vicreg", 0.04, VICRegLoss)]
)
def test_regularizer_is_the_weighted_loss(name: str, weight: float, loss: type[nn.Module]) -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for given, used in ((None, weight), (0.5, 0.5)):
        torch.manual_seed(3)
        got = Regularizer(name, given)(z)
        torch.manual_seed(3)
        want = loss().regularize(z)["loss"] if name == "vicreg" else loss()(z)["loss"]
        torch.testing.assert_close(got, used * want)


def test_no_regularizer() -> None:
    z = torch.zeros(5, 2)
    assert Regularizer("ema")(z).item() == 0
    assert Regularizer("visreg", 0.0)(z).item() == 0
    with pytest.raises(ValueError, match="regularizer='visreq': expected one of"):
        Regularizer("visreq")
