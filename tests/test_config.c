/* Configurations: the families' keys, presets, round trips, and every limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "model/config.h"
#include "tests/support/test.h"

static char last_warning[1024];

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    if (level == ITERA_LOG_WARNING)
        snprintf(last_warning, sizeof last_warning, "%s", message);
}

static enum itera_status parse(const char *text, struct itera_config *config)
{
    return itera_config_parse(text, strlen(text), "mem", config);
}

static void assert_parses(const char *text, struct itera_config *config)
{
    if (parse(text, config) != ITERA_OK)
        fail_msg("%s", itera_last_error());
}

static void assert_bad(const char *text, enum itera_status expected, const char *what)
{
    struct itera_config config;
    enum itera_status status = parse(text, &config);
    if (status != expected || !strstr(itera_last_error(), what) ||
        strncmp(itera_last_error(), "mem: ", 5) != 0)
        fail_msg("%s: status %d, \"%s\" does not say \"%s\"", text, status, itera_last_error(),
                 what);
    assert_int_equal(config.vocab, 0);
}

static void assert_round_trip(const struct itera_config *config)
{
    char *first, *second;
    struct itera_config again;
    if (itera_config_to_json(config, &first) != ITERA_OK)
        fail_msg("%s", itera_last_error());
    last_warning[0] = '\0';
    assert_parses(first, &again);
    assert_string_equal(last_warning, "");
    assert_int_equal(itera_config_to_json(&again, &second), ITERA_OK);
    assert_string_equal(first, second);
    /* Text hides what no key carries. */
    assert_int_equal(again.architecture, config->architecture);
    assert_int_equal(again.inner, config->inner);
    assert_int_equal(again.ffn, config->ffn);
    assert_int_equal(again.expert_size, config->expert_size);
    assert_int_equal(again.conv_bias, config->conv_bias);
    assert_int_equal(again.tied_head, config->tied_head);
    assert_int_equal(again.eos, config->eos);
    assert_true(again.norm_eps == config->norm_eps && again.dropout == config->dropout);
    assert_memory_equal(again.moe, config->moe, sizeof again.moe);
    free(first);
    free(second);
}

static const char itera_text[] =
    "{\"architecture\":\"itera\",\"vocab_size\":61,\"hidden_size\":24,\"num_layers\":4,"
    "\"ssm_state_size\":7,\"ssm_conv_kernel\":3,\"ssm_expand_factor\":3,\"num_experts\":5,"
    "\"expert_size\":11,\"top_k_experts\":2,\"moe_layers\":[0,3],"
    "\"load_balance_loss_weight\":0.02,\"max_seq_length\":30,\"layer_norm_eps\":1e-05}";

static const char mamba_text[] =
    "{\"architectures\":[\"MambaForCausalLM\"],\"model_type\":\"mamba\",\"vocab_size\":53,"
    "\"hidden_size\":20,\"state_size\":5,\"num_hidden_layers\":2,\"conv_kernel\":3,\"expand\":3,"
    "\"intermediate_size\":60,\"time_step_rank\":3,\"use_bias\":false,\"use_conv_bias\":true,"
    "\"hidden_act\":\"silu\",\"layer_norm_epsilon\":1e-05,\"tie_word_embeddings\":true}";

static const char jamba_text[] =
    "{\"model_type\":\"jamba\",\"vocab_size\":100,\"hidden_size\":40,\"intermediate_size\":24,"
    "\"num_hidden_layers\":6,\"num_experts\":4,\"num_experts_per_tok\":2,"
    "\"expert_layer_period\":3,\"expert_layer_offset\":1,\"attn_layer_period\":7,"
    "\"attn_layer_offset\":6,\"mamba_d_state\":8,\"mamba_d_conv\":4,\"mamba_expand\":2,"
    "\"mamba_dt_rank\":\"auto\",\"mamba_conv_bias\":true,\"mamba_proj_bias\":false,"
    "\"rms_norm_eps\":1e-06,\"tie_word_embeddings\":true,\"router_aux_loss_coef\":0.001,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"eos_token_id\":[2,3],"
    "\"pad_token_id\":null,\"use_cache\":true,\"torch_dtype\":\"bfloat16\"}";

