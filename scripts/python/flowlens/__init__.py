"""Reads and writes flowlens' containers and records in Python, and measures models that train there.

    import flowlens

    dump = flowlens.read("dump.acts")            # a mapping from tensor names to numpy arrays; nothing is decoded yet
    dump["resid_post.3"]                         # all rows; a view of the file where the container is `stored`
    dump.rows("resid_post.3", 100, 200)          # some rows: only their blocks are read
    dump.torch("resid_post.3")                   # as a tensor of PyTorch, bf16 included
    flowlens.write("mine.acts", {"resid_post.3": array})

    flowlens.records("layers.jsonl", "layer")    # checked rows, a list of dicts
    flowlens.frame("layers.jsonl", "layer")      # as a pandas DataFrame

    with flowlens.Dump(model, "dump.acts") as dump:         # a model of transformers; sites named as resid-dump names them
        dump.run(tokenizer, prompts)
    Trainer(..., callbacks=[flowlens.Monitor(tokenizer, prompts, "watched")])

Needs numpy, zstandard and blake3. pandas is needed by `frame`, PyTorch by `Container.torch`, `Dump`, `Monitor` and `flowlens.vcl`,
transformers by `Monitor`. What the formats are: the man pages acts(5) and records(5).
"""

from typing import TYPE_CHECKING, Any

from .container import Container, read
from .header import Refused, Spec
from .stream import frame, records
from .version import VERSION as __version__
from .writer import write

if TYPE_CHECKING:
    from .hooks import Dump
    from .monitor import Monitor

__all__ = ["Container", "Dump", "Monitor", "Refused", "Spec", "__version__", "frame", "read", "records", "write"]


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when it is asked for."""
    if name == "Dump":
        from .hooks import Dump

        return Dump
    if name == "Monitor":
        from .monitor import Monitor

        return Monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
