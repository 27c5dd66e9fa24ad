"""Model files of itera for the peers' scripts: reading them, and making those of the presets.

A model is one safetensors file with its configuration in the metadata, or a directory with
config.json beside it. Numpy only.
"""
import json
import math
import os
import struct
from dataclasses import dataclass, field

import numpy as np

CONFIG_KEY = "itera.config"
LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format

# name: (family, vocabulary, hidden, layers, states, experts, width, heads, positions)
PRESETS = {
    "micro": ("itera", 2000, 64, 3, 8, 4, 32, 0, 128),
    "tiny": ("itera", 8000, 128, 4, 8, 4, 64, 0, 128),
    "small": ("itera", 16000, 256, 6, 16, 8, 128, 0, 512),
    "transformer-micro": ("transformer", 2000, 64, 3, 0, 0, 256, 4, 128),
    "transformer-tiny": ("transformer", 8000, 128, 4, 0, 0, 512, 4, 128),
    "transformer-small": ("transformer", 16000, 256, 6, 0, 0, 1024, 8, 512),
    "mamba-tiny": ("mamba", 2000, 128, 4, 32, 0, 0, 0, 0),
    "mamba-130m": ("mamba", 50280, 768, 24, 16, 0, 0, 0, 0),
    "itera-m-micro": ("itera-m", 2048, 64, 4, 8, 4, 48, 2, 0),
    "itera-m": ("itera-m", 2048, 128, 4, 16, 4, 96, 4, 0),
    "itera-m-small": ("itera-m", 16000, 256, 6, 16, 8, 192, 8, 0),
}


@dataclass
class Model:
    """Sizes by one name for all families, and the tensors as float32 by the file's names."""

    family: str
    vocab: int
    hidden: int
    layers: int
    state: int = 0
    conv: int = 4
    inner: int = 0
    dt_rank: int = 0
    experts: int = 0
    top_k: int = 2
    width: int = 0  # of the feed-forward, or of one expert
    heads: int = 0
    positions: int = 0  # 0: no limit
    eps: float = 1e-5
    dropout: float = 0.0
    aux_weight: float = 0.0
    moe: set = field(default_factory=set)
    tied: bool = True
    tensors: dict = field(default_factory=dict)
    path: str = ""

    def parameters(self):
        return sum(t.size for t in self.tensors.values())


def read_safetensors(path):
    """(tensors by name, metadata); what is f16 or bf16 comes as float32. ValueError for what is not
    such a file."""
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32}
    with open(path, "rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        if size > LARGEST_HEADER:
            raise ValueError(f"{path}: not a safetensors file")
        header = json.loads(file.read(size))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in kinds:
            raise ValueError(f"{path}: tensor {name} is {entry['dtype']}; give a model with f32, "
                             "f16 or bf16 weights")
        begin, end = entry["data_offsets"]
        raw = np.frombuffer(data[begin:end], kinds[entry["dtype"]])
        if entry["dtype"] == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        raw = raw if entry["dtype"] == "I32" else raw.astype(np.float32)
        tensors[name] = raw.reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata):
    """Float32 tensors in the order given, whole or not at all."""
    header, at = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [at, at + 4 * tensor.size]}
        at += 4 * tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, np.float32).tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _family(config):
    name = config.get("architecture") or config.get("model_type")
    if not name:
        name = (config.get("architectures") or ["none"])[0]
    known = {"itera": "itera", "transformer": "transformer", "mamba": "mamba",
             "MambaForCausalLM": "mamba", "itera-m": "itera-m", "jamba": "itera-m",
             "JambaForCausalLM": "itera-m"}
    if name not in known:
        raise ValueError(f"unknown architecture {name!r}; known are {', '.join(sorted(known))}")
    return known[name]


