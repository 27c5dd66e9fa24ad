#include "itera/corpus.h"
#include "itera/device.h"
#include "itera/model.h"
#include "itera/tokenizer.h"
#include "tests/support/test.h"

struct itera_device *open_cpu(int threads)
{
    const struct itera_device_options options = {.threads = threads};
    struct itera_device *device;
    return itera_device_open("cpu", &options, &device) ? NULL : device;
}

struct itera_model *make_model(struct itera_device *device, const char *config, int32_t vocab,
                               uint64_t seed)
{
    const struct itera_model_options options = {.vocab = vocab, .seed = seed};
    struct itera_model *model;
    assert_int_equal(itera_model_create(device, config, &options, &model), ITERA_OK);
    return model;
}

struct itera_dataset *bytes_of_source(const char *source)
{
    struct itera_corpus *corpus;
    struct itera_tokenizer *tokenizer;
    struct itera_dataset *dataset;
    assert_int_equal(itera_corpus_open(source, &corpus), ITERA_OK);
    assert_int_equal(itera_tokenizer_create("byte", corpus, &tokenizer), ITERA_OK);
    assert_int_equal(itera_dataset_create(corpus, tokenizer, &dataset), ITERA_OK);
    itera_tokenizer_destroy(&tokenizer);
    itera_corpus_destroy(&corpus);
    return dataset;
}
