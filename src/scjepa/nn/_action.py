"""The encoder of actions: a set of perturbed genes or drugs, their kind, dose and duration, as one vector."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from scjepa._checks import require_positive_int
from scjepa.nn._position import SinusoidalPositionEmbeddings

TIME_DIMS = 16
"""Length of the embedding of a time with ``time=True``."""


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


class TimeEmbedding(nn.Module):
    r"""Sines and cosines of a duration on a log scale, :math:`e(2 \pi u)`, :math:`u = \log(1 + t) / \log(1 + t_{ref})`.

    Periods run from 1 to about 16 in u, so that what differs by a few hours in a day, or by a day in a month, is told
    apart, and durations in between lie in between.

    Parameters
    ----------
    dim
        Length of the embedding.
    time_ref
        A typical duration, in the unit of the times.
    """

    def __init__(self, dim: int, time_ref: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(time_ref) and time_ref > 0):
            raise ValueError(f"time_ref={time_ref!r}: expected a positive number, for example the longest time.")
        self.unit = 2 * math.pi / math.log1p(time_ref)
        self.waves = SinusoidalPositionEmbeddings(dim, max_period=16.0)

    def forward(self, time: Tensor) -> Tensor:
        """Return embeddings ``(..., dim)`` of times ``(...)``."""
        return self.waves(self.unit * torch.log1p(time))


class ActionEncoder(nn.Module):
    r"""Embed what was done to a cell: the sum over its items, so that order is free and combinations are additive.

    .. math::

        c = \kappa_k \odot \Big(1 + W e(t)\Big) \odot \sum_{i} g(d_i)\, (v_i + P f_i)

    with learned vectors v, fixed features f of the items, a gate g of their doses, a scale :math:`\kappa` for each kind
    and an embedding e of the duration t; any of them may be absent. W starts at zero: training starts as if durations
    were not told. No items is the zero vector, whatever the kind, dose and duration.

    With ``n_actions=0`` elapsed time is the whole action: :math:`c = \kappa_k \odot W (e(t) - e(0))`, zero at t = 0.

    Parameters
    ----------
    n_actions
        Number of known items (genes, drugs, modalities); 0 when the action is that time passes.
    n_cond
        Dimensions of the embedding.
    learned
        Give each item a vector of its own; without, an item is its features.
    features
        ``(n_actions, p)`` fixed descriptors of the items (gene embeddings, fingerprints), projected linearly and
        added. The learned vectors then start at zero, so that an item never seen in training is described by its
        features alone.
    n_kinds
        Number of kinds of action (knock-out, activation, ...). Each has an elementwise scale that starts at one.
    dose_gate
        Scale each item by a learned monotone gate of its dose: 0 at dose 0, one at ``dose_ref`` to begin with.
    dose_ref
        Dose at which the gate starts at one.
    time
        Length of the embedding of durations (True: 16); 0 if they are not told.
    time_ref
        A typical duration, in the unit of the times.

    Raises
    ------
    ValueError
        For sizes that don't fit, features that are not finite, and an encoder that would be told nothing.

    References
    ----------
    Sums over sets of items: Zaheer et al. Deep sets. arXiv:1703.06114.

    Examples
    --------
    >>> import torch
    >>> from scjepa.nn import ActionEncoder
    >>> encoder = ActionEncoder(3, n_cond=4, dose_gate=True)
    >>> a, b, both = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]])
    >>> c = encoder(torch.stack([a, b, both]), dose=torch.ones(3))
    >>> torch.allclose(c[0] + c[1], c[2])
    True

    Molecules by their fingerprints, for some hours:

    >>> fingerprints = torch.eye(5)[:3]
    >>> encoder = ActionEncoder(3, n_cond=4, features=fingerprints, time=8, time_ref=24.0)
    >>> encoder(torch.stack([a, both]), time=torch.tensor([6.0, 24.0])).shape
    torch.Size([2, 4])

    Nothing but time:

    >>> ActionEncoder(0, n_cond=4, time=8)(time=torch.tensor([0.0, 2.0])).abs().sum(1) > 0
    tensor([False,  True])
    """

    features: Tensor | None

    check_values: bool = True
    """Whether doses, kinds and times are looked at; :func:`torch.vmap` can't, and turns it off for values checked before."""

    def __init__(
        self,
        n_actions: int,
        n_cond: int = 32,
        *,
        learned: bool = True,
        features: Tensor | npt.ArrayLike | None = None,
        n_kinds: int = 0,
        dose_gate: bool = False,
        dose_ref: float = 1.0,
        time: bool | int = False,
        time_ref: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_actions = require_positive_int(n_actions, "n_actions", minimum=0)
        self.n_cond = require_positive_int(n_cond, "n_cond")
        self.n_kinds = require_positive_int(n_kinds, "n_kinds", minimum=0)
        n_time = require_positive_int(TIME_DIMS if time is True else int(time), "time", minimum=0)
        self._check_parts(learned, features is not None, dose_gate, n_time)
        # parts are made in this order whatever is absent: a seed gives them the same numbers
        self.embedding = nn.Linear(n_actions, n_cond, bias=False) if learned and n_actions else None
        self.register_buffer("features", None)
        self.projection: nn.Linear | None = None
        if features is not None:
            self.features = self._checked_features(features)
            self.projection = nn.Linear(self.features.shape[1], n_cond, bias=False)
            if self.embedding is not None:
                nn.init.zeros_(self.embedding.weight)
        self.kind = nn.Embedding(n_kinds, n_cond) if n_kinds else None
        if self.kind is not None:
            nn.init.ones_(self.kind.weight)
        self.gate = DoseGate(dose_ref) if dose_gate else None
        self.clock = TimeEmbedding(n_time, time_ref) if n_time else None
        self.time = nn.Linear(n_time, n_cond, bias=False) if n_time else None
        if self.time is not None and n_actions:
            nn.init.zeros_(self.time.weight)

    def _check_parts(self, learned: bool, features: bool, dose_gate: bool, n_time: int) -> None:
        """Raise unless there is something to be told, and something for each part to work on."""
        if self.n_actions:
            if not (learned or features):
                raise ValueError("learned=False without features: nothing would tell the items apart. Give features.")
        elif not n_time:
            raise ValueError("n_actions=0 and time=False: there is no action. Give n_actions, or time=True.")
        elif features or dose_gate:
            raise ValueError("n_actions=0: there are no items that features or dose_gate could belong to.")

    def _checked_features(self, features: Tensor | npt.ArrayLike) -> Tensor:
        fixed = torch.as_tensor(features if isinstance(features, Tensor) else np.asarray(features))
        fixed = fixed.detach().to(torch.get_default_dtype()).clone()
        if fixed.ndim != 2 or len(fixed) != self.n_actions or not torch.isfinite(fixed).all():
            raise ValueError(
                f"features of shape {tuple(fixed.shape)}: expected finite numbers, one row for each of the "
                f"{self.n_actions} actions."
            )
        return fixed

    def forward(
        self,
        actions: Tensor | None = None,
        *,
        dose: Tensor | None = None,
        kind: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        """Embed actions.

        Parameters
        ----------
        actions
            ``(..., n_actions)`` multi-hot; an item listed twice counts once. All zeros is the control: the zero vector.
            Needed if, and only if, the encoder has items.
        dose
            ``(...)`` one dose for the whole row, or ``(..., n_actions)`` one for each item; not negative. Needed if,
            and only if, the encoder has a dose gate.
        kind
            ``(...)`` codes of kinds. Needed if, and only if, the encoder has kinds.
        time
            ``(...)`` durations, not negative. Needed if, and only if, the encoder is told time.

        Returns
        -------
        ``(..., n_cond)``.

        Raises
        ------
        ValueError
            For wrong shapes, negative or missing doses or times, unknown kinds, or an argument the encoder was not made
            for.
        """
        if self.n_actions:
            if actions is None:
                raise ValueError(f"actions are missing: this encoder has {self.n_actions} items. Give a multi-hot row.")
            shape = actions.shape[:-1]
            out = self._items(actions, dose)
        else:
            if actions is not None or dose is not None:
                raise ValueError("actions or doses were given, but the encoder was made with n_actions=0.")
            shape = torch.Size() if time is None else time.shape
            out = None
        if self.clock is not None and self.time is not None:
            waves = self.clock(self._checked_time(time, shape).to(self.time.weight.dtype))
            if out is None:
                out = self.time(waves - self.clock(torch.zeros_like(waves[..., 0])))
            else:
                out = out * (1 + self.time(waves))
        elif time is not None:
            raise ValueError("time was given, but the encoder was made with time=False.")
        assert out is not None  # without items there is time
        if self.kind is not None:
            out = out * self.kind(self._checked_kind(kind, shape))
        elif kind is not None:
            raise ValueError("kind was given, but the encoder was made with n_kinds=0.")
        return out

    def _items(self, actions: Tensor, dose: Tensor | None) -> Tensor:
        """Return the sum over the items of each row, each as its dose has it."""
        if actions.shape[-1:] != (self.n_actions,):
            raise ValueError(f"actions have shape {tuple(actions.shape)}: expected (..., {self.n_actions}) multi-hot.")
        dtype = next(self.parameters()).dtype
        weights = actions.to(dtype).clamp(max=1)
        if self.gate is not None:
            weights = weights * self.gate(self._checked_dose(dose, actions.shape).to(dtype))
        elif dose is not None:
            raise ValueError("dose was given, but the encoder was made without dose_gate=True.")
        out = None if self.embedding is None else self.embedding(weights)
        if self.projection is not None and self.features is not None:
            described = self.projection(weights @ self.features)
            out = described if out is None else out + described
        assert out is not None  # items are learned or have features
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

    def _checked_time(self, time: Tensor | None, shape: torch.Size) -> Tensor:
        if time is None:
            raise ValueError("time is missing: this encoder is told how long an action lasts. Give one time a row.")
        if time.shape != shape:
            raise ValueError(f"time has shape {tuple(time.shape)}: expected {tuple(shape)}, one time a row.")
        if self.check_values and not (torch.isfinite(time) & (time >= 0)).all():
            bad = time[~(torch.isfinite(time) & (time >= 0))]
            raise ValueError(f"{len(bad)} times are negative or not finite, for example {bad[0].item():g}.")
        return time


PerturbationEncoder = ActionEncoder
"""The name in the literature of perturbation screens."""