static void test_families(void **state)
{
    (void)state;
    struct itera_config c;
    assert_parses(itera_text, &c);
    assert_int_equal(c.architecture, ITERA_ARCH_ITERA);
    assert_int_equal(c.vocab, 61);
    assert_int_equal(c.hidden, 24);
    assert_int_equal(c.inner, 72);
    assert_int_equal(c.state, 7);
    assert_int_equal(c.conv, 3);
    assert_int_equal(c.expert_size, 11);
    assert_int_equal(c.ffn, 11);
    assert_int_equal(c.max_positions, 30);
    assert_true(c.moe[0] && !c.moe[1] && !c.moe[2] && c.moe[3] && !c.moe[4]);
    assert_true(c.tied_head && c.conv_bias && !c.proj_bias);
    assert_true(c.aux_weight == 0.02 && c.norm_eps == 1e-5 && c.dropout == 0.1);
    assert_int_equal(c.eos, -1);
    assert_round_trip(&c);
    char *text;
    assert_int_equal(itera_config_to_json(&c, &text), ITERA_OK);
    assert_non_null(strstr(text, "\"layer_norm_eps\": 1e-5"));
    free(text);

    assert_parses("{\"architecture\":\"transformer\",\"vocab_size\":50,\"hidden_size\":16,"
                  "\"num_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":32,"
                  "\"max_seq_length\":32,\"layer_norm_eps\":1e-05,\"dropout\":0}",
                  &c);
    assert_int_equal(c.architecture, ITERA_ARCH_TRANSFORMER);
    assert_int_equal(c.heads, 4);
    assert_int_equal(c.ffn, 32);
    assert_int_equal(c.inner, 0);
    assert_true(c.dropout == 0);
    assert_round_trip(&c);

    assert_parses(mamba_text, &c);
    assert_int_equal(c.architecture, ITERA_ARCH_MAMBA);
    assert_int_equal(c.inner, 60);
    assert_int_equal(c.dt_rank, 3);
    assert_int_equal(c.max_positions, 0);
    assert_true(c.conv_bias && !c.proj_bias && c.tied_head);
    assert_round_trip(&c);

    last_warning[0] = '\0';
    assert_parses(jamba_text, &c);
    assert_string_equal(last_warning, "");
    assert_int_equal(c.architecture, ITERA_ARCH_ITERA_M);
    assert_int_equal(c.dt_rank, 3);
    assert_int_equal(c.expert_size, 24);
    assert_int_equal(c.ffn, 24);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.pad, -1);
    for (int l = 0; l < 6; l++)
        assert_int_equal(c.moe[l], l % 3 == 1);
    assert_round_trip(&c);
    c.norm_eps = 0.1 + 0.2;
    c.dropout = 1.0 / 3;
    assert_round_trip(&c);
    memset(c.moe, 0, sizeof c.moe);
    assert_round_trip(&c);
    c.moe[5] = true;
    assert_round_trip(&c);
    memset(c.moe, 1, 6);
    assert_round_trip(&c);
    c.moe[3] = false;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
}

/* What DESIGN promises for the presets, by the formulas of its section 5. */
static int64_t itera_parameters(const struct itera_config *c)
{
    int64_t h = c->hidden, d = c->inner, n = c->state, total = (c->vocab + c->max_positions) * h;
    for (int l = 0; l < c->layers; l++) {
        total += 2 * h + 2 * d * h + d * c->conv + d + d * d + d + n + 2 * n * d + d + d * h;
        total += 2 * h + (c->moe[l] ? c->experts * h : 0);
        total += (int64_t)(c->moe[l] ? c->experts : 1) * 2 * h * c->expert_size;
    }
    return total + 2 * h;
}