def parse_config(config):
    """A Model without tensors from the keys of config.json."""
    family = _family(config)
    get = config.get
    layers = get("num_hidden_layers", get("num_layers"))
    model = Model(family, config["vocab_size"], config["hidden_size"], layers)
    hidden = model.hidden
    if family == "transformer":
        model.width, model.heads = config["intermediate_size"], config["num_attention_heads"]
        model.positions = config["max_seq_length"]
        model.eps, model.dropout = get("layer_norm_eps", 1e-5), get("dropout", 0.1)
    elif family == "itera":
        model.state, model.conv = config["ssm_state_size"], get("ssm_conv_kernel", 4)
        model.inner = get("ssm_inner_size") or get("ssm_expand_factor", 2) * hidden
        model.experts, model.top_k = config["num_experts"], get("top_k_experts", 2)
        model.width, model.positions = config["expert_size"], config["max_seq_length"]
        model.eps, model.dropout = get("layer_norm_eps", 1e-5), get("dropout", 0.1)
        model.aux_weight = get("load_balance_loss_weight", 0.01)
        model.moe = set(get("moe_layers", range(1, layers, 2)))
    elif family == "mamba":
        model.state, model.conv = get("state_size", 16), get("conv_kernel", 4)
        model.inner = get("intermediate_size") or get("expand", 2) * hidden
        rank = get("time_step_rank", "auto")
        model.dt_rank = math.ceil(hidden / 16) if rank == "auto" else rank
        model.eps, model.tied = get("layer_norm_epsilon", 1e-5), get("tie_word_embeddings", True)
    else:
        model.state, model.conv = get("mamba_d_state", 16), get("mamba_d_conv", 4)
        model.inner = get("mamba_d_inner") or get("mamba_expand", 2) * hidden
        rank = get("mamba_dt_rank", "auto")
        model.dt_rank = math.ceil(hidden / 16) if rank == "auto" else rank
        model.experts, model.top_k = get("num_experts", 16), get("num_experts_per_tok", 2)
        model.width, model.eps = config["intermediate_size"], get("rms_norm_eps", 1e-6)
        model.dropout, model.aux_weight = get("dropout", 0), get("router_aux_loss_coef", 0.001)
        model.tied = get("tie_word_embeddings", False)
        if get("attn_layer_offset", 4) < layers:
            raise ValueError("attention layers of jamba are not supported")
        if model.experts > 1:
            first, period = get("expert_layer_offset", 1), get("expert_layer_period", 2)
            model.moe = set(range(first, layers, period))
    return model


def load(path):
    """A model file or directory."""
    file = path
    if os.path.isdir(path):
        file = os.path.join(path, "model.safetensors")
    tensors, metadata = read_safetensors(file)
    text = metadata.get(CONFIG_KEY)
    if text is None:
        beside = os.path.join(os.path.dirname(file), "config.json")
        with open(beside, encoding="utf-8") as config:
            text = config.read()
    model = parse_config(json.loads(text))
    model.tensors, model.path = tensors, path
    return model


def preset_config(name):
    """config.json of a preset, as `itera` writes it."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    family, vocab, hidden, layers, state, experts, width, heads, positions = PRESETS[name]
    if family == "transformer":
        return {"architecture": family, "vocab_size": vocab, "hidden_size": hidden,
                "num_layers": layers, "num_attention_heads": heads, "intermediate_size": width,
                "max_seq_length": positions}
    if family == "itera":
        return {"architecture": family, "vocab_size": vocab, "hidden_size": hidden,
                "num_layers": layers, "ssm_state_size": state, "num_experts": experts,
                "expert_size": width, "max_seq_length": positions}
    if family == "mamba":
        return {"architectures": ["MambaForCausalLM"], "model_type": "mamba", "vocab_size": vocab,
                "hidden_size": hidden, "num_hidden_layers": layers, "state_size": state,
                "conv_kernel": 4, "expand": 2, "tie_word_embeddings": True}
    return {"architectures": ["JambaForCausalLM"], "model_type": "jamba", "vocab_size": vocab,
            "hidden_size": hidden, "num_hidden_layers": layers, "mamba_d_state": state,
            "mamba_d_conv": 4, "mamba_expand": 2, "num_experts": experts, "num_experts_per_tok": 2,
            "intermediate_size": width, "num_attention_heads": heads,
            "num_key_value_heads": heads, "attn_layer_period": layers + 1,
            "attn_layer_offset": layers, "expert_layer_period": 2, "expert_layer_offset": 1,
            "rms_norm_eps": 1e-6, "router_aux_loss_coef": 0.01, "tie_word_embeddings": True}


class _Random:
    """Seeded starting values, the same kinds as `itera train` uses."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape, scale):
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)

    def linear(self, out, width):
        return self.normal(out, width, scale=width ** -0.5)

    def conv(self, channels, width):
        scale = width ** -0.5
        return self.rng.uniform(-scale, scale, (channels, 1, width)).astype(np.float32)

    def dt_bias(self, n):
        dt = np.exp(self.rng.uniform(math.log(0.001), math.log(0.1), n))
        return (dt + np.log(-np.expm1(-dt))).astype(np.float32)


def _ones(n):
    return np.ones(n, np.float32)


def _zeros(n):
    return np.zeros(n, np.float32)


def _mamba_mixer(model, random, name):
    rows = model.dt_rank + 2 * model.state
    steps = np.log(np.arange(1, model.state + 1, dtype=np.float32))
    t = {"in_proj.weight": random.linear(2 * model.inner, model.hidden),
         "conv1d.weight": random.conv(model.inner, model.conv),
         "conv1d.bias": _zeros(model.inner),
         "x_proj.weight": random.linear(rows, model.inner),
         "dt_proj.weight": random.linear(model.inner, model.dt_rank),
         "dt_proj.bias": random.dt_bias(model.inner),
         "A_log": np.tile(steps, (model.inner, 1)),
         "D": _ones(model.inner),
         "out_proj.weight": random.linear(model.hidden, model.inner)}
    if model.family == "itera-m":
        t["dt_layernorm.weight"] = _ones(model.dt_rank)
        t["b_layernorm.weight"] = _ones(model.state)
        t["c_layernorm.weight"] = _ones(model.state)
    return {name + key: value for key, value in t.items()}


