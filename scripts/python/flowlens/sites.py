"""Where in a model a tensor was taken: our names, and those of TransformerLens and SAELens for the same places."""

import re
from typing import Optional

__all__ = ["ONCE", "SITES", "alias", "parse", "resolve"]

ONCE = ("embed", "final_norm", "logits")
SITES = (
    "embed", "resid_pre", "resid_mid", "resid_post", "q_proj", "k_proj", "q", "k", "v", "attn_logit_max", "attn_in", "attn_proj",
    "attn_out", "mlp_in", "mlp_proj", "mlp_out", "mlp_gate", "mlp_act", "mlp_up", "router_logits", "expert_choice", "final_norm", "logits",
)

# What TransformerLens calls the same numbers, where it keeps them: its final norm is another thing where weights were folded, and
# its names of the inputs of projections stand for arrays of another shape.
_HOOKS = {
    "resid_pre": "blocks.{}.hook_resid_pre", "resid_mid": "blocks.{}.hook_resid_mid", "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out", "mlp_out": "blocks.{}.hook_mlp_out", "mlp_gate": "blocks.{}.mlp.hook_pre",
}
_OURS = {hook.split(".", 2)[2]: site for site, hook in _HOOKS.items()}


def parse(name: str) -> Optional[tuple[str, Optional[int]]]:
    """Site and layer of a tensor's name; none where the name is not of a site."""
    if name in ONCE:
        return name, None
    site, dot, layer = name.rpartition(".")
    if dot and site in SITES and site not in ONCE and layer.isascii() and layer.isdigit():
        return site, int(layer)
    return None


def alias(name: str) -> Optional[str]:
    """What TransformerLens and SAELens call this tensor; none where they have no name for it."""
    found = parse(name)
    if found is None or found[0] not in _HOOKS:
        return None
    return _HOOKS[found[0]].format(found[1])


def resolve(name: str) -> str:
    """Our name of `blocks.3.hook_resid_post`; any other name as it is."""
    found = re.fullmatch(r"blocks\.([0-9]+)\.(.+)", name)
    return f"{_OURS[found[2]]}.{int(found[1])}" if found and found[2] in _OURS else name
