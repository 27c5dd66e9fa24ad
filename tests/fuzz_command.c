/* Mutation fuzzer of the whole command: makes small files of every kind that it reads, changes one
 * of them at random, and runs the command on it. Any end is fine but a signal, a report of a
 * sanitizer, a hang, an exit status of no meaning, or a failure without a word.
 *
 *   fuzz_command ITERA FOLDER [--seed S] [--seconds T] [--runs N] [--only I]
 *
 * Everything happens in FOLDER, which is made. Input I of seed S is the same on every machine:
 * --only I makes that one alone. What failed is kept as FOLDER/failed-S-I with the command. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum {
    MAX_ARGS = 32,
    MAX_BYTES = 4 << 20,
    PATIENCE = SANITIZED ? 60 : 15, /* seconds: then it hangs */
    SHORT = SANITIZED ? 8 : 2,      /* for what may rightly go on, like a training run */
};
static const rlim_t MEMORY = (rlim_t)3 << 30; /* of address space; sanitizers need all of it */

static char itera[4096];

/* ---- random numbers: splitmix64 */

static uint64_t state;

static uint64_t draw(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t below(size_t n)
{
    return n ? (size_t)(draw() % n) : 0;
}

/* ---- a file in memory */

static struct {
    unsigned char data[MAX_BYTES + 65536];
    size_t size;
} file;

static void die(const char *what, const char *name)
{
    fprintf(stderr, "fuzz_command: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static void load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        die("cannot read", path);
    file.size = fread(file.data, 1, MAX_BYTES, f);
    fclose(f);
}

static void save(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        die("cannot write", path);
}

/* Puts `with` where `length` bytes from `at` were. */
static void replace(size_t at, size_t length, const void *with, size_t size)
{
    if (at > file.size)
        at = file.size;
    if (length > file.size - at)
        length = file.size - at;
    if (file.size - length + size > MAX_BYTES)
        return;
    memmove(file.data + at + size, file.data + at + length, file.size - at - length);
    memcpy(file.data + at, with, size);
    file.size = file.size - length + size;
}

/* ---- mutations, of the bytes from `first` to `end` */

static const char *const words[] = {"-1",
                                    "0",
                                    "1",
                                    "2",
                                    "1e308",
                                    "-0.0",
                                    "1e-320",
                                    "0.5",
                                    "255",
                                    "256",
                                    "257",
                                    "32767",
                                    "65536",
                                    "2147483647",
                                    "2147483648",
                                    "-2147483648",
                                    "4294967295",
                                    "4294967296",
                                    "9007199254740993",
                                    "9223372036854775807",
                                    "9223372036854775808",
                                    "18446744073709551616",
                                    "1e999",
                                    "NaN",
                                    "Infinity",
                                    "null",
                                    "true",
                                    "false",
                                    "\"\"",
                                    "[]",
                                    "{}",
                                    "[[]]",
                                    "{\"\":{}}",
                                    "\"\\u0000\"",
                                    "\"\\ud800\"",
                                    "\"a\\tb\"",
                                    "[0,0]",
                                    "[-1,1]",
                                    "[1,2,3,4,5,6,7,8,9]",
                                    "\"F16\"",
                                    "\"I64\"",
                                    "\"(a+)+$\"",
                                    "\"(?:a|aa)*\\\\p{L}\"",
                                    "\"[^\\\\s\"",
                                    "\"\\\\\"",
                                    "\xff\xfe",
                                    "\xef\xbb\xbf",
                                    "\xf0\x9f\x98\x80",
                                    "\x1b[2J",
                                    "\xe2\x80\xae",
                                    "<|endoftext|>",
                                    "{",
                                    "}",
                                    "[",
                                    "]",
                                    ",",
                                    ":",
                                    "\""};
enum { WORDS = sizeof words / sizeof *words };

static bool in_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' ||
           c == '"' || c == '_' || (c >= 'A' && c <= 'Z');
}

/* A number, name or string at random becomes another. */
static void change_word(size_t first, size_t end)
{
    size_t at = first + below(end - first);
    while (at < end && !in_word(file.data[at]))
        at++;
    size_t from = at;
    while (from > first && in_word(file.data[from - 1]))
        from--;
    while (at < end && in_word(file.data[at]))
        at++;
    const char *word = words[below(WORDS)];
    replace(from, at - from, word, strlen(word));
}

static void change_number(size_t first, size_t end)
{
    size_t at = first + below(end - first);
    while (at < end && (file.data[at] < '0' || file.data[at] > '9'))
        at++;
    size_t to = at;
    while (to < end && file.data[to] >= '0' && file.data[to] <= '9')
        to++;
    char text[32];
    long long value = 0;
    for (size_t i = at; i < to && i < at + 17; i++)
        value = value * 10 + (file.data[i] - '0');
    static const int steps[] = {-1, 1, 2, 8, 64, -64};
    snprintf(text, sizeof text, "%lld", below(4) ? value + steps[below(6)] : value * 2);
    if (to > at)
        replace(at, to - at, text, strlen(text));
}

static void nest(size_t at)
{
    static char deep[30000];
    const char *open = below(2) ? "[" : "{\"a\":";
    size_t count = 1 + below(below(2) ? 10 : 5000), length = strlen(open);
    for (size_t i = 0; i < count; i++)
        memcpy(deep + i * length, open, length);
    replace(at, 0, deep, count * length);
}

static void mutate_once(size_t first, size_t end)
{
    if (end > file.size)
        end = file.size;
    if (first > end)
        first = end;
    const size_t at = first + below(end - first), left = end - at;
    unsigned char piece[4096];
    size_t size = 1 + below(below(4) ? 8 : sizeof piece);
    switch (below(12)) {
    case 0: /* a bit */
        if (at < file.size)
            file.data[at] ^= (unsigned char)(1 << below(8));
        break;
    case 1: /* bytes */
        for (size_t i = 0; i < size && i < left; i++)
            file.data[at + i] = (unsigned char)draw();
        break;
    case 2: /* a float that is none, or far out */
    {
        static const uint32_t floats[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff, 1,
                                          0x80000000, 0x7c007c00, 0xfe00fe00, 0xffffffff};
        size_t aligned = at / 4 * 4;
        if (aligned >= first && aligned + 4 <= end)
            memcpy(file.data + aligned, &floats[below(9)], 4);
        break;
    }
    case 3: /* less */
        replace(at, size < left ? size : left, "", 0);
        break;
    case 4: /* twice */
    {
        size_t from = first + below(end - first);
        if (size > end - from)
            size = end - from;
        memcpy(piece, file.data + from, size);
        replace(at, 0, piece, size);
        break;
    }
    case 5: /* the end */
        if (below(3) == 0)
            file.size = at;
        break;
    case 6:
        nest(at);
        break;
    case 7: /* something between */
    {
        const char *word = words[below(WORDS)];
        replace(at, 0, word, strlen(word));
        break;
    }
    case 8:
    case 9:
        change_number(first, end);
        break;
    default:
        change_word(first, end);
    }
}

/* Of safetensors the header most of the time, with a length that fits it: a reader that sees no
 * header sees nothing. */
static void mutate(bool safetensors)
{
    for (size_t n = 1 + below(below(3) ? 2 : 12); n > 0; n--) {
        uint64_t header = 0;
        if (safetensors && file.size >= 8)
            memcpy(&header, file.data, 8);
        if (!safetensors || file.size < 8 || header > file.size - 8 || below(4) == 0) {
            mutate_once(0, file.size);
            continue;
        }
        const size_t data = file.size - 8 - (size_t)header;
        mutate_once(8, 8 + (size_t)header);
        if (file.size >= 8 + data) {
            header = file.size - 8 - data;
            memcpy(file.data, &header, 8);
        }
    }
}

/* ---- running the command, in the folder that is the current one */

static const char *const environment[] = {
    "PATH=/usr/bin:/bin",
    "LC_ALL=C",
    "ITERA_CACHE_DIR=cache",
    "ASAN_OPTIONS=intercept_tls_get_addr=0:allocator_may_return_null=1:detect_leaks=0",
    "UBSAN_OPTIONS=print_stacktrace=1",
    NULL};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void become(char *const *arguments)
{
    int in = open("/dev/null", O_RDONLY);
    int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (in < 0 || out < 0 || err < 0)
        _exit(99);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){256 << 20, 256 << 20});
    if (!SANITIZED)
        setrlimit(RLIMIT_AS, &(struct rlimit){MEMORY, MEMORY});
    execve(itera, arguments, (char *const *)environment);
    _exit(99);
}

