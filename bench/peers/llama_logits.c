/* Logits of one sequence by llama.cpp, so that llama_cpp.py can check that it measures the same
 * work. Usage: llama-logits MODEL.gguf OUT.f32 ID... ; writes (ids, vocabulary) float32.
 * Build beside llama.cpp: see README.md. */
#include <stdio.h>
#include <stdlib.h>

#include "llama.h"

static int write_logits(struct llama_context *context, int vocab, int n, const char *path)
{
    FILE *out = fopen(path, "wb");
    if (!out)
        return 1;
    int failed = 0;
    for (int i = 0; i < n && !failed; i++)
        failed = fwrite(llama_get_logits_ith(context, i), sizeof(float), (size_t)vocab, out) !=
                 (size_t)vocab;
    return fclose(out) || failed;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: llama-logits MODEL.gguf OUT.f32 ID...\n");
        return 2;
    }
    const int n = argc - 3;
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)n;
    struct llama_context *context = model ? llama_init_from_model(model, params) : NULL;
    if (!context) {
        fprintf(stderr, "llama-logits: %s cannot be loaded\n", argv[1]);
        return 1;
    }
    const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch.token[i] = (llama_token)strtol(argv[3 + i], NULL, 10);
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    int failed = llama_decode(context, batch);
    if (!failed)
        failed = write_logits(context, vocab, n, argv[2]);
    if (failed)
        fprintf(stderr, "llama-logits: no logits in %s\n", argv[2]);
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return failed ? 1 : 0;
}
