"""ONNX graphs of a model's forward pass, built node by node: all positions, or one token with a
state. For itera, transformer, mamba and itera-m, f32, opset 20."""
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


class Graph:
    """Nodes in order; values are known by their names. `time` positions are read at once; with
    `stateful`, what the layers carry is an input and an output of the graph."""

    def __init__(self, model, batch, time, stateful, last):
        self.c, self.batch, self.time, self.stateful, self.last = model, batch, time, stateful, last
        self.nodes, self.constants, self.inputs, self.outputs = [], {}, [], []
        self.states = []  # (input name, output name, shape)
        self.count = 0

    # ---- building ----

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value, dtype=np.float32):
        array = np.ascontiguousarray(value, dtype)
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *values):
        return self.constant(values, np.int64)

    def weight(self, name, transposed=False):
        key = f"{name}^T" if transposed else name
        if key not in self.constants:
            value = self.c.tensors[name]
            value = np.ascontiguousarray(value.T if transposed else value)
            self.constants[key] = numpy_helper.from_array(value, key)
        return key

    def linear(self, x, name, bias=None):
        y = self.op("MatMul", x, self.weight(name, True))
        return self.op("Add", y, self.weight(bias)) if bias else y

    def split(self, x, sizes, axis=-1):
        return self.op("Split", x, self.integers(*sizes), outputs=len(sizes), axis=axis)

    def silu(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def shape(self, x, *dims):
        return self.op("Reshape", x, self.integers(*dims))

    def state(self, *dims):
        """The input of a state; give its successor to `keep`."""
        name = f"state{len(self.states)}"
        self.states.append([name, None, dims])
        self.inputs.append(helper.make_tensor_value_info(name, FLOAT, dims))
        return name

    def keep(self, state, value, dims):
        name = f"next_{state}"
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, dims))
        next(s for s in self.states if s[0] == state)[1] = name

    # ---- blocks ----

    def layer_norm(self, x, name):
        return self.op("LayerNormalization", x, self.weight(name + ".weight"),
                       self.weight(name + ".bias"), axis=-1, epsilon=self.c.eps)

    def rms_norm(self, x, name):
        mean = self.op("ReduceMean", self.op("Mul", x, x), self.integers(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(self.c.eps)))
        return self.op("Mul", self.op("Div", x, root), self.weight(name + ".weight"))

    def conv(self, x, name):
        """Causal depthwise convolution and SiLU; x (batch, time, inner)."""
        width, inner = self.c.conv, self.c.inner
        x = self.op("Transpose", x, perm=[0, 2, 1])
        if self.stateful:
            dims = (self.batch, inner, width - 1)
            before = self.state(*dims)
            x = self.op("Concat", before, x, axis=2)
            self.keep(before, self.op("Slice", x, self.integers(self.time),
                                      self.integers(self.time + width - 1), self.integers(2)), dims)
            pads = [0, 0]
        else:
            pads = [width - 1, 0]
        y = self.op("Conv", x, self.weight(name + ".weight"), self.weight(name + ".bias"),
                    group=inner, kernel_shape=[width], pads=pads)
        return self.op("Transpose", self.silu(y), perm=[0, 2, 1])

    def itera_ssm(self, x, z, name):
        c, n = self.c, self.c.state
        step = self.op("Softplus", self.linear(x, name + "delta_proj.weight",
                                               name + "delta_proj.bias"))
        step = self.op("ReduceMean", step, self.integers(-1), keepdims=1)
        a = self.constant(-np.exp(c.tensors[name + "A_log"]))
        log_decay = self.op("Mul", step, a)
        value = self.op("Mul", step, self.linear(x, name + "B"))
        if self.stateful:
            before = self.state(self.batch, 1, n)
            h = self.op("Add", self.op("Mul", self.op("Exp", log_decay), before), value)
            self.keep(before, h, (self.batch, 1, n))
        else:
            h = self.matrix_scan(log_decay, value)
        y = self.op("Add", self.linear(h, name + "C"),
                    self.op("Mul", x, self.weight(name + "D")))
        return self.op("Mul", y, self.silu(z))

    def matrix_scan(self, log_decay, value):
        """h[t] = sum over s <= t of exp(sum of log_decay from s + 1 to t) value[s]."""
        axis = self.constant(1, np.int64)
        total = self.op("Transpose", self.op("CumSum", log_decay, axis), perm=[0, 2, 1])
        between = self.op("Sub", self.op("Unsqueeze", total, self.integers(3)),
                          self.op("Unsqueeze", total, self.integers(2)))
        mask = np.triu(np.full((self.time, self.time), -1e30, np.float32), 1)
        decay = self.op("Exp", self.op("Add", between, self.constant(mask)))
        value = self.op("Unsqueeze", self.op("Transpose", value, perm=[0, 2, 1]),
                        self.integers(3))
        h = self.op("Squeeze", self.op("MatMul", decay, value), self.integers(3))
        return self.op("Transpose", h, perm=[0, 2, 1])

    def selective_scan(self, decay, value, cm):
        """Mamba's, by a Scan over time; decay, value (batch, time, inner, states)."""
        dims = (self.batch, self.c.inner, self.c.state)
        if self.stateful:
            before = self.state(*dims)
            squeeze = lambda x: self.op("Squeeze", x, self.integers(1))
            h = self.op("Add", self.op("Mul", squeeze(decay), before), squeeze(value))
            self.keep(before, h, dims)
            y = self.op("MatMul", h, self.op("Unsqueeze", squeeze(cm), self.integers(2)))
            return self.op("Unsqueeze", self.op("Squeeze", y, self.integers(2)), self.integers(1))
        info = helper.make_tensor_value_info
        step = [helper.make_node("Mul", ["a", "h"], ["ah"]),
                helper.make_node("Add", ["ah", "u"], ["next"]),
                helper.make_node("Unsqueeze", ["c", "two"], ["column"]),
                helper.make_node("MatMul", ["next", "column"], ["y2"]),
                helper.make_node("Squeeze", ["y2", "two"], ["y"])]
        body = helper.make_graph(
            step, "step",
            [info("h", FLOAT, dims), info("a", FLOAT, dims), info("u", FLOAT, dims),
             info("c", FLOAT, (self.batch, self.c.state))],
            [info("next", FLOAT, dims), info("y", FLOAT, dims[:2])],
            [numpy_helper.from_array(np.array([2], np.int64), "two")])
        return self.op("Scan", self.constant(np.zeros(dims)), decay, value, cm, outputs=2,
                       body=body, num_scan_inputs=3, scan_input_axes=[1, 1, 1],
                       scan_output_axes=[1])[1]

    def mamba_mixer(self, x, name):
        c = self.c
        h, z = self.split(self.linear(x, name + "in_proj.weight"), [c.inner, c.inner])
        h = self.conv(h, name + "conv1d")
        dt, b, cm = self.split(self.linear(h, name + "x_proj.weight"),
                               [c.dt_rank, c.state, c.state])
        if c.family == "itera-m":
            dt, b, cm = (self.rms_norm(dt, name + "dt_layernorm"),
                         self.rms_norm(b, name + "b_layernorm"),
                         self.rms_norm(cm, name + "c_layernorm"))
        dt = self.op("Softplus", self.linear(dt, name + "dt_proj.weight", name + "dt_proj.bias"))
        wide = lambda v, axis: self.op("Unsqueeze", v, self.integers(axis))
        a = self.constant(-np.exp(c.tensors[name + "A_log"]))
        decay = self.op("Exp", self.op("Mul", wide(dt, 3), a))
        value = self.op("Mul", wide(self.op("Mul", dt, h), 3), wide(b, 2))
        y = self.op("Add", self.selective_scan(decay, value, cm),
                    self.op("Mul", h, self.weight(name + "D")))
        return self.linear(self.op("Mul", y, self.silu(z)), name + "out_proj.weight")

    def moe(self, x, router, experts, parts):
        """Every expert on every token, weighted by zero where it was not chosen."""
        c, rows = self.c, self.batch * self.time
        logits = self.shape(self.linear(x, router), rows, c.experts)
        if c.family == "itera" and c.top_k > 1:
            best, index = self.op("TopK", logits, self.integers(c.top_k), outputs=2)
            weight = self.op("Softmax", best)
        else:
            weight, index = self.op("TopK", self.op("Softmax", logits),
                                    self.integers(c.top_k), outputs=2)
        dense = self.op("ScatterElements", self.constant(np.zeros((rows, c.experts))), index,
                        weight, axis=1)
        dense = self.op("Unsqueeze", self.op("Transpose", dense, perm=[1, 0]), self.integers(2))
        stack = lambda part: self.constant(np.stack(
            [c.tensors[f"{experts}{e}.{part}.weight"].T for e in range(c.experts)]))
        x = self.shape(x, 1, rows, c.hidden)
        h = self.op("MatMul", x, stack(parts[0]))
        if c.family == "itera":
            h = self.op("Gelu", h)
        else:
            h = self.op("Mul", self.silu(h), self.op("MatMul", x, stack(parts[1])))
        y = self.op("Mul", self.op("MatMul", h, stack(parts[-1])), dense)
        y = self.op("ReduceSum", y, self.integers(0), keepdims=0)
        return self.shape(y, self.batch, self.time, c.hidden)

    # ---- layers ----

    def itera_layer(self, x, layer):
        name, c = f"layers.{layer}.ssm.", self.c
        h = self.linear(self.layer_norm(x, name + "norm"), name + "in_proj.weight")
        h, z = self.split(h, [c.inner, c.inner])
        h = self.itera_ssm(self.conv(h, name + "conv1d"), z, name + "ssm.")
        x = self.op("Add", x, self.linear(h, name + "out_proj.weight"))
        name = f"layers.{layer}.moe." + ("layer." if layer in c.moe else "")
        h = self.layer_norm(x, name + "norm")
        if layer in c.moe:
            h = self.moe(h, name + "router.gate.weight", name + "experts.", ("w1", "w2"))
        else:
            h = self.linear(self.op("Gelu", self.linear(h, name + "ffn.w1.weight")),
                            name + "ffn.w2.weight")
        return self.op("Add", x, h)

    def transformer_layer(self, x, layer):
        name, c = f"blocks.{layer}.", self.c
        width = c.hidden // c.heads
        h = self.linear(self.layer_norm(x, name + "ln1"), name + "attention.qkv.weight")
        q, k, v = (self.op("Transpose", self.shape(t, self.batch, self.time, c.heads, width),
                           perm=[0, 2, 1, 3]) for t in self.split(h, [c.hidden] * 3))
        if self.stateful:
            cached = (self.batch, c.heads, "past", width)
            longer = (self.batch, c.heads, "length", width)
            for_keys, for_values = self.state(*cached), self.state(*cached)
            k = self.op("Concat", for_keys, k, axis=2)
            v = self.op("Concat", for_values, v, axis=2)
            self.keep(for_keys, k, longer)
            self.keep(for_values, v, longer)
        scores = self.op("Mul", self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])),
                         self.constant(width ** -0.5))
        if not self.stateful:
            mask = np.triu(np.full((self.time, self.time), -1e30, np.float32), 1)
            scores = self.op("Add", scores, self.constant(mask))
        h = self.op("MatMul", self.op("Softmax", scores), v)
        h = self.shape(self.op("Transpose", h, perm=[0, 2, 1, 3]), self.batch, self.time, c.hidden)
        x = self.op("Add", x, self.linear(h, name + "attention.out_proj.weight"))
        h = self.op("Gelu", self.linear(self.layer_norm(x, name + "ln2"), name + "ffn.w1.weight"))
        return self.op("Add", x, self.linear(h, name + "ffn.w2.weight"))

    def mamba_layer(self, x, layer):
        name = f"backbone.layers.{layer}."
        return self.op("Add", x, self.mamba_mixer(self.rms_norm(x, name + "norm"),
                                                  name + "mixer."))

    def itera_m_layer(self, x, layer):
        name = f"model.layers.{layer}."
        x = self.op("Add", x, self.mamba_mixer(self.rms_norm(x, name + "input_layernorm"),
                                               name + "mamba."))
        h, ff = self.rms_norm(x, name + "pre_ff_layernorm"), name + "feed_forward."
        if layer in self.c.moe:
            return self.op("Add", x, self.moe(h, ff + "router.weight", ff + "experts.",
                                              ("gate_proj", "up_proj", "down_proj")))
        h = self.op("Mul", self.silu(self.linear(h, ff + "gate_proj.weight")),
                    self.linear(h, ff + "up_proj.weight"))
        return self.op("Add", x, self.linear(h, ff + "down_proj.weight"))