/* Whether it ended within these seconds. */
static bool ended(pid_t child, double seconds, int *result)
{
    for (double until = now() + seconds, nap = 0.0005; now() < until;) {
        pid_t got = waitpid(child, result, WNOHANG);
        if (got == child)
            return true;
        struct timespec pause = {0, (long)(nap * 1e9)};
        nanosleep(&pause, NULL);
        nap = nap < 0.02 ? nap * 1.5 : nap;
    }
    return false;
}

static bool contains(const char *path, const char *word)
{
    static char text[65536];
    FILE *f = fopen(path, "rb");
    size_t size = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    return memmem(text, size, word, strlen(word)) != NULL;
}

static bool is_empty(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || st.st_size == 0;
}

/* NULL, or what is wrong with how the command ended. patient: it may go on for long, if it stops
 * when it is asked to. */
static const char *run(char *const *arguments, bool patient)
{
    static char text[64];
    pid_t child = fork();
    if (child == 0)
        become(arguments);
    if (child < 0)
        die("cannot run", itera);
    int result = 0;
    if (!ended(child, patient ? SHORT : PATIENCE, &result)) {
        if (patient)
            kill(child, SIGINT);
        if (!patient || !ended(child, PATIENCE, &result)) {
            kill(child, SIGKILL);
            waitpid(child, &result, 0);
            return "hangs";
        }
        if (WIFSIGNALED(result) && WTERMSIG(result) == SIGINT)
            return NULL;
    }
    if (contains("err", "Sanitizer:") || contains("err", "runtime error:"))
        return "a sanitizer's report";
    if (WIFSIGNALED(result)) {
        snprintf(text, sizeof text, "signal %d", WTERMSIG(result));
        return text;
    }
    int status = WEXITSTATUS(result);
    if (status != 0 && status != 1 && status != 2 && status != 77 &&
        !(patient && status == 128 + SIGINT)) {
        snprintf(text, sizeof text, "exit status %d", status);
        return text;
    }
    return status && is_empty("err") && is_empty("out") ? "fails without a word" : NULL;
}

