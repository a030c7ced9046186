"""What the paper's code does: one full forward pass of the whole prompt for every alpha, with hooks that write and read.

Shared by the parity check and the benchmark; needs torch and transformers.
"""

import torch


def first(value):
    return value[0] if isinstance(value, tuple) else value


def anatomy(model):
    """Blocks, final norm and head of a transformers model."""
    for path, norm in (("model.layers", "model.norm"), ("transformer.h", "transformer.ln_f"), ("gpt_neox.layers", "gpt_neox.final_layer_norm")):
        try:
            return model.get_submodule(path), model.get_submodule(norm), model.get_output_embeddings()
        except AttributeError:
            continue
    raise SystemExit(f"{type(model).__name__}: no known list of blocks")


class Hooked:
    def __init__(self, model):
        self.model = model.eval()
        self.blocks, self.norm, self.head = anatomy(model)

    @torch.no_grad()
    def clean(self, tokens, layer):
        """The residual after block `layer` at the last position."""
        seen = {}
        handle = self.blocks[layer].register_forward_hook(lambda m, i, o: seen.__setitem__("x", first(o)[0, -1].clone()))
        self.model(torch.tensor([tokens]))
        handle.remove()
        return seen["x"]

    @torch.no_grad()
    def answer(self, tokens, layer, points, read_layer, read):
        """F(X) for every row X of `points`, (n, hidden): all rows in one batch, the whole prompt each time."""
        seen = {}

        def write(module, inputs, output):
            hidden = first(output).clone()
            hidden[:, -1] = points
            return (hidden,) + output[1:] if isinstance(output, tuple) else hidden

        handles = [
            self.blocks[layer].register_forward_hook(write),
            self.blocks[read_layer].register_forward_hook(lambda m, i, o: seen.__setitem__("x", first(o)[:, -1].clone())),
        ]
        self.model(torch.tensor([tokens] * len(points)))
        for handle in handles:
            handle.remove()
        if read == "pre-norm":
            return seen["x"]
        normed = self.norm(seen["x"])
        return normed if read == "post-norm" else self.scores(normed)

    def scores(self, normed):
        scores = self.head(normed)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return scores if cap is None else torch.tanh(scores / cap) * cap

    def sweep(self, tokens_a, tokens_b, layer, read_layer, steps, read="post-norm", batch=1):
        """Clean ends and F along the straight way, `batch` alphas at a time."""
        a, b = self.clean(tokens_a, layer), self.clean(tokens_b, layer)
        alphas = torch.linspace(0, 1, steps, dtype=torch.float64)
        points = torch.stack([(a.double() + t * (b.double() - a.double())).to(a.dtype) for t in alphas])
        rows = [self.answer(tokens_a, layer, points[i : i + batch], read_layer, read) for i in range(0, steps, batch)]
        return a, b, torch.cat(rows)


def curve(distance, reads, scores):
    """The scaled distance along a sweep; None where it is not defined."""
    reads = reads.double()
    from_a = (reads - reads[0]).norm(dim=-1)
    if distance == "l2":
        return from_a / from_a[-1]
    if distance == "relative":
        from_b = (reads - reads[-1]).norm(dim=-1)
        return from_a / (from_a + from_b)
    logs = scores.double().log_softmax(-1)
    if distance == "kl":
        kl = (logs[0].exp() * (logs[0] - logs)).sum(-1)
        return kl / kl[-1]
    one, other = scores[0].argmax(), scores[-1].argmax()
    if one == other:
        return None
    lead = (scores[:, one] - scores[:, other]).double()
    return (lead[0] - lead) / (lead[0] - lead[-1])
