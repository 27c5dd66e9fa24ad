"""GPU compilers that `setup` fetched: how each is run on itera's kernels, and what it says of them.

A target is COMPILER-CHIP: radv-navi21, anv-dg2, clang-gfx1030, ptxas-sm_86, igc-dg2. For the Vulkan
ones (radv, anv) itera itself has the driver compile what it would take there, and tells what the
driver made of it (`itera devices --kernels`). For the others the same command only names kernels and
constants, with a device of that vendor, and the OpenCL compilers are run on kernels_cl.
A kernel on a target is a row, a dict; numbers that a compiler does not tell are missing:

  target kernel constants lanes   which; lanes: of a workgroup
  used       presets that take it with the device's choices, "" if none does
  registers  of a lane: VGPRs (radv, clang), registers (ptxas); most live GRFs (anv), GRFs of the mode (igc)
  spills     VGPRs (radv, clang), instructions (anv), bytes (ptxas, igc)
  sgpr_spills  radv, clang: they go to lanes of VGPRs
  scratch    bytes of memory in place of registers: a wave's (radv), a thread's (anv), a lane's
  waves      waves a SIMD, or warps a scheduler, that registers and local memory allow
  code       bytes (anv: 16 an instruction)
  local      bytes of local memory of a workgroup
  error      why it was not compiled
"""
import fnmatch
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

LAB = os.path.abspath(os.environ.get("ITERA_GPU_LAB") or os.path.expanduser("~/.cache/itera-gpu-lab"))
LIB = LAB + "/root/usr/lib/x86_64-linux-gnu"

USUAL = ["radv-navi21", "radv-navi31", "radv-vega10", "anv-dg2", "clang-gfx1030", "ptxas-sm_86",
         "ptxas-sm_90", "igc-dg2"]
# What itera asks of each: API, vendor, and the parts of setup.
COMPILERS = {
    "radv": ("vulkan", "amd", ("layer", "vulkan")),
    "anv": ("vulkan", "intel", ("layer", "vulkan", "shim")),
    "clang": ("opencl", "amd", ("layer", "vulkan", "clang", "rocm")),
    "ptxas": ("opencl", "nvidia", ("layer", "vulkan", "clang", "ptxas")),
    "igc": ("opencl", "intel", ("layer", "vulkan", "igc")),
}
VENDOR_IDS = {"amd": 0x1002, "nvidia": 0x10de, "intel": 0x8086}
# Compute units of a card with the chip; defaults depend on it.
UNITS = {"navi21": 60, "navi31": 96, "vega10": 64, "gfx1030": 60, "gfx90a": 104, "gfx1100": 96,
         "sm_80": 108, "sm_86": 28, "sm_89": 128, "sm_90": 132, "dg2": 32}
# Of Vulkan's, what itera's OpenCL backend has no use for or its drivers lack.
NOT_OPENCL = ("VK_KHR_cooperative_matrix", "VK_EXT_subgroup_size_control",
              "VK_KHR_shader_integer_dot_product")


def split(target):
    """(compiler, chip)"""
    compiler, _, chip = target.partition("-")
    return compiler, chip


def api(target):
    return COMPILERS[split(target)[0]][0]


def choose(text):
    """Targets of a comma list of APIs, vendors, globs and names; ValueError for what is none."""
    chosen = []
    for word in text.split(","):
        some = [t for t in USUAL if word in ("all", *COMPILERS[split(t)[0]][:2]) or
                fnmatch.fnmatchcase(t, word)]
        if not some and re.fullmatch("(" + "|".join(COMPILERS) + r")-\w+", word):
            some = [word]  # another chip of a known compiler
        if not some:
            raise ValueError(f"no target {word}: there are all, vulkan, opencl, amd, intel, nvidia, "
                             f"{', '.join(USUAL)}, and other chips of these compilers")
        chosen += [t for t in some if t not in chosen]
    return chosen


def lacks(target):
    """The parts of setup that a target needs and that are not there."""
    parts = COMPILERS[split(target)[0]][2]
    return [p for p in parts if not os.path.exists(f"{LAB}/done/{p}")]


def versions():
    """The compilers that setup fetched, in words."""
    names = {"mesa-vulkan-drivers": "Mesa", "clang-19": "clang", "rocm-device-libs": "ROCm device library",
             "nvidia-cuda-nvcc-cu12": "ptxas", "intel-opencl-icd": "ocloc", "libigc1": "IGC"}
    try:
        with open(LAB + "/versions", encoding="utf-8") as file:
            found = re.findall(r"^([\w-]+?)(?:_|==)(?:1%3a)?([^_\s-]+)", file.read(), re.M)
    except OSError:
        found = []
    return ", ".join(f"{names[name]} {version}" for name, version in found if name in names)


# ---- itera on a device that only compiles ----

