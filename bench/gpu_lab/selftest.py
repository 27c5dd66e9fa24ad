#!/usr/bin/env python3
"""Tests of the judge that need no compiler: what it reads, its limits and its tables."""
import json
import os
import sys
import tempfile
import unittest

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)
sys.dont_write_bytecode = True

import compilers
import limits
import tables


def row(target="radv-x", kernel="k", **more):
    return {**dict(target=target, kernel=kernel, constants="TILE=64", lanes=128, used="", registers=32,
                   spills=0, scratch=0, code=2048, waves=4), **more}


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        path = f"{self.folder}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Targets(unittest.TestCase):
    def test_words(self):
        self.assertEqual(compilers.choose("all"), compilers.USUAL)
        self.assertEqual(compilers.choose("nvidia,igc-*,ptxas-sm_86"), ["ptxas-sm_86", "ptxas-sm_90", "igc-dg2"])
        self.assertEqual(compilers.choose("igc-tgllp"), ["igc-tgllp"])
        for wrong in ("nvida", "gcc-x", "radv-x*", ""):
            self.assertRaises(ValueError, compilers.choose, wrong)

    def test_occupancy(self):
        self.assertEqual(compilers.radv_waves("navi21", 168, 64, 0, 256), 3)
        self.assertEqual(compilers.radv_waves("navi31", 168, 64, 0, 128), 4)
        self.assertEqual(compilers.radv_waves("vega10", 256, 64, 0, 256), 1)
        self.assertEqual(compilers.radv_waves("navi21", 40, 64, 14336, 128), 4)  # 4 groups of 2 waves
        self.assertEqual(compilers.sm_warps("sm_86", 141, 0, 256), 2)  # one block
        self.assertEqual(compilers.sm_warps("sm_86", 128, 0, 256), 4)
        self.assertEqual(compilers.sm_warps("sm_86", 32, 60000, 128), 1)


class Read(Folder):
    def test_what_itera_says(self):
        kernel = dict(kernel="k", constants="", lanes=64, used_by="micro", registers=168, spills=2,
                      scratch_bytes=0, subgroup=64, shared_bytes=0, code_bytes=100,
                      statistics="SGPRs 9, VGPRs 168, Spilled SGPRs 7, Spilled VGPRs 2")
        found = compilers.vulkan_row("radv-navi21", kernel)
        self.assertEqual((found["spills"], found["sgpr_spills"], found["waves"]), (2, 7, 3))
        kernel.update(code_bytes=None, statistics="Instruction Count 10, Fill Count 3")
        found = compilers.vulkan_row("anv-dg2", kernel)
        self.assertEqual((found["code"], found["fills"]), (160, 3))
        self.assertIn("error", compilers.vulkan_row("anv-dg2", dict(kernel, registers=None)))

    def test_amd(self):
        found = compilers.read_amd("""\t.text
one:                                    ; -- Begin function one
; codeLenInByte = 1234
; Occupancy: 12
amdhsa.kernels:
  - .args:
      - .name:           x
        .offset:         0
    .group_segment_fixed_size: 512
    .name:           one
    .private_segment_fixed_size: 16
    .sgpr_spill_count: 1
    .vgpr_count:     25
    .vgpr_spill_count: 3
    .wavefront_size: 32
  - .args:
    .name:           two
    .vgpr_count:     7
""")
        self.assertEqual(found["one"], dict(registers=25, spills=3, sgpr_spills=1, scratch=16, local=512,
                                            subgroup=32, code=1234, waves=12))
        self.assertEqual(found["two"], dict(registers=7))

    def test_nvidia(self):
        found = compilers.read_ptxas(
            "ptxas info    : Compiling entry function 'one' for 'sm_86'\n"
            "ptxas info    : Function properties for one\n"
            "    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n"
            "ptxas info    : Used 37 registers, used 1 barriers, 512 bytes smem, 400 bytes cmem[0]\n"
            "ptxas info    : Compiling entry function 'two' for 'sm_86'\n"
            "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
            "ptxas info    : Used 8 registers, 352 bytes cmem[0]\n")
        self.assertEqual(found["one"], dict(registers=37, spills=12, subgroup=32, scratch=16, local=512))
        self.assertEqual((found["two"]["registers"], found["two"]["local"]), (8, 0))

    def test_intel(self):
        found = compilers.read_zebin(b"\x7fELF\0kernels:\n  - name:            one\n    execution_env:\n"
                                     b"      grf_count:       128\n      simd_size:       16\n"
                                     b"      slm_size:        512\n    per_thread_memory_buffers:\n"
                                     b"      - type:            scratch\n        usage:           spill_fill_space\n"
                                     b"        size:            64\n      - type:            scratch\n"
                                     b"        usage:           private_space\n        size:            32\n\0rest")
        self.assertEqual(found, dict(one=dict(registers=128, subgroup=16, local=512, spills=64, scratch=32)))

    def test_programs(self):
        self.write("a.cl", '#include "args/a.clh"\nkernel void one(global float *x)\n')
        self.write("b.cl", '#include "c.clh"\n#include "args/a.clh"\n')
        self.write("c.clh", '#include "args/a.clh"\nkernel void two(\n')
        self.write("args/a.clh", "struct a;\n")
        files, texts = compilers.kernel_texts(self.folder)
        self.assertEqual(files, dict(one="a.cl", two="b.cl"))
        self.assertEqual(texts["b.cl"].count("struct a;"), 1)
        kernels = [dict(kernel=k, constants=c) for k, c in (("one", "N=1"), ("two", ""), ("one_coopmat", ""))]
        self.assertEqual(list(compilers.programs_of(kernels, files)), [("a.cl", "N=1"), ("b.cl", "")])


