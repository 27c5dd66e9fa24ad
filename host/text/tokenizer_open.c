/* Finding the files of a tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "text/tokenizer_impl.h"

enum { PATH_BYTES = 4096 };

static enum itera_status open_json(const char *path, struct itera_tokenizer **out)
{
    struct itera_map map;
    enum itera_status status = itera_map_open(path, &map);
    if (status)
        return status;
    status = itera_tokenizer_from_json((const char *)map.data, map.size, path, out);
    itera_map_close(&map);
    return status;
}

static enum itera_status open_gpt2(const char *vocab_path, const char *merges_path,
                                   struct itera_tokenizer **out)
{
    struct itera_map vocab = {0}, merges = {0};
    enum itera_status status = itera_map_open(vocab_path, &vocab);
    if (!status)
        status = itera_map_open(merges_path, &merges);
    if (!status)
        status =
            itera_tokenizer_from_gpt2((const char *)vocab.data, vocab.size, vocab_path,
                                      (const char *)merges.data, merges.size, merges_path, out);
    itera_map_close(&vocab);
    itera_map_close(&merges);
    return status;
}

static bool ends_with(const char *path, const char *end)
{
    size_t a = strlen(path), b = strlen(end);
    return a >= b && strcmp(path + a - b, end) == 0;
}

/* PREFIXvocab.json and PREFIXmerges.txt, for a path that ends with `end`. */
static enum itera_status open_pair(const char *path, const char *end, struct itera_tokenizer **out)
{
    char vocab[PATH_BYTES], merges[PATH_BYTES];
    size_t prefix = strlen(path) - strlen(end);
    if (prefix + sizeof "merges.txt" + 1 > PATH_BYTES)
        return itera_fail(ITERA_ERR_LIMIT, "%.100s...: the path is too long", path);
    memcpy(vocab, path, prefix);
    memcpy(merges, path, prefix);
    memcpy(vocab + prefix, "vocab.json", sizeof "vocab.json");
    memcpy(merges + prefix, "merges.txt", sizeof "merges.txt");
    return open_gpt2(vocab, merges, out);
}

static enum itera_status open_directory(const char *path, struct itera_tokenizer **out)
{
    char file[PATH_BYTES];
    static const char *const names[] = {"tokenizer.json", "vocab.json", "gpt2_vocab.json"};
    for (int i = 0; i < 3; i++) {
        enum itera_status status = itera_path_join(file, sizeof file, path, names[i]);
        if (status)
            return status;
        if (itera_file_exists(file))
            return i == 0 ? open_json(file, out) : open_pair(file, "vocab.json", out);
    }
    return itera_fail(
        ITERA_ERR_IO,
        "%s: no tokenizer here; expected tokenizer.json, or vocab.json and merges.txt", path);
}

enum itera_status itera_tokenizer_open(const char *path, struct itera_tokenizer **out)
{
    *out = NULL;
    if (itera_is_directory(path))
        return open_directory(path, out);
    if (ends_with(path, "vocab.json"))
        return open_pair(path, "vocab.json", out);
    if (ends_with(path, "merges.txt"))
        return open_pair(path, "merges.txt", out);
    return open_json(path, out);
}
