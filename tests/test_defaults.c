/* No options are all defaults, in every function that takes some. */

#include "itera/itera.h"
#include "tests/support/test.h"

static void test_no_options(void **state)
{
    (void)state;
    struct itera_device *device;
    struct itera_model *model, *made;
    struct itera_corpus *corpus;
    struct itera_tokenizer *tokenizer;
    struct itera_dataset *data;
    assert_int_equal(itera_device_open("cpu", NULL, &device), ITERA_OK);
    assert_int_equal(itera_corpus_open("builtin:stories?bytes=4000", &corpus), ITERA_OK);
    assert_int_equal(itera_model_create(device, "micro", NULL, &model), ITERA_OK);
    assert_int_equal(itera_tokenizer_train("char", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_model_set_tokenizer(model, tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, itera_model_tokenizer(model), &data), ITERA_OK);

    struct itera_session *session;
    int32_t token;
    assert_int_equal(itera_session_create(model, NULL, &session), ITERA_OK);
    assert_int_equal(itera_session_set_sampling(session, -1, NULL), ITERA_OK);
    assert_int_equal(itera_session_prefill(session, NULL, 0), ITERA_OK);
    assert_int_equal(itera_session_next(session, &token), ITERA_OK);
    itera_session_destroy(&session);

    struct itera_eval_result result;
    assert_int_equal(itera_evaluate(model, data, NULL, &result), ITERA_OK);
    assert_true(result.nll > 0);

    struct itera_prune_sizes sizes;
    struct itera_prune_report *pruned;
    assert_int_equal(itera_prune_plan(model, NULL, &sizes), ITERA_ERR_ARGUMENT);
    assert_int_equal(itera_prune(model, data, NULL, &made, &pruned), ITERA_ERR_ARGUMENT);

    assert_int_equal(itera_quantize(model, NULL, &made), ITERA_OK);
    assert_true(itera_model_info(made)->bytes < itera_model_info(model)->bytes / 2);
    itera_model_destroy(&made);

    /* Every token of the tokenizer is in the text that it was made from. */
    struct itera_vocab_report vocab;
    assert_int_equal(itera_vocab_reduce(model, corpus, NULL, &made, &vocab), ITERA_OK);
    assert_true(vocab.vocab_after < vocab.vocab_before);
    itera_model_destroy(&made);

    struct itera_distill *distill;
    assert_int_equal(itera_distill_create(device, NULL, &distill), ITERA_ERR_ARGUMENT);
    struct itera_trainer *trainer;
    assert_int_equal(itera_trainer_create(device, NULL, &trainer), ITERA_OK);
    assert_int_equal(itera_trainer_options(trainer)->batch, 8);
    itera_trainer_destroy(&trainer);
    assert_int_equal(itera_bench_measure(NULL, 0, NULL), ITERA_OK);
    assert_int_equal(itera_check_model("no such model", NULL, NULL, NULL, NULL, NULL),
                     ITERA_ERR_IO);

    itera_dataset_destroy(&data);
    itera_corpus_destroy(&corpus);
    itera_model_destroy(&model);
    itera_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