static int64_t mamba_parameters(const struct itera_config *c)
{
    int64_t h = c->hidden, d = c->inner, n = c->state, r = c->dt_rank, total = c->vocab * h + h;
    bool jamba = c->architecture == ITERA_ARCH_ITERA_M;
    for (int l = 0; l < c->layers; l++) {
        total += 2 * d * h + d * c->conv + d + (r + 2 * n) * d + d * r + d + d * n + d + d * h + h;
        if (jamba)
            total += r + 2 * n + h +
                     (c->moe[l] ? c->experts * (3 * h * c->expert_size + h) : 3 * h * c->ffn);
    }
    return total;
}

static void test_presets(void **state)
{
    (void)state;
    struct itera_config c;
    int count = 0;
    for (const char *name; (name = itera_config_preset_name((size_t)count)); count++) {
        assert_int_equal(itera_config_preset(name, &c), ITERA_OK);
        assert_round_trip(&c);
    }
    assert_true(count >= 10);
    assert_int_equal(itera_config_preset("huge", &c), ITERA_ERR_ARGUMENT);
    assert_non_null(strstr(itera_last_error(), "mamba-130m"));
    assert_int_equal(itera_config_preset("itera-", &c), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_config_preset("", &c), ITERA_ERR_ARGUMENT);

    assert_int_equal(itera_config_preset("micro", &c), ITERA_OK);
    assert_int_equal(itera_parameters(&c), 293656);
    assert_int_equal(itera_config_preset("itera-tiny", &c), ITERA_OK);
    assert_int_equal(itera_parameters(&c), 1886496);
    c.vocab = 2000;
    assert_int_equal(itera_parameters(&c), 1118496);
    c.vocab = 184;
    assert_int_equal(itera_parameters(&c), 886048);
    assert_int_equal(itera_config_preset("small", &c), ITERA_OK);
    assert_int_equal(c.layers, 6);
    assert_int_equal(itera_config_preset("itera-medium", &c), ITERA_OK);
    assert_int_equal(c.architecture, ITERA_ARCH_ITERA);
    assert_int_equal(c.max_positions, 1024);

    assert_int_equal(itera_config_preset("itera-m", &c), ITERA_OK);
    assert_int_equal(c.architecture, ITERA_ARCH_ITERA_M);
    assert_int_equal(mamba_parameters(&c), 1099040);
    assert_int_equal(itera_config_preset("mamba-tiny", &c), ITERA_OK);
    assert_int_equal(mamba_parameters(&c), 771712);
    /* state-spaces/mamba-130m. */
    assert_int_equal(itera_config_preset("mamba-130m", &c), ITERA_OK);
    assert_int_equal(c.dt_rank, 48);
    assert_int_equal(mamba_parameters(&c), 129135360);
}

/* The text with what follows `key":` up to the next comma replaced, or with a key that it lacks. */
static const char *with(const char *text, const char *key, const char *value)
{
    static char out[4096];
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":", key);
    const char *at = strstr(text, pattern);
    if (!at) {
        snprintf(out, sizeof out, "{%s%s,%s", pattern, value, text + 1);
        return out;
    }
    at += strlen(pattern);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, value,
             at + strcspn(at + (*at == '[' ? strcspn(at, "]") : 0), ",}") +
                 (*at == '[' ? strcspn(at, "]") : 0));
    return out;
}

