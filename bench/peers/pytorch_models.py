"""The families in eager PyTorch, as one would write them by hand: logits of every position, one
token with a state, and the training loss. Shapes are (batch, time, ...)."""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Weights(nn.Module):
    """Tensors of a file, looked up by their names there; experts stacked by layer."""

    def __init__(self, model):
        super().__init__()
        self.c = model
        self.items = nn.ParameterDict()
        for name, value in model.tensors.items():
            if ".experts." not in name:
                self.items[name.replace(".", "/")] = nn.Parameter(torch.tensor(value))
        for layer in sorted(model.moe):
            for part, names in self.expert_names(layer).items():
                stack = torch.stack([torch.tensor(model.tensors[n]) for n in names])
                self.items[f"experts/{layer}/{part}"] = nn.Parameter(stack)

    def expert_names(self, layer):
        prefix, parts = f"layers.{layer}.moe.layer.experts.", ("w1", "w2")
        if self.c.family == "itera-m":
            prefix = f"model.layers.{layer}.feed_forward.experts."
            parts = ("gate_proj", "up_proj", "down_proj")
        return {p: [f"{prefix}{e}.{p}.weight" for e in range(self.c.experts)] for p in parts}

    def gradient(self, name):
        """Of a tensor of the file."""
        for layer in self.c.moe:
            for part, names in self.expert_names(layer).items():
                if name in names:
                    return self.items[f"experts/{layer}/{part}"].grad[names.index(name)]
        return self.w(name).grad

    def w(self, name):
        return self.items[name.replace(".", "/")]

    def layer_norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w(name + ".weight"), self.w(name + ".bias"),
                            self.c.eps)

    def rms_norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.w(name + ".weight"), self.c.eps)

    def drop(self, x):
        return F.dropout(x, self.c.dropout, self.training)


def causal_conv(x, weight, bias, state):
    """Depthwise convolution over time and SiLU; state (batch, channels, width - 1) is what came
    before. Returns (y, state)."""
    x = x.transpose(1, 2)
    x = F.pad(x, (weight.shape[-1] - 1, 0)) if state is None else torch.cat([state, x], 2)
    y = F.conv1d(x, weight, bias, groups=weight.shape[0])
    return F.silu(y).transpose(1, 2), x[:, :, 1 - weight.shape[-1]:]


def scan_loop(decay, value, state):
    """h[t] = decay[t] h[t-1] + value[t], step by step; (batch, time, ...) all."""
    h = torch.zeros_like(value[:, 0]) if state is None else state
    out = []
    for a, b in zip(decay.unbind(1), value.unbind(1)):
        h = torch.addcmul(b, a, h)
        out.append(h)
    return torch.stack(out, 1), h


def scan_matrix(log_decay, value, state):
    """The same with decay = exp(log_decay), as one product with the lower triangular matrix of
    decays between any two steps: T^2 work, but no loop. (batch, time, states)."""
    total = log_decay.cumsum(1).transpose(1, 2)
    between = total[..., :, None] - total[..., None, :]
    lower = torch.ones(between.shape[-2:], dtype=torch.bool, device=value.device).tril()
    decay = between.masked_fill(~lower, -math.inf).exp()
    h = (decay @ value.transpose(1, 2)[..., None]).squeeze(-1)
    if state is not None:
        h = h + total.exp() * state[..., None]
    return h.transpose(1, 2), h[..., -1]


def balance_loss(model, logits, index):
    """The auxiliary loss of one router."""
    share = logits.softmax(-1).reshape(-1, model.experts).mean(0)
    if model.family == "itera":
        return model.aux_weight * (share.std() / (share.mean() + 1e-6)) ** 2
    load = F.one_hot(index, model.experts).float().reshape(-1, index.shape[-1], model.experts)
    return model.aux_weight * model.experts * (load.mean(0).sum(0) * share).sum()


