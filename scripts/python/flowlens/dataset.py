"""A dump as a data set of Hugging Face, in the columns in which SAELens keeps cached activations: one row per context, a column
`blocks.L.hook_resid_post` of (context, width) for each tensor, and `token_ids`. Needs the package datasets."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from . import sites
from .container import Container, read
from .header import need

if TYPE_CHECKING:
    import datasets

__all__ = ["to_dataset"]


def to_dataset(source: Union[str, "os.PathLike[str]", Container], context: Optional[int] = None) -> "datasets.Dataset":
    """A dump of all positions, each sample cut into contexts of `context` tokens; what is left over at a sample's end is not taken. Without
    `context` every sample must have as many tokens as the others."""
    import datasets

    dump = source if isinstance(source, Container) else read(source)
    names = [name for name in dump if dump.spec(name).role == "activations" and sites.alias(name)]
    need(names, f"{dump.path}: holds no activations that TransformerLens has a name for")
    need("sample_index" in dump and "token_id" in dump, f"{dump.path}: has no row tables")
    starts = list(_contexts(dump, context))
    need(starts, f"{dump.path}: no sample has {context} tokens")
    length = starts[0][1]
    columns = {str(sites.alias(name)): (dump.shape(name)[1], name) for name in names}
    features = {hook: datasets.Array2D((length, width), "float32") for hook, (width, _) in columns.items()}
    features["token_ids"] = datasets.Sequence(datasets.Value("int32"), length=length)

    def rows() -> Iterator[dict[str, Any]]:
        tokens = dump["token_id"].astype(np.int32)
        for start, size in starts:
            row = {hook: dump.rows(name, start, start + size).astype(np.float32) for hook, (_, name) in columns.items()}
            yield row | {"token_ids": tokens[start : start + size]}

    return datasets.Dataset.from_list(list(rows()), features=datasets.Features(features))


def _contexts(dump: Container, context: Optional[int]) -> Iterator[tuple[int, int]]:
    """First row and length of each context."""
    sample = dump["sample_index"]
    ends = np.append(np.flatnonzero(np.diff(sample)) + 1, len(sample))
    starts = np.append(0, ends[:-1])
    lengths = set((ends - starts).tolist())
    need(context is not None or len(lengths) == 1, f"{dump.path}: samples of {min(lengths)} to {max(lengths)} tokens: give a context")
    size = context or lengths.pop()
    for start, end in zip(starts.tolist(), ends.tolist()):
        for first in range(start, end - size + 1, size):
            yield first, size