static void test_bad(void **state)
{
    (void)state;
    const enum itera_status format = ITERA_ERR_FORMAT;
    assert_bad("", format, "line 1");
    assert_bad("{", format, "line 1");
    assert_bad("[1]", format, "JSON object");
    assert_bad("{\"vocab_size\":1,\"vocab_size\":2}", format, "duplicate");
    assert_bad("{}", format, "architecture");
    assert_bad("{\"architecture\":7}", format, "a string");
    assert_bad("{\"architecture\":\"rnn\"}", ITERA_ERR_UNSUPPORTED,
               "\"rnn\"; known are itera, transformer, mamba, itera-m");
    assert_bad("{\"model_type\":\"mamba2\"}", ITERA_ERR_UNSUPPORTED, "mamba2");

    static const struct {
        const char *text, *key, *value, *what;
    } cases[] = {
        {itera_text, "vocab_size", "0", "key \"vocab_size\": found 0, expected an integer from 1"},
        {itera_text, "vocab_size", "null", "found nothing"},
        {itera_text, "vocab_size", "\"61\"", "found \"61\""},
        {itera_text, "vocab_size", "61.5", "found 61.5"},
        {itera_text, "vocab_size", "1e300", "found 1e+300"},
        {itera_text, "vocab_size", "9223372036854775807", "vocab_size"},
        {itera_text, "hidden_size", "-24", "found -24"},
        {itera_text, "num_layers", "257", "1 to 256"},
        {itera_text, "num_layers", "3", "moe_layers"},
        {itera_text, "moe_layers", "[-1]", "layer numbers from 0 to 3"},
        {itera_text, "moe_layers", "[\"a\"]", "layer numbers"},
        {itera_text, "moe_layers", "3", "an array"},
        {itera_text, "ssm_state_size", "257", "1 to 256"},
        {itera_text, "ssm_conv_kernel", "17", "1 to 16"},
        {itera_text, "top_k_experts", "6", "at most num_experts 5"},
        {itera_text, "num_experts", "1", "num_experts"},
        {itera_text, "layer_norm_eps", "0", "layer_norm_eps"},
        {itera_text, "layer_norm_eps", "NaN", "found \"NaN\", expected a number"},
        {itera_text, "layer_norm_eps", "-Infinity", "found \"-Infinity\""},
        {mamba_text, "time_step_limit", "[0.0, Infinity", "line 1"},
        {itera_text, "load_balance_loss_weight", "-1", "load_balance_loss_weight"},
        {itera_text, "hidden_size", "16000", "ssm_expand_factor"},
        {mamba_text, "intermediate_size", "0", "intermediate_size"},
        {itera_text, "ssm_inner_size", "0", "ssm_inner_size"},
        {itera_text, "ssm_inner_size", "46341", "ssm_inner_size"},
        {jamba_text, "mamba_d_inner", "2000000", "1 to 1048576"},
        {mamba_text, "time_step_rank", "\"big\"", "\"auto\" or an integer"},
        {mamba_text, "time_step_rank", "0", "time_step_rank"},
        {mamba_text, "hidden_act", "\"gelu\"", "\"silu\""},
        {mamba_text, "use_bias", "0", "true or false"},
        {jamba_text, "expert_layer_offset", "3", "less than expert_layer_period"},
        {jamba_text, "expert_layer_period", "0", "expert_layer_period"},
        {jamba_text, "attn_layer_offset", "7", "less than attn_layer_period"},
        {jamba_text, "eos_token_id", "[100]", "below vocab_size"},
        {jamba_text, "pad_token_id", "100", "pad_token_id"},
        {jamba_text, "num_experts_per_tok", "5", "num_experts_per_tok"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_bad(with(cases[i].text, cases[i].key, cases[i].value), format, cases[i].what);

    assert_bad(with(jamba_text, "attn_layer_offset", "4"), ITERA_ERR_UNSUPPORTED,
               "layer 4 is an attention layer");
    struct itera_config c;
    assert_parses(with(jamba_text, "num_experts", "1"), &c);
    assert_false(c.moe[1]);
    assert_int_equal(c.top_k, 1);
    assert_round_trip(&c);
    /* As Python writes it, under a key that changes nothing here; the same letters in a string stay. */
    assert_parses(with(mamba_text, "time_step_limit", "[0.0, Infinity]"), &c);
    assert_parses(with(mamba_text, "_name_or_path", "\"a\\\"NaN\""), &c);
    assert_parses(with(itera_text, "hidden_size", "24.0"), &c);
    assert_int_equal(c.hidden, 24);
    assert_int_equal(itera_config_load(ITERA_SOURCE_DIR "/tests/data/none/config.json", &c),
                     ITERA_ERR_IO);
}

/* An inner size of its own, as pruning leaves it; files without the key are as they always were. */
static void test_inner(void **state)
{
    (void)state;
    static const struct {
        const char *text, *key;
    } families[] = {{itera_text, "ssm_inner_size"},
                    {mamba_text, "intermediate_size"},
                    {jamba_text, "mamba_d_inner"}};
    for (int f = 0; f < 3; f++) {
        struct itera_config c;
        char *text;
        assert_parses(with(families[f].text, families[f].key, "33"), &c);
        assert_int_equal(c.inner, 33);
        assert_round_trip(&c);
        c.inner = c.expand * c.hidden;
        assert_round_trip(&c);
        assert_int_equal(itera_config_to_json(&c, &text), ITERA_OK);
        assert_true((strstr(text, families[f].key) != NULL) == (f == 1));
        free(text);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct itera_config good, c;
    assert_parses(mamba_text, &good);
    c = good;
    c.vocab = 1 << 24;
    c.hidden = 1 << 16;
    c.inner = c.expand * c.hidden;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "1099511627776 elements"));
    c = good;
    c.inner = 0;
    assert_int_equal(itera_config_validate(&c, "x"), ITERA_ERR_FORMAT);
    c = good;
    c.moe[0] = true;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    c = good;
    c.architecture = (enum itera_architecture)9;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    char *text;
    assert_int_equal(itera_config_to_json(&c, &text), ITERA_ERR_FORMAT);
    assert_null(text);
    c = good;
    c.dt_min = 1;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);

    assert_int_equal(itera_config_preset("transformer-tiny", &c), ITERA_OK);
    c.heads = 3;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "divisor of hidden_size 128"));
    assert_int_equal(itera_config_preset("tiny", &c), ITERA_OK);
    c.tied_head = false;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    assert_int_equal(itera_config_preset("tiny", &c), ITERA_OK);
    c.moe[200] = true;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
    assert_int_equal(itera_config_preset("tiny", &c), ITERA_OK);
    c.experts = 256;
    c.expert_size = c.ffn = 1 << 20;
    assert_int_equal(itera_config_validate(&c, NULL), ITERA_ERR_FORMAT);
}

