/* itera ledger: the same for programs. */
#include <math.h>

#include "cli/device_request.h"
#include "cli/output.h"
#include "commands/ledger.h"

static json_t *ratios(const struct ledger_entry *e, const struct ledger_entry *base)
{
    struct ledger_entry a = *e, b = *base;
    json_t *root = json_object();
    json_object_set_new(root, "bytes", output_number((double)a.file_bytes / (double)b.file_bytes));
    json_object_set_new(root, "parameters",
                        output_number((double)a.parameters / (double)b.parameters));
    json_object_set_new(root, "flops_per_token", output_number(a.flops / b.flops));
    json_object_set_new(root, "peak_memory_bytes",
                        output_number((double)a.peak_memory / (double)b.peak_memory));
    json_object_set_new(root, "prefill_tokens_per_second",
                        output_number(ledger_median(a.prefill, a.n_prefill) /
                                      ledger_median(b.prefill, b.n_prefill)));
    json_object_set_new(
        root, "decode_tokens_per_second",
        output_number(ledger_median(a.decode, a.n_decode) / ledger_median(b.decode, b.n_decode)));
    json_object_set_new(root, "word_perplexity",
                        output_number(a.word_perplexity / b.word_perplexity));
    json_object_set_new(root, "bits_per_byte", output_number(a.bits_per_byte / b.bits_per_byte));
    return root;
}

static json_t *entry_json(const struct ledger *l, struct ledger_entry *e)
{
    json_t *types = json_object();
    for (int k = 0; k < ITERA_WEIGHT_DTYPES; k++)
        if (e->dtype_bytes[k])
            json_object_set_new(types, itera_weight_dtype_name(k),
                                json_integer((json_int_t)e->dtype_bytes[k]));
    json_t *root = json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:o, s:I}", "model", output_string(e->name), "architecture",
        itera_model_info(e->model)->architecture, "bytes_on_disk", (json_int_t)e->file_bytes,
        "parameters", (json_int_t)e->parameters, "bytes", (json_int_t)e->bytes, "bytes_by_dtype",
        types, "peak_memory_bytes", (json_int_t)e->peak_memory);
    json_object_set_new(root, "flops_per_token", output_number(e->flops));
    json_object_set_new(root, "prefill_tokens_per_second",
                        output_number(ledger_median(e->prefill, e->n_prefill)));
    json_object_set_new(root, "decode_tokens_per_second",
                        output_number(ledger_median(e->decode, e->n_decode)));
    json_object_set_new(root, "energy", meter_energy_json(&e->energy, e->energy_tokens));
    json_object_set_new(root, "word_perplexity", output_number(e->word_perplexity));
    json_object_set_new(root, "bits_per_byte", output_number(e->bits_per_byte));
    json_object_set_new(root, "unknown_tokens", json_integer((json_int_t)e->unknown));
    json_object_set_new(root, "ratios", ratios(e, &l->entries[0]));
    return root;
}

json_t *ledger_json(const struct ledger *l)
{
    json_t *models = json_array();
    for (int i = 0; i < l->n; i++)
        json_array_append_new(models, entry_json(l, &l->entries[i]));
    json_t *root =
        json_pack("{s:o, s:s, s:i, s:I, s:I, s:o, s:o}", "data", output_path(l->data), "device",
                  itera_device_info(l->device)->id, "threads", itera_device_threads(l->device),
                  "prompt", (json_int_t)l->prompt, "rounds", (json_int_t)l->rounds, "fallback_ops",
                  device_fallback_json(l->device), "models", models);
    const struct itera_energy_figure *energy = l->entries[0].energy.figure;
    if (isnan(energy->joules))
        json_object_set_new(root, "energy_reason", output_string(energy->reason));
    return root;
}
