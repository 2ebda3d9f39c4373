"""The encoder of actions: a set of perturbed genes or drugs, their kind and dose, as one vector."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int


class DoseGate(nn.Module):
    r"""A learned gate that grows with the dose: 0 at dose 0 and, to begin with, 1 at the reference dose.

    .. math::

        g(d) = \sum_k a_k \left[\sigma(2 (u / c_k - 1)) - \sigma(-2)\right],
        \qquad u = \frac{\log(1 + d)}{\log(1 + d_{ref})}

    with positive learned a, c: a sum of saturating steps at several scales, monotone whatever is learned.

    Parameters
    ----------
    dose_ref
        Dose at which the gate starts at one, in the unit of the doses.
    """

    _CENTERS = (0.5, 1.0, 2.0, 4.0)
    """Half-way points of the steps at the start, in units of ``log1p(dose_ref)``."""

    def __init__(self, dose_ref: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(dose_ref) and dose_ref > 0):
            raise ValueError(f"dose_ref={dose_ref!r}: expected a positive number, for example the median dose.")
        self.log_ref = math.log1p(dose_ref)
        self.log_center = nn.Parameter(torch.tensor(self._CENTERS).log())
        self.log_height = nn.Parameter(torch.zeros(len(self._CENTERS)))
        with torch.no_grad():
            self.log_height.sub_(self(torch.tensor(float(dose_ref))).log())

    def forward(self, dose: Tensor) -> Tensor:
        """Return the gate of each dose, in the shape of ``dose``."""
        u = torch.log1p(dose).unsqueeze(-1) / self.log_ref
        steps = torch.sigmoid(2 * (u * torch.exp(-self.log_center) - 1)) - 1 / (1 + math.exp(2))
        # at dose 0 every step is the difference of two equal numbers up to rounding: make it exact
        return (torch.where(u > 0, steps, torch.zeros_like(steps)) * self.log_height.exp()).sum(-1)


class PerturbationEncoder(nn.Module):
    """Embed what was done to a cell: the sum over its actions, so that order is free and combinations are additive.

    Parameters
    ----------
    n_actions
        Number of known actions (genes, drugs).
    n_cond
        Dimensions of the embedding.
    n_kinds
        Number of kinds of perturbation (knock-out, activation, ...). Each has an elementwise scale that starts at one.
    features
        ``(n_actions, p)`` fixed descriptors of the actions (gene embeddings, fingerprints), projected linearly and
        added. The learned vectors then start at zero, so that an action never seen in training is described by its
        features alone.
    dose_gate
        Scale each action by a learned monotone gate of its dose: 0 at dose 0, one at ``dose_ref`` to begin with.
    dose_ref
        Dose at which the gate starts at one.

    Raises
    ------
    ValueError
        For sizes that don't fit or features that are not finite.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import PerturbationEncoder
    >>> encoder = PerturbationEncoder(3, n_cond=4, dose_gate=True)
    >>> a, b, both = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]])
    >>> c = encoder(torch.stack([a, b, both]), dose=torch.ones(3))
    >>> torch.allclose(c[0] + c[1], c[2])
    True
    """

    features: Tensor | None

    check_values: bool = True
    """Whether doses and kinds are looked at; :func:`torch.vmap` can't, and turns it off for values checked before."""

    def __init__(
        self,
        n_actions: int,
        n_cond: int = 32,
        *,
        n_kinds: int = 0,
        features: Tensor | npt.ArrayLike | None = None,
        dose_gate: bool = False,
        dose_ref: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_actions = require_positive_int(n_actions, "n_actions")
        self.n_cond = require_positive_int(n_cond, "n_cond")
        self.n_kinds = require_positive_int(n_kinds, "n_kinds", minimum=0)
        self.embedding = nn.Linear(n_actions, n_cond, bias=False)
        self.register_buffer("features", None)
        self.projection: nn.Linear | None = None
        if features is not None:
            fixed = torch.as_tensor(features if isinstance(features, Tensor) else np.asarray(features))
            fixed = fixed.detach().to(self.embedding.weight.dtype).clone()
            if fixed.ndim != 2 or len(fixed) != n_actions or not torch.isfinite(fixed).all():
                raise ValueError(
                    f"features of shape {tuple(fixed.shape)}: expected finite numbers, one row for each of the "
                    f"{n_actions} actions."
                )
            self.features = fixed
            self.projection = nn.Linear(fixed.shape[1], n_cond, bias=False)
            nn.init.zeros_(self.embedding.weight)
        self.kind = nn.Embedding(n_kinds, n_cond) if n_kinds else None
        if self.kind is not None:
            nn.init.ones_(self.kind.weight)
        self.gate = DoseGate(dose_ref) if dose_gate else None

    def forward(self, actions: Tensor, *, dose: Tensor | None = None, kind: Tensor | None = None) -> Tensor:
        """Embed actions.

        Parameters
        ----------
        actions
            ``(..., n_actions)`` multi-hot; an action listed twice counts once. All zeros is the control: the zero vector.
        dose
            ``(...)`` one dose for the whole row, or ``(..., n_actions)`` one for each action; not negative. Needed if,
            and only if, the encoder has a dose gate.
        kind
            ``(...)`` codes of kinds. Needed if, and only if, the encoder has kinds.

        Returns
        -------
        ``(..., n_cond)``.

        Raises
        ------
        ValueError
            For wrong shapes, negative or missing doses, unknown kinds, or an argument the encoder was not made for.
        """
        if actions.shape[-1:] != (self.n_actions,):
            raise ValueError(f"actions have shape {tuple(actions.shape)}: expected (..., {self.n_actions}) multi-hot.")
        weights = actions.to(self.embedding.weight.dtype).clamp(max=1)
        if self.gate is not None:
            weights = weights * self.gate(self._checked_dose(dose, actions.shape).to(weights.dtype))
        elif dose is not None:
            raise ValueError("dose was given, but the encoder was made without dose_gate=True.")
        out = self.embedding(weights)
        if self.projection is not None and self.features is not None:
            out = out + self.projection(weights @ self.features)
        if self.kind is not None:
            out = out * self.kind(self._checked_kind(kind, actions.shape[:-1]))
        elif kind is not None:
            raise ValueError("kind was given, but the encoder was made with n_kinds=0.")
        return out

    def _checked_dose(self, dose: Tensor | None, shape: torch.Size) -> Tensor:
        if dose is None:
            raise ValueError("dose is missing: this encoder has a dose gate. Give one dose a row.")
        if dose.shape not in (shape, shape[:-1]):
            raise ValueError(f"dose has shape {tuple(dose.shape)}: expected {tuple(shape[:-1])} or {tuple(shape)}.")
        if self.check_values and not (torch.isfinite(dose) & (dose >= 0)).all():
            bad = dose[~(torch.isfinite(dose) & (dose >= 0))]
            raise ValueError(f"{len(bad)} doses are negative or not finite, for example {bad[0].item():g}.")
        return dose if dose.shape == shape else dose.unsqueeze(-1)

    def _checked_kind(self, kind: Tensor | None, shape: torch.Size) -> Tensor:
        if kind is None:
            raise ValueError(f"kind is missing: this encoder has {self.n_kinds} kinds. Give one code a row.")
        if kind.is_floating_point() or kind.shape != shape:
            raise ValueError(f"kind is {kind.dtype} of shape {tuple(kind.shape)}: expected whole codes {tuple(shape)}.")
        if self.check_values and kind.numel() and not (0 <= int(kind.min()) and int(kind.max()) < self.n_kinds):
            raise ValueError(
                f"kind codes run from {int(kind.min())} to {int(kind.max())}: expected 0 to {self.n_kinds - 1}."
            )
        return kind.long()