/* ---- what is mutated, and what is run on it */

static const struct job {
    const char *target; /* of the seed files; in the folder of a run under the same name */
    const char *command;
    bool patient;
} jobs[] = {
    {"run/model.safetensors", "info run/model.safetensors", false},
    {"run/model.safetensors", "logits run/model.safetensors --tokens 1,2,3 -d cpu -t 1 -o o.st",
     false},
    {"run/model.safetensors", "generate run/model.safetensors -p ab -n 4 -d cpu -t 1", true},
    {"run/model.safetensors", "quantize run/model.safetensors --to mixed -o o.st", false},
    {"run/model.safetensors", "tokenize run/model.safetensors aba --pieces", false},
    {"bpe.safetensors", "generate bpe.safetensors -p ab -n 4 -d cpu -t 1", true},
    {"bpe.safetensors", "tokenize bpe.safetensors aba --json", false},
    {"q4.safetensors", "generate q4.safetensors -p ab -n 4 -d cpu -t 1", true},
    {"q4.safetensors", "info q4.safetensors --json", false},
    {"c.json", "info --preset c.json", false},
    {"c.json",
     "train --config c.json --tokenizer byte --data text --steps 1 --batch 1 --seq 8 "
     "--eval-tokens 8 -d cpu -t 1 --out new",
     true},
    {"tokenizer.json", "tokenize tokenizer.json -f text", false},
    {"tokenizer.json", "tokenize tokenizer.json --special --pieces -f text", false},
    {"pair/vocab.json", "tokenize pair -f text", false},
    {"pair/merges.txt", "tokenize pair -f text", false},
    {"text", "tokenize byte -f text --json", false},
    {"text", "eval bpe.safetensors --data text --tokens 200 -d cpu -t 1", true},
    {"bench.json", "compare bench.json", false},
    {"bench.json", "compare --check bench.json", false},
    {"bench.json", "compare base.json bench.json --html o.html --csv o.csv --json o.json", false},
    {"run/checkpoint/state.json", "train --resume --out run -d cpu -t 1", true},
    {"run/checkpoint/m.safetensors", "train --resume --out run -d cpu -t 1", true},
    {"run/checkpoint/v.safetensors", "train --resume --out run -d cpu -t 1", true},
    {"run/checkpoint/model.safetensors", "train --resume --out run -d cpu -t 1", true},
    {"run/train.jsonl", "train --resume --out run -d cpu -t 1", true},
};
enum { JOBS = sizeof jobs / sizeof *jobs };

