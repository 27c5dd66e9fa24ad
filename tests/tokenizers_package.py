"""Tokenizer files of many makes: the command gives the ids that the `tokenizers` package gives, or
refuses the file with a reason. Each is trained here on a little text, with the parts of the published
one that it is named after. What the command writes into a model, the package reads back.

Usage: tokenizers_package.py ITERA FOLDER [TEXTS]   (exit status 77: the package is not installed)
ITERA_DATA: the folder of data sets, of which tinyshakespeare trains and wikitext-2 is encoded, too.
"""
import json
import os
import random
import subprocess
import sys
import unicodedata

try:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre, trainers
except ImportError:
    print("tokenizers_package.py: skipped: there is no package tokenizers (pip install tokenizers)")
    sys.exit(77)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = CL100K.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve"
         r"|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s"
         r"|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
KIMI = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}"
        r"\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}"
        r"\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
PUNCTUATION = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(Regex(pattern), behavior, invert)


def byte_level(prefix=False, regex=False):
    return pre.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def sequence(*parts):
    return pre.Sequence(list(parts))


SPACES = [AddedToken(" " * n, normalized=False) for n in range(2, 8)]
MARKS = [AddedToken("<s>", special=True), AddedToken("</s>", special=True),
         AddedToken("<mask>", lstrip=True, special=True)]
END = [AddedToken("<|endoftext|>", special=True)]

# name: normalizer, pre-tokenizer, options of the model, added tokens
STYLES = {
    "gpt2": (None, byte_level(regex=True), {}, END),
    "gpt2-prefix-space": (None, byte_level(True, True), {}, END),
    "roberta": (None, byte_level(True, True), {}, MARKS),
    "bart-normalized-marks": (None, byte_level(regex=True), {},
                              [AddedToken("<s>", normalized=True), AddedToken(" the", rstrip=True)]),
    "neox": (normalizers.NFC(), byte_level(regex=True), {}, END + SPACES),
    "codegen": (None, byte_level(regex=True), {}, END + SPACES + [AddedToken("\t\t")]),
    "llama3": (None, sequence(split(CL100K), byte_level()), {"ignore_merges": True},
               [AddedToken("<|begin_of_text|>", special=True)]),
    "gpt4": (None, sequence(split(CL100K, "removed", True), byte_level()), {}, END),
    "gpt4o": (None, sequence(split(O200K), byte_level()), {}, END),
    "qwen2": (normalizers.NFC(), sequence(split(QWEN), byte_level()), {},
              [AddedToken("<|im_start|>", special=True)]),
    "kimi": (None, sequence(split(KIMI), byte_level()), {"ignore_merges": True}, END),
    "bloom": (None, sequence(split(BLOOM), byte_level()), {}, MARKS),
    "falcon": (None, sequence(pre.Punctuation("contiguous"), byte_level(regex=True), pre.Digits(False),
                              split("[0-9][0-9][0-9]")), {}, END),
    "granite": (None, sequence(pre.Digits(True), byte_level(regex=True)), {}, END),
    "command-r": (normalizers.NFC(), sequence(pre.Digits(True), byte_level(regex=True)), {}, MARKS),
    "deepseek": (normalizers.Sequence([]),
                 sequence(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(PUNCTUATION), split(r"\s+$"),
                          split("[一-龥ࠀ-一가-퟿]+"), pre.Digits(True), byte_level()), {}, END),
    "deepseek3": (None, sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                                 split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}"
                                       r"\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                                 byte_level()), {}, END),
    "nfkc-lowercase": (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(),
                                             normalizers.Strip()]), byte_level(regex=True), {}, END),
    "nfd-no-accents": (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
                       byte_level(regex=True), {}, END),
    "nfkd": (normalizers.NFKD(), byte_level(regex=True), {}, END),
    "replace": (normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}"), " "),
                                      normalizers.Replace("``", '"'), normalizers.Prepend("_")]),
                byte_level(regex=True), {}, END),
    "strip-left": (normalizers.Strip(left=True, right=False), byte_level(True, True), {}, MARKS),
    "whitespace": (None, sequence(pre.Whitespace(), byte_level()), {}, END),
    "whitespace-split": (None, sequence(pre.WhitespaceSplit(), byte_level(True)), {}, END),
    "removed": (None, sequence(split(" ", "removed"), byte_level()), {}, END),
    "with-previous": (None, sequence(split(r"\p{P}", "merged_with_previous"), byte_level()), {}, END),
    "with-next": (None, sequence(split(r"\s", "merged_with_next"), byte_level()), {}, END),
    "contiguous-inverted": (None, sequence(split(r"\w+", "contiguous", True), byte_level()), {}, END),
    "delimiter": (None, sequence(pre.CharDelimiterSplit("_"), byte_level(regex=True)), {}, END),
    "single-word": (None, byte_level(regex=True), {},
                    [AddedToken("ab", single_word=True), AddedToken("é", single_word=True, lstrip=True,
                                                                   rstrip=True)]),
    "unknown": (None, byte_level(regex=True), {"unk_token": "<unk>", "fuse_unk": True},
                [AddedToken("<unk>", special=True)]),
    "llama2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None,
               {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}, MARKS),
    "metaspace": (None, pre.Metaspace(), {}, MARKS),
}

