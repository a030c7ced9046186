"""The Variance Concentration Loss as one file of PyTorch, for trainers written in Python (TRL, open-instruct).

    out = model(**batch, output_hidden_states=True)
    mask = batch["labels"] != -100                       # completion tokens
    loss = out.loss + vcl_loss(out.hidden_states, mask, k=4, gamma=50, window=(0.3, 0.5), sign="spread")

C_k = ||R V_k||^2 / ||R||^2, with R the centred residual rows of the window's blocks and V_k their k leading right singular
vectors. V_k is held constant, which leaves the gradient exactly (2/||R||^2)(R V_k V_k^T - C_k R): nothing is differentiated
through a decomposition. It is the same mathematics as `vcl-train --aux vcl:...`, and the reference of its parity test.

hidden_states[i + 1] is what block i gives, except for the last block, whose entry transformers takes after the final norm:
windows that end before depth 1 are the same in both programs.
"""

import torch


def window_layers(window, layer_count):
    """Blocks l (from 0) with a <= (l + 1) / L <= b."""
    low, high = window
    return [l for l in range(layer_count) if low - 1e-9 <= (l + 1) / layer_count <= high + 1e-9]


def concentration(rows, k):
    """C_k of rows (n, d) and its gradient, through V_k held constant."""
    rows = rows.float()
    centred = rows - rows.mean(0, keepdim=True)
    with torch.no_grad():
        small = centred if centred.shape[0] <= centred.shape[1] else None
        if small is not None:  # eigenvectors of R R^T, carried over to the dimensions
            values, left = torch.linalg.eigh((centred @ centred.T).double())
            basis = centred.double().T @ left[:, -k:] / values[-k:].clamp_min(1e-30).sqrt()
        else:
            basis = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors[:, -k:]
        basis = basis.to(centred.dtype)
    return (centred @ basis).square().sum() / centred.square().sum()


def vcl_loss(hidden_states, mask, k=4, gamma=50.0, window=(0.3, 0.5), sign="spread", pool="window"):
    """hidden_states as transformers gives them, mask (batch, seq) of the positions that are rows."""
    layers = window_layers(window, len(hidden_states) - 1)
    if not layers:
        raise ValueError(f"window {window} holds no block of {len(hidden_states) - 1}")
    rows = [hidden_states[layer + 1][mask] for layer in layers]
    if pool == "window":
        c_k = concentration(torch.cat(rows), k)
    else:
        c_k = torch.stack([concentration(part, k) for part in rows]).mean()
    return gamma * {"spread": 1.0, "concentrate": -1.0}[sign] * c_k