static const char *run_line(const char *line, bool patient)
{
    char copy[1024], *arguments[MAX_ARGS] = {itera};
    int n = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *save_at, *word = strtok_r(copy, " ", &save_at); word && n < MAX_ARGS - 1;
         word = strtok_r(NULL, " ", &save_at))
        arguments[n++] = word;
    return run(arguments, patient);
}

static void shell(const char *format, const char *a, const char *b)
{
    char command[9000];
    snprintf(command, sizeof command, format, a, b);
    if (system(command) != 0)
        die("failed:", command);
}

static void make(const char *line)
{
    const char *wrong = run_line(line, false);
    if (wrong) {
        fprintf(stderr, "fuzz_command: itera %s: %s\n", line, wrong);
        exit(1);
    }
}

static void put(const char *name, const char *text)
{
    save(name, text, strlen(text));
}

/* In the current folder: one small file of each kind, by the command itself where it makes such. */
static void make_seeds(void)
{
    put("c.json", "{\"architecture\": \"itera\", \"vocab_size\": 257, \"hidden_size\": 16, "
                  "\"num_layers\": 1, \"ssm_state_size\": 4, \"num_experts\": 2, "
                  "\"expert_size\": 32, \"max_seq_length\": 32}\n");
    put("text", "Once upon a time there was a cat. It's 12 o'clock, isn't it?\n\n\tabab  aba "
                "\xc3\xa9\xe2\x82\xac \xf0\x9f\x98\x80<|endoftext|>The end of ababa.\n");
    mkdir("pair", 0777);
    put("pair/vocab.json", "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"ab\":5,"
                           "\"aba\":6,\"\xc4\xa0\":7}");
    put("pair/merges.txt", "#version: 0.2\na b\nab a\n");
    put("tokenizer.json",
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":6,"
        "\"content\":\"<|endoftext|>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":true,"
        "\"normalized\":false,\"special\":true}],\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},"
        "\"content\":\"a\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{"
        "\"type\":\"Split\",\"pattern\":{\"Regex\":\"'s|\\\\p{L}+|\\\\s+(?!\\\\S)|[^\\\\s\\\\p{L}]"
        "{1,3}\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
        "\"dropout\":null,\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
        "\"vocab\":{\"a\":0,\"b\":1,\"e\":2,\"t\":3,\"ab\":4,\"aba\":5},"
        "\"merges\":[\"a b\",\"ab a\"]}}");
    static const char bench[] =
        "{\"schema\":\"itera-bench/1\",\"host\":{\"cpu\":\"A\",\"itera\":\"1\",\"date\":"
        "\"2026-01-01T00:00:00Z\"},\"runs\":[{\"device\":\"cpu\",\"threads\":2,\"dtype\":\"f32\","
        "\"phase\":\"decode\",\"op\":\"matmul\",\"case\":\"1x1\",\"latency_ms\":{\"p50\":10,"
        "\"low\":9.9,\"high\":10.1}},{\"device\":\"cpu\",\"threads\":2,\"dtype\":\"q8\",\"phase\":"
        "\"prefill\",\"op\":\"scan\",\"case\":\"3x2\",\"latency_ms\":{\"p50\":1e-3,\"low\":0.0009,"
        "\"high\":0.0012}}]}\n";
    put("bench.json", bench);
    put("base.json", bench);
    make("train --config c.json --tokenizer byte --data builtin:stories?bytes=4000 --valid "
         "builtin:stories?valid&bytes=400 --steps 2 --batch 1 --seq 16 --eval-tokens 16 -t 1 "
         "-d cpu --out run");
    make("train --config c.json --tokenizer bpe:270 --data builtin:stories?bytes=4000 --steps 1 "
         "--batch 1 --seq 16 --eval-tokens 16 -t 1 -d cpu --out other");
    make("quantize run/model.safetensors --to q4 -o q4.safetensors");
    shell("mv other/model.safetensors bpe.safetensors; rm -rf other cache out err %s%s", "", "");
    for (int i = 0; i < JOBS; i++)
        if (access(jobs[i].target, R_OK))
            die("no seed", jobs[i].target);
}