WORDS = ["don't", "I'LL", "we've", "HELLO", "naïve", "ｆｕｌｌ", "ﬁne", "東京", "한국어", "हिन्दी", "עברית", "ǅ", "ß", "İ",
         "K", "Ω", "e\u0301", "\u1100\u1161", "👩‍👩‍👧", "🏳️‍🌈", "…", "。", "``x''", "1234567", "٣٤٥", "Ⅷ", "x_y__z",
         "<s>", "</s>", "<mask>", "<|endoftext|>", "<unk>", "<|im_start|>", " the", "ab", "abc", "(a|b)", "[x]",
         "http://a.b/c?d=e", "a=b;", "\ufeff", "\u200b", "\u180e", "\u00a0", "\u3000", "\u2028", "\x85",
         "\x1c", "\x7f", "'s", "'S", "’s", "ſ", "'ſ", "▁", "Ġ", "\U0001d400", "\U0010ffff"]
SPACE = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u2003", "\v", "\f", "          "]


# Characters that combine: after marks of other classes, too
MARKED = [chr(c) for c in range(0x300, 0x1f000) if unicodedata.category(chr(c))[0] == "M"]


def assigned(rng):
    if rng.random() < 0.2:
        return rng.choice(MARKED)
    while True:
        c = chr(rng.randrange(1, 0x110000 if rng.random() < 0.2 else 0x3100))
        if unicodedata.category(c) not in ("Cs", "Cn"):
            return c


def hard_texts(count, seed):
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 14)):
            kind = rng.randrange(8)
            if kind < 3:
                parts.append(rng.choice(WORDS))
            elif kind < 5:
                parts.append(rng.choice(SPACE))
            elif kind < 6:
                parts.append("".join(assigned(rng) for _ in range(rng.randrange(1, 5))))
            elif kind < 7:
                parts.append("".join(rng.choice("abcdeLMNO .,'!0123 ") for _ in range(rng.randrange(1, 9))))
            else:
                parts.append(rng.choice(["a", "Z", "9", "-", "'", '"']) * rng.randrange(1, 40))
        texts.append("".join(parts))
    return texts


def lines_of(*path):
    file = os.path.join(os.environ.get("ITERA_DATA", ""), *path)
    if not os.path.isfile(file):
        print(f"tokenizers_package.py: without {os.path.join(*path)} (ITERA_DATA names its folder)")
        return []
    with open(file, encoding="utf-8", newline="") as f:
        return [line for line in f.read().split("\n") if line]


def train(style, lines):
    normalizer, pre_tokenizer, options, added = STYLES[style]
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre.ByteLevel.alphabet() if style not in ("llama2", "metaspace") else []
    special = [t.content for t in added if t.special]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=special, show_progress=False))
    tokenizer.add_special_tokens([t for t in added if t.special])
    tokenizer.add_tokens([t for t in added if not t.special])
    return tokenizer


def ours(itera, file, texts, folder):
    """A list of ids for each text, or the reason why the file is refused."""
    path = os.path.join(folder, "texts")
    with open(path, "wb") as f:
        f.write(b"\0".join(t.encode() for t in texts))
    done = subprocess.run([itera, "tokenize", file, "--special", "-0", "-f", path], capture_output=True)
    if done.returncode:
        return done.stderr.decode(errors="replace").strip()
    return [[int(i) for i in line.split()] for line in done.stdout.decode().split("\n")[:-1]]


def compare(name, tokenizer, got, texts):
    """How many texts have other ids."""
    expected = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    if len(got) != len(texts):
        print(f"FAIL: {name}: ids of {len(got)} texts for {len(texts)}")
        return len(texts)
    wrong = [i for i, (a, b) in enumerate(zip(got, expected)) if a != b]
    for i in wrong[:3]:
        print(f"FAIL: {name}: {texts[i]!r}\n  is       {got[i]}\n  expected {expected[i]}")
    return len(wrong)


def saved(itera, file, folder):
    """The tokenizer that the command writes into a model."""
    config = os.path.join(folder, "c.json")
    with open(config, "w") as f:
        json.dump({"architecture": "itera", "hidden_size": 8, "num_layers": 1, "ssm_state_size": 2,
                   "num_experts": 2, "expert_size": 8,
                   "vocab_size": len(json.load(open(file))["model"]["vocab"]) + 64, "max_seq_length": 16, "eos_token_id": 0}, f)
    done = subprocess.run([itera, "train", "--config", config, "--tokenizer", file, "--data",
                           "builtin:stories?bytes=9000", "--steps", "1", "--batch", "1", "--seq", "8", "--valid",
                           "none", "-d", "cpu", "-t", "1", "--force", "--out", os.path.join(folder, "run")],
                          capture_output=True)
    if done.returncode:
        return None, done.stderr.decode(errors="replace").strip()
    with open(os.path.join(folder, "run", "model.safetensors"), "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return header["__metadata__"].get("itera.tokenizer"), ""


def main():
    itera, folder = os.path.realpath(sys.argv[1]), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
    os.makedirs(folder, exist_ok=True)
    lines = lines_of("tinyshakespeare", "input.txt")[:4000] or hard_texts(2000, 2)
    texts = hard_texts(count, 1) + lines_of("wikitext-2", "test.txt")
    different = refused = 0
    for name in STYLES:
        tokenizer = train(name, lines)
        file = os.path.join(folder, name + ".json")
        tokenizer.save(file)
        got = ours(itera, file, texts, folder)
        if isinstance(got, str):
            refused += 1
            print(f"{name}: refused: {got}")
            continue
        wrong = compare(name, tokenizer, got, texts)
        text, why = saved(itera, file, folder)
        if text is None:
            print(f"FAIL: {name}: is not saved: {why}")
            wrong += 1
        else:
            wrong += compare(name + " as it was saved", Tokenizer.from_str(text), got, texts)
        different += wrong
        print(f"{name}: {len(texts)} texts, {wrong} differ")
    print(f"{len(STYLES)} files of {len(texts)} texts each: {different} texts differ, {refused} files refused")
    return different > 0


sys.exit(main())
