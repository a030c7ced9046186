"""What flowlens-pca measures of rows, in numpy: concentration, participation, norms, leading directions, moments."""

from typing import Any, NamedTuple, Optional

import numpy as np

__all__ = ["Geometry", "alignment", "geometry", "moments", "window_layers"]

Array = np.ndarray[Any, Any]
CONCENTRATION_COUNTS = (1, 2, 3, 4, 8)


class Geometry(NamedTuple):
    """Measures of the rows of one layer; without variance there is no concentration, no participation ratio and no direction."""

    row_count: int
    norm_mean: float
    c_k: dict[str, float]
    participation_ratio: Optional[float]
    component: Optional[Array]


def geometry(rows: Array) -> Geometry:
    """Of rows (n, d), centred by their mean, in f64."""
    rows = np.asarray(rows, np.float64)
    centred = rows - rows.mean(0)
    # The smaller of the two products has the same eigenvalues, and its vectors lead to those of the other.
    is_wide = centred.shape[0] <= centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    values, total = np.maximum(values[::-1], 0.0), float(np.square(centred).sum())
    norm_mean = float(np.linalg.norm(rows, axis=1).mean())
    if total <= 0.0:
        return Geometry(len(rows), norm_mean, {}, None, None)
    leading = centred.T @ vectors[:, -1] if is_wide else vectors[:, -1]
    shares = {str(k): min(float(values[:k].sum() / total), 1.0) for k in CONCENTRATION_COUNTS}
    ratio = float(values.sum() ** 2 / np.square(values).sum())
    return Geometry(len(rows), norm_mean, shares, ratio, leading / np.linalg.norm(leading))


def alignment(a: Array, b: Array) -> float:
    """|cos| of two directions."""
    return min(float(abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))), 1.0)


def window_layers(window: tuple[float, float], layer_count: int) -> list[int]:
    """Blocks l (from 0) with a <= (l + 1) / L <= b."""
    low, high = window
    return [layer for layer in range(layer_count) if low - 1e-9 <= (layer + 1) / layer_count <= high + 1e-9]


def moments(rows: Array) -> dict[str, Array]:
    """The five parts of an accumulation as a container holds them (man 5 acts, TENSORS OF A DUMP)."""
    rows = np.asarray(rows, np.float64)
    count, width = rows.shape
    mean = rows.mean(0) if count else np.zeros(width)
    centred, norms = rows - mean, np.linalg.norm(rows, axis=1)
    units = np.divide(rows, norms[:, None], out=np.zeros_like(rows), where=norms[:, None] > 0)
    m2 = (centred.T @ centred)[np.triu_indices(width)] if count else np.zeros(0)
    return {
        "count": np.array([count], np.int64), "mean": mean[None], "m2": m2, "norm_sum": norms.sum()[None], "unit_sum": units.sum(0)[None],
    }