/* One input: true when all is well. */
static bool try_input(uint64_t seed, long number)
{
    state = seed * UINT64_C(0x100000001b3) + (uint64_t)number;
    draw();
    const struct job *job = &jobs[below(JOBS)];
    shell("rm -rf work && cp -r seeds work%s%s", "", "");
    if (chdir("work"))
        die("cannot enter", "work");
    load(job->target);
    const char *dot = strrchr(job->target, '.');
    mutate(dot && !strcmp(dot, ".safetensors"));
    save(job->target, file.data, file.size);
    const char *wrong = run_line(job->command, job->patient);
    if (chdir(".."))
        die("cannot leave", "work");
    if (!wrong)
        return true;
    char name[128];
    snprintf(name, sizeof name, "failed-%llu-%ld", (unsigned long long)seed, number);
    shell("rm -rf %s && cp -r work %s", name, name);
    printf("FAIL: %s: with %s of %s: itera %s\n", wrong, job->target, name, job->command);
    shell("head -n 12 %s/err%s", name, "");
    return false;
}

static bool option(const char *name, int argc, char **argv, double *value)
{
    for (int i = 3; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], name)) {
            *value = strtod(argv[i + 1], NULL);
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc % 2 == 0) {
        fprintf(stderr, "usage: fuzz_command ITERA FOLDER [--seed S] [--seconds T] [--runs N] "
                        "[--only I]\n");
        return 2;
    }
    double seed = (double)(time(NULL) % 1000000000), seconds = 1e9, runs = 1e9, only = -1;
    option("--seed", argc, argv, &seed);
    option("--seconds", argc, argv, &seconds);
    option("--runs", argc, argv, &runs);
    option("--only", argc, argv, &only);
    if (!realpath(argv[1], itera))
        die("there is no", argv[1]);
    const double begun = now();
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir(argv[2], 0777);
    if (chdir(argv[2]))
        die("cannot enter", argv[2]);
    shell("rm -rf seeds work && mkdir seeds%s%s", "", "");
    if (chdir("seeds"))
        die("cannot enter", "seeds");
    make_seeds();
    if (chdir(".."))
        die("cannot leave", "seeds");

    printf("seed %.0f\n", seed);
    if (only >= 0)
        return !try_input((uint64_t)seed, (long)only);
    long tried = 0, failed = 0;
    for (; tried < (long)runs && now() - begun < seconds; tried++)
        failed += !try_input((uint64_t)seed, tried);
    printf("%ld inputs, %ld failed\n", tried, failed);
    return failed > 0;
}
