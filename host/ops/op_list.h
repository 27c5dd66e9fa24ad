/* The op list: the registry of everything a program can do. Included with ITERA_OP defined.
 *
 *   ITERA_OP(name, inputs, outputs, simd, tolerance)
 *
 * inputs, outputs: operand names in order; `?` marks an optional operand, `!` one that is read and
 * written in place. simd: 1 when cpu_fallback/simd (or an ISA folder) has a fast version.
 * tolerance: NMSE limit of f32 against the scalar reference (`itera check`).
 * The contract of each op stands at its definition in host/ops/<family>.c.
 *
 * Gradient ops are marked ITERA_OP_BWD, for those who treat them apart: it is ITERA_OP unless
 * defined. */
#ifndef ITERA_OP_BWD
#define ITERA_OP_BWD ITERA_OP
#define ITERA_OP_BWD_IS_OP
#endif

/* An op is a line. */
/* clang-format off */

/* elementwise.c */
ITERA_OP(fill, "", "y", 1, 0)
ITERA_OP(copy, "x", "y", 1, 0)
ITERA_OP(scale, "x", "y", 1, 2e-12)
ITERA_OP(add, "a b", "y", 1, 2e-12)
ITERA_OP(mul, "a b", "y", 1, 2e-12)
ITERA_OP(neg_exp, "x", "y", 1, 2e-12)
ITERA_OP(silu, "x", "y", 1, 2e-12)
ITERA_OP_BWD(silu_bwd, "dy x", "dx", 1, 5e-12)
ITERA_OP(gelu, "x", "y", 1, 2e-12)
ITERA_OP_BWD(gelu_bwd, "dy x", "dx", 1, 5e-12)
ITERA_OP(softplus, "x", "y", 1, 2e-12)
ITERA_OP_BWD(softplus_bwd, "dy y", "dx", 1, 5e-12)
ITERA_OP(silu_mul, "x z", "y", 1, 2e-12)
ITERA_OP_BWD(silu_mul_bwd, "dy x z", "dx dz", 1, 5e-12)
ITERA_OP(skip_gate, "c x d z?", "y", 1, 2e-12)
ITERA_OP_BWD(skip_gate_bwd, "dy c x d z?", "dc dx dd dz?", 1, 5e-12)
ITERA_OP(softplus_mean, "x", "y", 1, 2e-12)
ITERA_OP_BWD(softplus_mean_bwd, "dy x", "dx", 1, 5e-12)
ITERA_OP(dropout, "x rng", "y", 1, 2e-12)
ITERA_OP(column_sum, "x", "y", 1, 2e-12)
ITERA_OP(penalize, "x factor", "y", 1, 2e-12)

/* norm.c */
ITERA_OP(layer_norm, "x weight bias", "y stats?", 1, 2e-12)
ITERA_OP_BWD(layer_norm_bwd, "dy x weight stats", "dx dweight dbias", 1, 5e-12)
ITERA_OP(rms_norm, "x weight", "y rstd?", 1, 2e-12)
ITERA_OP_BWD(rms_norm_bwd, "dy x weight rstd", "dx dweight", 1, 5e-12)
ITERA_OP(gated_rms_norm, "x z weight", "y rstd?", 1, 2e-12)
ITERA_OP_BWD(gated_rms_norm_bwd, "dy x z weight rstd", "dx dz dweight", 1, 5e-12)

/* matmul.c */
ITERA_OP(matmul, "a b bias? residual?", "y", 1, 2e-12)
ITERA_OP(grouped_matmul, "a b offsets", "y", 1, 2e-12)

/* conv.c */
ITERA_OP(causal_conv1d, "x weight bias? state?!", "y", 1, 2e-12)
ITERA_OP_BWD(causal_conv1d_bwd, "dy x weight bias?", "dx dweight dbias?", 1, 5e-12)

/* scan.c */
ITERA_OP(linear_scan, "a b state?!", "h", 1, 2e-12)
ITERA_OP_BWD(linear_scan_bwd, "dh a h", "da db", 1, 5e-12)
ITERA_OP(itera_scan, "d A u state?!", "h", 1, 2e-12)
ITERA_OP_BWD(itera_scan_bwd, "dh d A u h", "dd dA du", 1, 5e-12)
ITERA_OP(selective_scan, "x dt A B C D? z? state?!", "y boundaries?", 1, 2e-12)
ITERA_OP_BWD(selective_scan_bwd, "dy x dt A B C D? z? boundaries", "dx ddt dA dB dC dD? dz?", 1, 5e-12)
ITERA_OP(ssd_scan, "x dt A B C D? state?!", "y boundaries?", 1, 2e-12)
ITERA_OP_BWD(ssd_scan_bwd, "dy x dt A B C D? boundaries", "dx ddt dA dB dC dD?", 1, 5e-12)

/* attention.c */
ITERA_OP(rope, "x start?", "y", 1, 2e-12)
ITERA_OP(attention, "q k v k_cache?! v_cache?! start?", "y lse?", 1, 2e-12)
ITERA_OP_BWD(attention_bwd, "dy q k v y lse", "dq dk dv", 1, 5e-12)

/* embedding.c */
ITERA_OP(embedding, "table ids", "y", 1, 0)
ITERA_OP_BWD(embedding_bwd, "dy ids", "dtable", 1, 5e-12)
ITERA_OP(position_embedding, "x table start?", "y", 1, 2e-12)
ITERA_OP_BWD(position_embedding_bwd, "dy", "dtable", 1, 5e-12)

/* loss.c */
ITERA_OP(cross_entropy, "logits targets", "loss lse", 1, 2e-12)
ITERA_OP_BWD(cross_entropy_bwd, "dloss logits targets lse", "dlogits", 1, 5e-12)
ITERA_OP(kl_loss, "student teacher", "loss", 1, 2e-12)
ITERA_OP_BWD(kl_loss_bwd, "dloss student teacher", "dstudent", 1, 5e-12)

/* moe.c */
ITERA_OP(moe_route, "logits", "index weight", 1, 2e-12)
ITERA_OP_BWD(moe_route_bwd, "dweight logits index weight", "dlogits", 1, 5e-12)
ITERA_OP(moe_sort, "index", "offsets order position", 0, 0)
ITERA_OP(moe_gather, "x order position", "y", 1, 0)
ITERA_OP_BWD(moe_gather_bwd, "dy position", "dx", 1, 5e-12)
ITERA_OP(moe_combine, "y position weight residual?", "out", 1, 2e-12)
ITERA_OP_BWD(moe_combine_bwd, "dout y position weight", "dy dweight", 1, 5e-12)
ITERA_OP(moe_balance, "logits index", "loss load", 1, 2e-12)
ITERA_OP_BWD(moe_balance_bwd, "dloss logits load", "dlogits", 1, 5e-12)

/* optimizer.c */
ITERA_OP(grad_norm, "grad", "norm", 1, 2e-12)
ITERA_OP(adamw, "param! grad m! v! hyper norm", "", 1, 2e-12)

/* precision.c */
ITERA_OP(cast, "x", "y", 1, 0)
ITERA_OP(unscale, "x scale", "y", 1, 2e-12)
ITERA_OP(loss_scale, "scale! norm", "", 0, 0)

/* sample.c */
ITERA_OP(sample, "logits params rng!", "token", 1, 0)
ITERA_OP(advance, "start!", "", 0, 0)

/* clang-format on */

#ifdef ITERA_OP_BWD_IS_OP
#undef ITERA_OP_BWD
#undef ITERA_OP_BWD_IS_OP
#endif