static void test_unknown_keys(void **state)
{
    (void)state;
    struct itera_config c;
    last_warning[0] = '\0';
    assert_parses("{\"architecture\":\"transformer\",\"vocab_size\":5,\"hidden_size\":4,"
                  "\"num_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":3,"
                  "\"max_seq_length\":3,\"num_layer\":9,\"foo\":1}",
                  &c);
    assert_string_equal(last_warning, "mem: 2 unknown keys ignored: num_layer, foo");
}

static void test_json_file(void **state)
{
    (void)state;
    json_t *value;
    assert_int_equal(itera_json_load(ITERA_SOURCE_DIR "/tests/data/none.json", &value),
                     ITERA_ERR_IO);
    assert_null(value);
    assert_int_equal(itera_json_parse("{\n \"a\": tru }", 13, "f.json", &value), ITERA_ERR_FORMAT);
    assert_non_null(strstr(itera_last_error(), "f.json: line 2, column "));
    assert_int_equal(itera_json_parse("{\"a\":\"\\u0000\"}", 14, "f", &value), ITERA_ERR_FORMAT);
    /* Deep nesting ends in an error, not in a stack overflow. */
    char *deep = malloc(100001);
    assert_non_null(deep);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    assert_int_equal(itera_json_parse(deep, 100000, "deep", &value), ITERA_ERR_FORMAT);
    free(deep);
}

int main(void)
{
    itera_set_log(on_log, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),  cmocka_unit_test(test_presets),
        cmocka_unit_test(test_bad),       cmocka_unit_test(test_inner),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_json_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