def environment(driver, chip, cache, **layer):
    """That of a program which sees the driver's device alone. layer: what null_device.c reads."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ITERA_")}
    manifest = f"{LAB}/icd/{driver}.json"
    env.update(LD_LIBRARY_PATH=LIB, VK_LAYER_PATH=LAB + "/layer", NODEVICE_SELECT="1",
               VK_INSTANCE_LAYERS="VK_LAYER_ITERA_null_device", MESA_SHADER_CACHE_DISABLE="true",
               VK_ICD_FILENAMES=manifest, VK_DRIVER_FILES=manifest,
               OCL_ICD_VENDORS="/nonexistent", ITERA_CACHE_DIR=cache)
    if driver == "radv":
        env.update(RADV_FORCE_FAMILY=chip)
    else:
        env.update(INTEL_STUB_GPU_PLATFORM=chip, LD_PRELOAD=LAB + "/layer/libintel_noop_drm_shim.so")
    env.update({"ITERA_NULL_" + name.upper(): str(value) for name, value in layer.items()})
    return env


def itera_json(words, driver, chip, **layer):
    """What itera writes as JSON. What was measured on other devices, or is cached, does not reach it."""
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/out.json"
        done = subprocess.run([*words, "--json", out], env=environment(driver, chip, folder, **layer),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False)
        if not os.path.exists(out):
            raise RuntimeError(f"{driver}-{chip}: {' '.join(words[1:3])} ended with status "
                               f"{done.returncode}: {done.stdout.strip()[-300:]}")
        with open(out, encoding="utf-8") as file:
            return json.load(file)


def list_kernels(itera, target, options):
    """The kernels that itera would take on the target. Those of OpenCL targets are not compiled."""
    compiler, chip = split(target)
    words = [itera, "devices", "--kernels", "--device", "vulkan:0", "--preset", options.presets,
             "--dtype", options.dtypes]
    words += ([] if options.used else ["--all"]) + (["--op", options.op] if options.op else [])
    units = UNITS.get(chip, 60)
    if api(target) == "vulkan":
        found = itera_json(words, compiler, chip, units=units)
    else:
        vendor = VENDOR_IDS[COMPILERS[compiler][1]]
        found = itera_json(words, "radv", "navi21", units=units, vendor=vendor, uncompiled=1,
                           without=" ".join(NOT_OPENCL))
    return found["devices"][0]["kernels"]


# ---- Vulkan ----

# Of an AMD family, for waves of 64: VGPRs of a SIMD, how many are allotted at once, most waves, SIMDs
# that share 64 KiB of local memory.
SIMDS = {"navi31": (768, 12, 16, 2), "navi2": (512, 8, 16, 2), "": (256, 4, 10, 4)}


def radv_waves(family, registers, subgroup, local, lanes):
    """Waves a SIMD. (RADV says of its null device twice what RDNA has.)"""
    total, granule, most, simds = next(v for k, v in SIMDS.items() if family.startswith(k))
    total, granule = total * 64 // subgroup, granule * 64 // subgroup
    waves = min(most, total // (max(1, -(-registers // granule)) * granule))
    if local:
        waves = min(waves, 65536 // local * -(-lanes // subgroup) // simds)
    return max(waves, 1)


def vulkan_row(target, kernel):
    """A row of what `itera devices --kernels` says of a kernel."""
    compiler, chip = split(target)
    row = dict(target=target, kernel=kernel["kernel"], constants=kernel["constants"],
               lanes=kernel["lanes"], used=kernel["used_by"])
    if kernel["registers"] is None:
        return dict(row, error="the driver tells nothing of it")
    said = dict(re.findall(r"([^,]+?) (-?\d+)(?:, |$)", kernel["statistics"]))
    row.update(registers=kernel["registers"], spills=kernel["spills"],
               scratch=kernel["scratch_bytes"], subgroup=kernel["subgroup"],
               local=kernel["shared_bytes"], code=kernel["code_bytes"])
    if compiler == "radv":
        row.update(sgpr_spills=int(said.get("Spilled SGPRs", 0)),
                   waves=radv_waves(chip, row["registers"], row["subgroup"], row["local"], row["lanes"]))
    elif "Instruction Count" in said:
        row.update(code=16 * int(said["Instruction Count"]), fills=int(said.get("Fill Count", 0)))
    return row


# ---- OpenCL ----

def whole_text(folder, name, seen=None):
    """The file with what it includes, each once, as itera gives it to drivers."""
    seen, lines = set() if seen is None else seen, []
    with open(f"{folder}/{name}", encoding="utf-8") as file:
        for line in file:
            include = re.match(r'\s*#include "([^"]+)"', line)
            if not include:
                lines.append(line)
            elif include[1] not in seen:
                seen.add(include[1])
                lines.append(whole_text(folder, include[1], seen))
    return "".join(lines)


def kernel_texts(folder):
    """{kernel: file}, {file: text}: the .cl files, with those kernels that they include."""
    files, texts = {}, {}
    for path in sorted(glob.glob(folder + "/*.cl")):
        name = os.path.basename(path)
        texts[name] = whole_text(folder, name)
        for kernel in re.findall(r"^kernel void (\w+)\(", texts[name], re.M):
            files.setdefault(kernel, name)
    return files, texts


def programs_of(kernels, files):
    """{(file, constants): [kernel, ...]} of those that have an OpenCL kernel."""
    programs = {}
    for kernel in kernels:
        if kernel["kernel"] in files:
            programs.setdefault((files[kernel["kernel"]], kernel["constants"]), []).append(kernel)
    return programs


def run(words, **env):
    done = subprocess.run(words, env=dict(os.environ, LD_LIBRARY_PATH=LIB, **env), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout


def code_sizes(path):
    """Bytes of the sections .text.KERNEL of an ELF file."""
    _, text = run(["readelf", "-SW", path])
    return {name: int(size, 16) for name, size in
            re.findall(r"\] \.text\.(\w+) +PROGBITS +\w+ \w+ (\w+)", text)}


def clang(source, constants, *options):
    return run([LAB + "/root/usr/lib/llvm-19/bin/clang", "-x", "cl", "-cl-std=CL1.2", "-O3", *options,
                *(word for pair in constants.split() for word in ("-D", pair)), "-S", source])


def read_amd(text):
    """{kernel: numbers} of an AMD listing by clang: its metadata, and comments after each function."""
    names = {"vgpr_count": "registers", "vgpr_spill_count": "spills", "sgpr_spill_count": "sgpr_spills",
             "private_segment_fixed_size": "scratch", "group_segment_fixed_size": "local",
             "wavefront_size": "subgroup"}
    found, kernel = {}, {}
    for start, key, value in re.findall(r"^ {2}( |-) \.(\w+):[ \t]*(\S*)", text, re.M):
        kernel = {} if start == "-" else kernel  # an item of the list of kernels begins
        if key == "name":
            found[value] = kernel
        elif key in names:
            kernel[names[key]] = int(value)
    for part in text.split("; -- Begin function ")[1:]:
        code, waves = re.search(r"; codeLenInByte = (\d+)", part), re.search(r"; Occupancy: (\d+)", part)
        if part.split()[0] in found and code and waves:
            found[part.split()[0]].update(code=int(code[1]), waves=int(waves[1]))
    return found


def compile_amd(chip, source, constants, base):
    status, log = clang(source, constants, "-target", "amdgcn-amd-amdhsa", "-mcpu=" + chip,
                        "-mcode-object-version=4", f"--rocm-device-lib-path={LIB}/amdgcn/bitcode",
                        "-o", base + ".s")
    if status:
        return {}, log
    with open(base + ".s", encoding="utf-8") as file:
        return read_amd(file.read()), log


# Of an SM: most warps, most blocks, KiB of shared memory.
SMS = {"sm_80": (64, 32, 164), "sm_86": (48, 16, 100), "sm_89": (48, 24, 100), "sm_90": (64, 32, 228)}


def sm_warps(chip, registers, shared, lanes):
    """Warps a scheduler: registers go to warps by 256, shared memory to blocks with 1 KiB beside."""
    most_warps, most_blocks, kib = SMS.get(chip, SMS["sm_86"])
    warps = -(-lanes // 32)
    blocks = min(65536 // (-(-registers * 32 // 256) * 256) // warps, most_warps // warps,
                 most_blocks, kib * 1024 // (shared + 1024))
    return blocks * warps / 4


def read_ptxas(text):
    """{kernel: numbers} of what ptxas -v says."""
    found = {}
    for name, stack, stores, loads, registers, rest in re.findall(
            r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
            r"(\d+) bytes spill loads.*?Used (\d+) registers(.*?)\n", text, re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[name] = dict(registers=int(registers), spills=int(stores) + int(loads), subgroup=32,
                           scratch=int(stack), local=int(shared[1]) if shared else 0)
    return found


def compile_nvidia(chip, source, constants, base):
    # clang 19's own name of a chip only chooses instructions; ptxas allots registers for the real one.
    cpu = "sm_90" if int(chip[3:5]) >= 90 else "sm_80" if int(chip[3:5]) >= 80 else chip
    status, log = clang(source, constants, "-target", "nvptx64--nvidiacl", "-Xclang", "-target-cpu",
                        "-Xclang", cpu, "-nogpulib", "-Xclang", "-mlink-builtin-bitcode", "-Xclang",
                        LAB + "/root/usr/lib/clc/nvptx64--nvidiacl.bc", "-o", base + ".ptx")
    if status:
        return {}, log
    status, log = run([LAB + "/bin/ptxas", "-v", "-arch=" + chip, base + ".ptx", "-o", base + ".cubin"])
    if status:
        return {}, log
    found, sizes = read_ptxas(log), code_sizes(base + ".cubin")
    for name, numbers in found.items():
        numbers.update(code=sizes.get(name))
    return found, log


def read_zebin(binary):
    """{kernel: numbers} of the text that describes the kernels in an Intel binary."""
    text = binary[max(0, binary.find(b"kernels:")):].split(b"\0")[0].decode(errors="replace")
    found = {}
    for part in re.split(r"\n  - name: +", text.split("kernels_misc_info")[0])[1:]:
        numbers = {key: int(value) for key, value in re.findall(r" (\w+): +(\d+)\n", part)}
        memory = re.findall(r"type: +(\w+)\s+usage: +(\w+)\s+size: +(\d+)", part)
        found[part.split()[0]] = dict(
            registers=numbers.get("grf_count", 128), subgroup=numbers.get("simd_size"),
            local=numbers.get("slm_size", 0),
            spills=sum(int(size) for _, usage, size in memory if "spill" in usage),
            scratch=sum(int(size) for _, usage, size in memory if "private" in usage))
    return found


def compile_intel(chip, source, constants, base):
    os.makedirs(base, exist_ok=True)
    options = " ".join(["-cl-std=CL1.2"] + ["-D " + pair for pair in constants.split()])
    status, log = run([LAB + "/root/usr/bin/ocloc", "compile", "-file", source, "-device", chip,
                       "-options", options, "-out_dir", base, "-output", "k", "--format", "zebin"])
    binaries = glob.glob(base + "/k_*.bin")
    if status or not binaries:
        return {}, log
    with open(binaries[0], "rb") as file:
        found = read_zebin(file.read())
    sizes = code_sizes(binaries[0])
    for name, numbers in found.items():
        numbers.update(code=sizes.get(name))
    shutil.rmtree(base)
    return found, log


COMPILE = {"clang": compile_amd, "ptxas": compile_nvidia, "igc": compile_intel}


def compile_program(target, text, constants, kernels, base):
    """Rows of the kernels of a program; listings stay at base.*"""
    compiler, chip = split(target)
    source = base + ".cl"
    with open(source, "w", encoding="utf-8") as file:
        file.write(text)
    found, log = COMPILE[compiler](chip, source, constants, base)
    rows = []
    for kernel in kernels:
        row = dict(target=target, kernel=kernel["kernel"], constants=constants, lanes=kernel["lanes"],
                   used=kernel["used_by"])
        row.update(found.get(row["kernel"]) or dict(error=log.strip()[-300:] or "no such kernel came out"))
        if compiler == "ptxas" and "error" not in row:
            row["waves"] = sm_warps(chip, row["registers"], row["local"], row["lanes"])
        rows.append(row)
    return rows


def judge_target(target, itera, source, options, out):
    """Rows of all kernels on a target."""
    kernels = list_kernels(itera, target, options)
    if api(target) == "vulkan":
        return [vulkan_row(target, kernel) for kernel in kernels]
    os.makedirs(out, exist_ok=True)
    files, texts = kernel_texts(source + "/kernels_cl")
    programs = sorted(programs_of(kernels, files).items())

    def make(number):
        (file, constants), wanted = programs[number]
        return compile_program(target, texts[file], constants, wanted,
                               f"{out}/{number}_{os.path.splitext(file)[0]}")

    with ThreadPoolExecutor(options.jobs) as pool:
        return [row for rows in pool.map(make, range(len(programs))) for row in rows]


# ---- what runs launch ----

def count_launches(options):
    """What a decoded token, a prefill and, with f32 weights, a training step launch on an AMD device of
    60 units, by its defaults, and the bytes and FLOPs that they need; kernels are not compiled."""
    found = itera_json([options.itera, "bench", "--device", "vulkan:0", "--preset", options.presets,
                        "--dtype", options.dtypes, "--phase", "decode,prefill,train", "--prompt",
                        "128,512", "--seconds", "0.01", "--threads", "1"],
                       "radv", "navi21", units=60, uncompiled=1)
    runs = {}
    for run in found["runs"]:
        per_second = run["latency_ms"]["p50"] / 1e3  # of the rates: nothing was computed in that time
        runs[run["op"], run["dtype"], run["phase"]] = dict(
            preset=run["op"], dtype=run["dtype"], phase=run["phase"], case=run["case"],
            dispatches=run["dispatches"], barriers=run["barriers"],
            bytes=round(run["gbytes_per_s"] * 1e9 * per_second),
            flops=round(run["gflops"] * 1e9 * per_second))
    return list(runs.values())  # of two prompts, the longer that fits