class Limits(Folder):
    def test_the_first_rule_that_matches(self):
        allowed = dict(kernels=[dict(kernel="k", constants="*64*", spills=9), dict(target="radv-*", used=True, spills=0)])
        over = limits.over(allowed, [
            row(spills=9), row(spills=10), row(kernel="other", spills=1), row(kernel="other", spills=1, used="micro"),
            dict(target="igc-x", kernel="k", constants="", error="no")], [])
        self.assertEqual([line.split(": ", 2)[2] for line in over],
                         ["spills 10, at most 9 allowed", "spills 1, at most 0 allowed", "not compiled: no"])

    def test_runs(self):
        run = dict(preset="micro", dtype="f32", phase="decode", dispatches=53, barriers=1)
        self.assertEqual(len(limits.over(dict(runs=[dict(preset="micro", dispatches=52)]), [], [run])), 1)
        self.assertEqual(limits.over(dict(runs=[dict(phase="prefill", dispatches=52)]), [], [run]), [])

    def test_lower(self):
        run = dict(preset="micro", dtype="f32", phase="decode", dispatches=50, barriers=48, bytes=1)
        allowed = dict(kernels=[dict(spills=0)],
                       runs=[dict(preset="micro", dtype="f32", phase="decode", dispatches=52, barriers=47)])
        limits.lower(allowed, [run, dict(run, phase="train")])
        self.assertEqual([(r["phase"], r["dispatches"], r["barriers"]) for r in allowed["runs"]],
                         [("decode", 50, 47), ("train", 50, 48)])
        self.assertEqual(limits.load(self.write("l.json", limits.text(allowed))), allowed)

    def test_slips_are_errors(self):
        limits.load(FOLDER + "/limits.json")
        for wrong in ({"kernels": [{"spill": 0}]}, {"kernel": []}, {"runs": [{"used": True}]}):
            self.assertRaises(ValueError, limits.load, self.write("l.json", json.dumps(wrong)))


class Tables(Folder):
    def test_worst_first(self):
        rows = [row(kernel="good"), row(kernel="bad", spills=3, scratch=64), row("igc-x", "good", error="no"),
                row(kernel="used", used="micro")]
        text = tables.kernel_table(rows, ["radv-x", "igc-x"], 3)
        self.assertEqual([line.split()[1] for line in text[2:5]], ["used", "good", "bad"])
        self.assertEqual(text[3], "| good 128 TILE=64 | 32r 4w 2K | failed |")
        self.assertIn("**sp3** scr64", text[4])
        self.assertEqual(tables.summary_table(rows, ["radv-x"])[2], "| radv-x | 3 | 0 | 1 | 0 | 1 | 0 | 32 |")

    def test_update(self):
        path = self.write("d.md", "a\n<!-- gpu -->\nold\n<!-- /gpu -->\nb\n")
        tables.update(path, ["new"])
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "a\n<!-- gpu -->\nnew\n<!-- /gpu -->\nb\n")
        self.assertRaises(ValueError, tables.update, self.write("e.md", "none"), [])

    def test_loops(self):
        self.assertEqual(list(tables.loop_mix(
            "one:\n s_mov_b32 s0, 0\n.LBB0_1: ; outer\n v_add_u32 v0, v1, v2\n.LBB0_2:\n v_fmac_f32 v0, v1, v2\n"
            " ds_read_b128 v[0:3], v4\n s_cbranch_scc0 .LBB0_3\n v_dot4_i32_i8 v0, v1, v2\n.LBB0_3:\n"
            " s_cbranch_scc1 .LBB0_2\n s_cbranch_scc1 .LBB0_1\n")),
                         [("one", ".LBB0_2", dict(fma=1, local=1, salu=2, dot=1))])


if __name__ == "__main__":
    unittest.main()
