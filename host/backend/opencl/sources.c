/* The kernel files: where they come from, which kernel is in which, and their includes. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/hash.h"
#include "backend/opencl/embedded.h"
#include "backend/opencl/opencl.h"
#include "core/environment.h"
#include "core/file.h"
#include "core/log.h"

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && !strcmp(text + length - tail, end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct opencl_source *)a)->name, ((const struct opencl_source *)b)->name);
}

static enum itera_status read_file(const char *folder, const char *name, struct opencl_source *out)
{
    char path[4096];
    struct itera_map map = {0};
    enum itera_status status = itera_path_join(path, sizeof path, folder, name);
    if (!status)
        status = itera_map_open(path, &map);
    if (status)
        return status;
    *out = (struct opencl_source){.owned = malloc(map.size + 1), .bytes = map.size};
    snprintf(out->name, sizeof out->name, "%s", name);
    if (out->owned) {
        memcpy(out->owned, map.size ? (const char *)map.data : "", map.size);
        out->owned[map.size] = '\0';
        out->text = out->owned;
    } else {
        status = itera_fail(ITERA_ERR_MEMORY, "no memory to read %s", path);
    }
    itera_map_close(&map);
    return status;
}

/* Adds the files of `folder`/`within`, under names that begin with `within`: "" or "args/". */
static enum itera_status read_files(const char *folder, const char *within,
                                    struct opencl_sources *sources)
{
    char path[4096];
    enum itera_status joined = itera_path_join(path, sizeof path, folder, within);
    if (joined)
        return joined;
    DIR *dir = opendir(path);
    if (!dir && *within && errno == ENOENT)
        return ITERA_OK; /* then no kernel of the folder includes one of these */
    if (!dir)
        return itera_fail(ITERA_ERR_IO, "ITERA_KERNEL_DIR: cannot read the folder %s", path);
    enum itera_status status = ITERA_OK;
    for (struct dirent *entry; !status && (entry = readdir(dir));) {
        char name[sizeof sources->files->name];
        int length = snprintf(name, sizeof name, "%s%s", within, entry->d_name);
        if ((!ends_with(entry->d_name, ".cl") && !ends_with(entry->d_name, ".clh")) || length < 0 ||
            (size_t)length >= sizeof name)
            continue;
        struct opencl_source *grown =
            realloc(sources->files, ((size_t)sources->n + 1) * sizeof *grown);
        if (!grown) {
            status = itera_fail(ITERA_ERR_MEMORY, "no memory to list %s", path);
            break;
        }
        sources->files = grown;
        status = read_file(folder, name, &grown[sources->n]);
        sources->n += !status;
    }
    closedir(dir);
    return status;
}

static enum itera_status read_folder(const char *folder, struct opencl_sources *sources)
{
    enum itera_status status = read_files(folder, "", sources);
    if (!status)
        status = read_files(folder, "args/", sources);
    if (!status && !sources->n)
        status = itera_fail(ITERA_ERR_IO, "ITERA_KERNEL_DIR: there are no kernels in %s", folder);
    if (!status)
        qsort(sources->files, (size_t)sources->n, sizeof *sources->files, by_name);
    return status;
}

static enum itera_status use_embedded(struct opencl_sources *sources)
{
    sources->files = calloc((size_t)opencl_n_embedded, sizeof *sources->files);
    if (!sources->files)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the OpenCL kernels");
    sources->n = opencl_n_embedded;
    for (int i = 0; i < sources->n; i++) {
        struct opencl_source *file = &sources->files[i];
        snprintf(file->name, sizeof file->name, "%s", opencl_embedded[i].name);
        file->text = opencl_embedded[i].text;
        file->bytes = opencl_embedded[i].bytes;
    }
    return ITERA_OK;
}

static int by_kernel(const void *a, const void *b)
{
    return strcmp(((const struct opencl_entry *)a)->name, ((const struct opencl_entry *)b)->name);
}

/* The name of the kernel that begins in this line, if one does. */
static bool begins_kernel(const char *line, char *name, size_t size)
{
    static const char begin[] = "kernel void ";
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    if (strncmp(line, begin, sizeof begin - 1))
        return false;
    line += sizeof begin - 1;
    size_t length = strspn(line, letters);
    if (!length || length >= size || line[length] != '(')
        return false;
    memcpy(name, line, length);
    name[length] = '\0';
    return true;
}

static enum itera_status index_kernels(struct opencl_sources *sources)
{
    struct opencl_entry entry;
    for (entry.file = 0; entry.file < sources->n; entry.file++) {
        const struct opencl_source *file = &sources->files[entry.file];
        for (const char *line = file->text; ends_with(file->name, ".cl") && *line;) {
            if (begins_kernel(line, entry.name, sizeof entry.name)) {
                size_t n = (size_t)sources->n_kernels + 1;
                struct opencl_entry *grown = realloc(sources->kernels, n * sizeof *grown);
                if (!grown)
                    return itera_fail(ITERA_ERR_MEMORY, "no memory for the OpenCL kernels");
                sources->kernels = grown;
                grown[sources->n_kernels++] = entry;
            }
            line += strcspn(line, "\n");
            line += *line == '\n';
        }
    }
    if (sources->n_kernels)
        qsort(sources->kernels, (size_t)sources->n_kernels, sizeof *sources->kernels, by_kernel);
    return ITERA_OK;
}