def build(model, batch, time, stateful=False, last=False):
    """(serialised model, states). Inputs: ids (batch, time) int64, with positions also position
    (1) int64, and the states; outputs: logits (batch, time or 1, vocabulary) and their successors.
    last: logits of the last position only."""
    g = Graph(model, batch, time, stateful, last)
    table, norm, layer_of = {
        "itera": ("embedding.weight", "norm", g.itera_layer),
        "transformer": ("embedding.weight", "norm", g.transformer_layer),
        "mamba": ("backbone.embeddings.weight", "backbone.norm_f", g.mamba_layer),
        "itera-m": ("model.embed_tokens.weight", "model.final_layernorm", g.itera_m_layer),
    }[model.family]
    g.inputs.append(helper.make_tensor_value_info("ids", INT, (batch, time)))
    x = g.op("Gather", g.weight(table), "ids", axis=0)
    if model.positions:
        if stateful:
            g.inputs.append(helper.make_tensor_value_info("position", INT, (1,)))
            rows = g.op("Gather", g.weight("position_embedding.weight"), "position", axis=0)
        else:
            rows = g.constant(model.tensors["position_embedding.weight"][:time])
        x = g.op("Add", x, rows)
    for layer in range(model.layers):
        x = layer_of(x, layer)
    if last and time > 1:
        x = g.op("Slice", x, g.integers(time - 1), g.integers(time), g.integers(1))
    x = (g.layer_norm if model.positions else g.rms_norm)(x, norm)
    logits = g.linear(x, table if model.tied else "lm_head.weight")
    g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    shown = helper.make_tensor_value_info("logits", FLOAT, (batch, 1 if last else time,
                                                            model.vocab))
    graph = helper.make_graph(g.nodes, model.family, g.inputs, [shown] + g.outputs,
                              list(g.constants.values()))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(proto)
    return proto.SerializeToString(), g.states
