"""The Variance Concentration Loss in PyTorch, for trainers written in Python (TRL, open-instruct); examples/trl_vcl.py is a whole one.

    vcl = Vcl(model, k=4, gamma=50, window=(0.3, 0.5), sign="spread")      # once
    loss = model(**batch).loss + vcl(batch["labels"] != -100)              # in every step: rows are completion tokens

    out = model(**batch, output_hidden_states=True)                        # or, with hidden states at hand
    loss = out.loss + vcl_loss(out.hidden_states, batch["labels"] != -100, k=4, gamma=50, window=(0.3, 0.5), sign="spread")

`Vcl` takes the rows where the blocks of the window give them, so it works inside trainers that compute their outputs again without
gradients.

C_k = ||R V_k||^2 / ||R||^2, with R the centred residual rows of the window's blocks and V_k their k leading right singular
vectors. V_k is held constant, which leaves the gradient exactly (2/||R||^2)(R V_k V_k^T - C_k R): nothing is differentiated
through a decomposition. It is the same mathematics as `vcl-train --aux vcl:...`, and the reference of its parity test.

hidden_states[i + 1] is what block i gives, except for the last block, whose entry transformers takes after the final norm: for a
window that reaches depth 1, `vcl_loss` is not the loss of `vcl-train`, `Vcl` is.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .measures import window_layers

__all__ = ["Vcl", "concentration", "vcl_loss", "window_layers"]

_SIGNS = {"spread": 1.0, "concentrate": -1.0}


def concentration(rows: torch.Tensor, k: int) -> torch.Tensor:
    """C_k of rows (n, d) and its gradient, through V_k held constant."""
    rows = rows.float()
    centred = rows - rows.mean(0, keepdim=True)
    with torch.no_grad():
        if centred.shape[0] <= centred.shape[1]:  # eigenvectors of R R^T, carried over to the dimensions
            values, left = torch.linalg.eigh((centred @ centred.T).double())
            basis = centred.double().T @ left[:, -k:] / values[-k:].clamp_min(1e-30).sqrt()
        else:
            basis = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors[:, -k:]
        basis = basis.to(centred.dtype)
    share: torch.Tensor = (centred @ basis).square().sum() / centred.square().sum()
    return share


def vcl_loss(
    hidden_states: Sequence[torch.Tensor],
    mask: torch.Tensor,
    k: int = 4,
    gamma: float = 50.0,
    window: tuple[float, float] = (0.3, 0.5),
    sign: str = "spread",
    pool: str = "window",
) -> torch.Tensor:
    """hidden_states as transformers gives them, mask (batch, seq) of the positions that are rows."""
    layers = window_layers(window, len(hidden_states) - 1)
    if not layers:
        raise ValueError(f"window {window} holds no block of {len(hidden_states) - 1}")
    return _loss([hidden_states[layer + 1][mask] for layer in layers], k, gamma, sign, pool)


class Vcl:
    """The loss of a model's own forward passes. Each call takes the rows of the last pass that had gradients."""

    def __init__(
        self, model: torch.nn.Module, k: int = 4, gamma: float = 50.0, window: tuple[float, float] = (0.3, 0.5), sign: str = "spread", pool: str = "window"
    ) -> None:
        from .hooks import blocks, decoder

        modules = blocks(model)
        self.layers = window_layers(window, len(modules))
        if not self.layers:
            raise ValueError(f"window {window} holds no block of {len(modules)}")
        self.k, self.gamma, self.sign, self.pool = k, gamma, sign, pool
        self.hidden: dict[int, torch.Tensor] = {}
        self.is_open = False
        # A block that is computed again for its gradients (checkpointing) runs without the decoder around it.
        self.handles = [decoder(model).register_forward_pre_hook(self._open)]
        self.handles += [modules[layer].register_forward_hook(self._take(layer)) for layer in self.layers]

    def _open(self, *_: Any) -> None:
        self.is_open = torch.is_grad_enabled()
        if self.is_open:
            self.hidden.clear()

    def _take(self, layer: int) -> Any:
        def hook(_: torch.nn.Module, args: Any, output: Any) -> None:
            if self.is_open:
                self.hidden[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def __call__(self, mask: torch.Tensor) -> torch.Tensor:
        """The loss over the positions of mask (batch, seq)."""
        if len(self.hidden) != len(self.layers):
            raise ValueError("the model has not run with gradients since the last call")
        rows = [self.hidden[layer][mask] for layer in self.layers]
        self.hidden.clear()
        self.is_open = False
        return _loss(rows, self.k, self.gamma, self.sign, self.pool)

    def remove(self) -> None:
        """Takes the hooks off the model."""
        for handle in self.handles:
            handle.remove()


def _loss(rows: list[torch.Tensor], k: int, gamma: float, sign: str, pool: str) -> torch.Tensor:
    if pool not in ("window", "layer") or sign not in _SIGNS:
        raise ValueError(f"pool {pool!r} is not window or layer, or sign {sign!r} not spread or concentrate")
    if torch.is_grad_enabled() and not rows[0].requires_grad:
        raise ValueError("the hidden states have no gradients, so the loss would change nothing: take it with Vcl")
    if pool == "window":
        c_k = concentration(torch.cat(rows), k)
    else:
        c_k = torch.stack([concentration(part, k) for part in rows]).mean()
    return gamma * _SIGNS[sign] * c_k