class Network(Weights):
    """A model of any family. scan: "matrix" or "loop" (itera only; Mamba's states are too many for
    the matrix). experts: "all" computes every expert for every token and weights by zero, which
    is the fastest for small models; "chosen" gathers the tokens of each."""

    def __init__(self, model, scan="matrix", experts="all"):
        super().__init__(model)
        self.scan, self.experts_mode = scan, experts
        self.aux = []

    def route(self, x, name):
        logits = F.linear(x, self.w(name))
        if self.c.family == "itera" and self.c.top_k > 1:
            best, index = logits.topk(self.c.top_k, -1)
            weight = best.softmax(-1)
        else:
            weight, index = logits.softmax(-1).topk(self.c.top_k, -1)
        if self.training:
            self.aux.append(balance_loss(self.c, logits, index))
        return weight, index

    def expert(self, x, layer, e=slice(None)):
        """Experts e of a layer on x; all of them at a time, with x (experts, rows, hidden)."""
        up = lambda part: x @ self.w(f"experts/{layer}/{part}")[e].transpose(-1, -2)
        if self.c.family == "itera":
            h, last = F.gelu(up("w1")), "w2"
        else:
            h, last = F.silu(up("gate_proj")) * up("up_proj"), "down_proj"
        return self.drop(h) @ self.w(f"experts/{layer}/{last}")[e].transpose(-1, -2)

    def moe(self, x, layer, router):
        weight, index = self.route(x, router)
        rows = x.reshape(-1, x.shape[-1])
        weight, index = weight.reshape(len(rows), -1), index.reshape(len(rows), -1)
        if self.experts_mode == "all":
            dense = torch.zeros(len(rows), self.c.experts, dtype=x.dtype, device=x.device)
            dense = dense.scatter(1, index, weight)
            y = self.expert(rows.expand(self.c.experts, -1, -1), layer)
            return torch.einsum("erh,re->rh", y, dense).view_as(x)
        y = torch.zeros_like(rows)
        for e in range(self.c.experts):
            row, place = (index == e).nonzero(as_tuple=True)
            if len(row):
                y = y.index_add(0, row, self.expert(rows[row], layer, e)
                                * weight[row, place, None])
        return y.view_as(x)

    # ---- itera ----

    def itera_ssm(self, x, z, name, state):
        step = F.softplus(F.linear(x, self.w(name + "delta_proj.weight"),
                                   self.w(name + "delta_proj.bias"))).mean(-1, keepdim=True)
        log_decay = step * -self.w(name + "A_log").exp()
        value = step * F.linear(x, self.w(name + "B"))
        if self.scan == "matrix" and x.shape[1] > 1:
            h, state = scan_matrix(log_decay, value, state)
        else:
            h, state = scan_loop(log_decay.exp(), value, state)
        return (F.linear(h, self.w(name + "C")) + self.w(name + "D") * x) * F.silu(z), state

    def itera_layer(self, x, layer, state):
        name = f"layers.{layer}.ssm."
        h = F.linear(self.layer_norm(x, name + "norm"), self.w(name + "in_proj.weight"))
        h, z = h.chunk(2, -1)
        h, conv = causal_conv(h, self.w(name + "conv1d.weight"), self.w(name + "conv1d.bias"),
                              state[0] if state else None)
        h, ssm = self.itera_ssm(h, z, name + "ssm.", state[1] if state else None)
        x = x + self.drop(F.linear(h, self.w(name + "out_proj.weight")))
        if layer in self.c.moe:
            name = f"layers.{layer}.moe.layer."
            h = self.moe(self.layer_norm(x, name + "norm"), layer, name + "router.gate.weight")
        else:
            name = f"layers.{layer}.moe."
            h = F.gelu(F.linear(self.layer_norm(x, name + "norm"), self.w(name + "ffn.w1.weight")))
            h = F.linear(self.drop(h), self.w(name + "ffn.w2.weight"))
        return x + h, (conv, ssm)

    # ---- transformer ----

    def transformer_layer(self, x, layer, state):
        name, (batch, time, hidden) = f"blocks.{layer}.", x.shape
        h = F.linear(self.layer_norm(x, name + "ln1"), self.w(name + "attention.qkv.weight"))
        heads = lambda t: t.view(batch, time, self.c.heads, -1).transpose(1, 2)
        q, k, v = (heads(t) for t in h.chunk(3, -1))
        if state:
            k, v = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=not state)
        h = h.transpose(1, 2).reshape(batch, time, hidden)
        x = x + self.drop(F.linear(h, self.w(name + "attention.out_proj.weight")))
        h = F.gelu(F.linear(self.layer_norm(x, name + "ln2"), self.w(name + "ffn.w1.weight")))
        return x + F.linear(self.drop(h), self.w(name + "ffn.w2.weight")), (k, v)

    # ---- mamba, itera-m ----

    def mamba_mixer(self, x, name, state):
        c, w = self.c, lambda part: self.w(name + part)
        h, z = F.linear(x, w("in_proj.weight")).chunk(2, -1)
        h, conv = causal_conv(h, w("conv1d.weight"), w("conv1d.bias"),
                              state[0] if state else None)
        dt, b, cm = F.linear(h, w("x_proj.weight")).split([c.dt_rank, c.state, c.state], -1)
        if c.family == "itera-m":
            dt, b, cm = (self.rms_norm(dt, name + "dt_layernorm"),
                         self.rms_norm(b, name + "b_layernorm"),
                         self.rms_norm(cm, name + "c_layernorm"))
        dt = F.softplus(F.linear(dt, w("dt_proj.weight"), w("dt_proj.bias")))
        decay = (dt[..., None] * -w("A_log").exp()).exp()
        value = (dt * h)[..., None] * b[:, :, None]
        states, ssm = scan_loop(decay, value, state[1] if state else None)
        y = (states @ cm[..., None]).squeeze(-1) + w("D") * h
        return F.linear(y * F.silu(z), w("out_proj.weight")), (conv, ssm)

    def mamba_layer(self, x, layer, state):
        name = f"backbone.layers.{layer}."
        h, state = self.mamba_mixer(self.rms_norm(x, name + "norm"), name + "mixer.", state)
        return x + self.drop(h), state

    def itera_m_layer(self, x, layer, state):
        name = f"model.layers.{layer}."
        h, state = self.mamba_mixer(self.rms_norm(x, name + "input_layernorm"), name + "mamba.",
                                    state)
        x = x + self.drop(h)
        h, ff = self.rms_norm(x, name + "pre_ff_layernorm"), name + "feed_forward."
        if layer in self.c.moe:
            return x + self.moe(h, layer, ff + "router.weight"), state
        h = F.silu(F.linear(h, self.w(ff + "gate_proj.weight"))) * F.linear(
            h, self.w(ff + "up_proj.weight"))
        return x + F.linear(self.drop(h), self.w(ff + "down_proj.weight")), state

    # ---- all ----

    def names(self):
        """(embedding, last norm, layer function)."""
        return {"itera": ("embedding.weight", "norm", self.itera_layer),
                "transformer": ("embedding.weight", "norm", self.transformer_layer),
                "mamba": ("backbone.embeddings.weight", "backbone.norm_f", self.mamba_layer),
                "itera-m": ("model.embed_tokens.weight", "model.final_layernorm",
                            self.itera_m_layer)}[self.c.family]

    def forward(self, ids, state=None, position=0, last=False):
        """(logits, state). last: those of the last position only."""
        self.aux = []
        table, norm, layer_of = self.names()
        x = F.embedding(ids, self.w(table))
        if self.c.positions:
            x = x + self.w("position_embedding.weight")[position:position + ids.shape[1]]
        x, next_state = self.drop(x), []
        for layer in range(self.c.layers):
            x, s = layer_of(x, layer, state[layer] if state else None)
            next_state.append(s)
        x = x[:, -1:] if last else x
        normed = self.layer_norm if self.c.positions else self.rms_norm
        head = self.w(table) if self.c.tied else self.w("lm_head.weight")
        return F.linear(normed(x, norm), head), next_state

    def loss(self, ids, targets):
        """Mean cross-entropy and the routers' auxiliary losses."""
        logits, _ = self(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss + sum(self.aux) if self.aux else loss