def _itera_layer(model, random, layer):
    hidden, inner, n = model.hidden, model.inner, model.state
    ssm = f"layers.{layer}.ssm."
    t = {ssm + "norm.weight": _ones(hidden), ssm + "norm.bias": _zeros(hidden),
         ssm + "in_proj.weight": random.linear(2 * inner, hidden),
         ssm + "conv1d.weight": random.conv(inner, model.conv),
         ssm + "conv1d.bias": _zeros(inner),
         ssm + "ssm.A_log": np.log(np.arange(1, n + 1, dtype=np.float32)),
         ssm + "ssm.B": random.linear(n, inner), ssm + "ssm.C": random.linear(inner, n),
         ssm + "ssm.D": _ones(inner),
         ssm + "ssm.delta_proj.weight": random.linear(inner, inner),
         ssm + "ssm.delta_proj.bias": random.dt_bias(inner),
         ssm + "out_proj.weight": random.linear(hidden, inner)}
    moe = f"layers.{layer}.moe." + ("layer." if layer in model.moe else "")
    t[moe + "norm.weight"], t[moe + "norm.bias"] = _ones(hidden), _zeros(hidden)
    if layer in model.moe:
        t[moe + "router.gate.weight"] = random.linear(model.experts, hidden)
    names = [f"experts.{e}." for e in range(model.experts)] if layer in model.moe else ["ffn."]
    for name in names:
        t[moe + name + "w1.weight"] = random.linear(model.width, hidden)
        t[moe + name + "w2.weight"] = random.linear(hidden, model.width)
    return t


def _itera_m_layer(model, random, layer):
    name = f"model.layers.{layer}."
    t = {name + "input_layernorm.weight": _ones(model.hidden)}
    t.update(_mamba_mixer(model, random, name + "mamba."))
    t[name + "pre_ff_layernorm.weight"] = _ones(model.hidden)
    ff = name + "feed_forward."
    if layer in model.moe:
        t[ff + "router.weight"] = random.linear(model.experts, model.hidden)
    experts = [f"experts.{e}." for e in range(model.experts)] if layer in model.moe else [""]
    for expert in experts:
        t[ff + expert + "gate_proj.weight"] = random.linear(model.width, model.hidden)
        t[ff + expert + "up_proj.weight"] = random.linear(model.width, model.hidden)
        t[ff + expert + "down_proj.weight"] = random.linear(model.hidden, model.width)
    return t


def _transformer_layer(model, random, layer):
    hidden, name = model.hidden, f"blocks.{layer}."
    return {name + "ln1.weight": _ones(hidden), name + "ln1.bias": _zeros(hidden),
            name + "attention.qkv.weight": random.linear(3 * hidden, hidden),
            name + "attention.out_proj.weight": random.linear(hidden, hidden),
            name + "ln2.weight": _ones(hidden), name + "ln2.bias": _zeros(hidden),
            name + "ffn.w1.weight": random.linear(model.width, hidden),
            name + "ffn.w2.weight": random.linear(hidden, model.width)}


def _mamba_layer(model, random, layer):
    name = f"backbone.layers.{layer}."
    t = {name + "norm.weight": _ones(model.hidden)}
    t.update(_mamba_mixer(model, random, name + "mixer."))
    return t


def create(preset, path, seed=1):
    """Writes a preset with random weights to `path` and returns it."""
    config = preset_config(preset)
    model = parse_config(config)
    random = _Random(seed)
    table = {"mamba": "backbone.embeddings.weight", "itera-m": "model.embed_tokens.weight"}
    name = table.get(model.family, "embedding.weight")
    tensors = {name: random.normal(model.vocab, model.hidden, scale=0.02)}
    if model.positions:
        tensors["position_embedding.weight"] = random.normal(model.positions, model.hidden,
                                                             scale=0.02)
    layer = {"itera": _itera_layer, "transformer": _transformer_layer, "mamba": _mamba_layer,
             "itera-m": _itera_m_layer}[model.family]
    for index in range(model.layers):
        tensors.update(layer(model, random, index))
    last = {"mamba": "backbone.norm_f.weight", "itera-m": "model.final_layernorm.weight"}
    tensors[last.get(model.family, "norm.weight")] = _ones(model.hidden)
    if model.family in ("itera", "transformer"):
        tensors["norm.bias"] = _zeros(model.hidden)
    write_safetensors(path, tensors, {"format": "pt", CONFIG_KEY: json.dumps(config)})
    model.tensors, model.path = tensors, path
    return model


def find(name, folder):
    """A preset's file, made in `folder` where it is not there yet, or any model file."""
    if name not in PRESETS or os.path.exists(name):
        return load(name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.safetensors")
    return load(path) if os.path.exists(path) else create(name, path)