enum itera_status opencl_sources_open(struct opencl_sources *sources)
{
    *sources = (struct opencl_sources){0};
    const char *folder = itera_environment_kernel_dir();
    enum itera_status status = folder ? read_folder(folder, sources) : use_embedded(sources);
    if (!status)
        status = index_kernels(sources);
    if (status)
        opencl_sources_close(sources);
    return status;
}

void opencl_sources_close(struct opencl_sources *sources)
{
    for (int i = 0; i < sources->n; i++)
        free(sources->files[i].owned);
    free(sources->files);
    free(sources->kernels);
    *sources = (struct opencl_sources){0};
}

int opencl_sources_find(const struct opencl_sources *sources, const char *kernel)
{
    struct opencl_entry key;
    int length = snprintf(key.name, sizeof key.name, "%s", kernel);
    if (!sources->n_kernels || length < 0 || (size_t)length >= sizeof key.name)
        return -1;
    const struct opencl_entry *entry =
        bsearch(&key, sources->kernels, (size_t)sources->n_kernels, sizeof key, by_kernel);
    return entry ? entry->file : -1;
}

uint64_t opencl_sources_hash(const struct opencl_sources *sources)
{
    uint64_t hash = 0;
    for (int i = 0; i < sources->n; i++)
        hash = itera_gpu_hash(hash, sources->files[i].text, sources->files[i].bytes);
    return hash;
}

/* A text that grows; after a failure (no memory) it stays NULL. */
struct growing {
    char *text;
    size_t bytes, cap;
    bool failed;
};

static void append(struct growing *out, const char *text, size_t bytes)
{
    if (out->failed)
        return;
    if (out->bytes + bytes + 1 > out->cap) {
        size_t cap = (out->bytes + bytes + 1) * 2;
        char *grown = realloc(out->text, cap);
        if (!grown) {
            out->failed = true;
            return;
        }
        out->text = grown;
        out->cap = cap;
    }
    memcpy(out->text + out->bytes, text, bytes);
    out->bytes += bytes;
    out->text[out->bytes] = '\0';
}

/* Compilers then name the file and line that stand in kernels_cl/. */
static void append_line(struct growing *out, int line, const char *file)
{
    char text[96];
    int n = snprintf(text, sizeof text, "#line %d \"%s\"\n", line, file);
    append(out, text, (size_t)n);
}

/* The file that the line includes, or 0 when it is no include of a name in quotes. */
static size_t included(const char *line, size_t bytes, char *name, size_t size)
{
    static const char directive[] = "#include \"";
    size_t start = sizeof directive - 1;
    if (bytes <= start || memcmp(line, directive, start))
        return 0;
    const char *end = memchr(line + start, '"', bytes - start);
    size_t length = end ? (size_t)(end - line) - start : 0;
    if (!length || length >= size)
        return 0;
    memcpy(name, line + start, length);
    name[length] = '\0';
    return length;
}

static enum itera_status resolve(const struct opencl_sources *sources, int file, bool *done,
                                 struct growing *out)
{
    const struct opencl_source *source = &sources->files[file];
    done[file] = true;
    append_line(out, 1, source->name);
    const char *at = source->text, *end = source->text + source->bytes;
    for (int line = 1; at < end; line++) {
        const char *next = memchr(at, '\n', (size_t)(end - at));
        next = next ? next + 1 : end;
        char name[sizeof source->name];
        if (!included(at, (size_t)(next - at), name, sizeof name)) {
            append(out, at, (size_t)(next - at));
            at = next;
            continue;
        }
        int other = 0;
        while (other < sources->n && strcmp(sources->files[other].name, name))
            other++;
        if (other == sources->n)
            return itera_fail(ITERA_ERR_DEVICE,
                              "the kernel file %s includes %s, which is not there", source->name,
                              name);
        enum itera_status status = done[other] ? ITERA_OK : resolve(sources, other, done, out);
        if (status)
            return status;
        append(out, "\n", 1);
        append_line(out, line + 1, source->name);
        at = next;
    }
    return ITERA_OK;
}

enum itera_status opencl_sources_resolve(const struct opencl_sources *sources, int file,
                                         char **text, size_t *bytes)
{
    struct growing out = {0};
    bool *done = calloc((size_t)sources->n, sizeof *done);
    enum itera_status status = done ? resolve(sources, file, done, &out) : ITERA_OK;
    if (!status && (!done || out.failed))
        status = itera_fail(ITERA_ERR_MEMORY, "no memory for the kernel file %s",
                            sources->files[file].name);
    free(done);
    if (status) {
        free(out.text);
        return status;
    }
    *text = out.text;
    *bytes = out.bytes;
    return ITERA_OK;
}
