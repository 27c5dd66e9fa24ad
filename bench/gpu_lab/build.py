"""The itera that is judged: a release build with the shaders that need a newer glslang than Debian's."""
import os
import shutil
import subprocess

from compilers import LAB

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def build(say, folder=SOURCE + "/build/gpu-lab"):
    """The path of the command; RuntimeError where it is not to be had."""
    configure = ["cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DITERA_TESTS=OFF"]
    if shutil.which("ninja") and not os.path.exists(folder + "/Makefile"):
        configure += ["-G", "Ninja"]
    if os.path.exists(LAB + "/done/glslang"):
        configure += [f"-DITERA_GLSLANG={LAB}/bin/glslangValidator",
                      f"-DITERA_SPIRV_VAL={LAB}/bin/spirv-val",
                      f"-DITERA_VULKAN_INCLUDE={LAB}/headers/usr/include"]
    else:
        say("setup has no glslang: matrix units are judged only if this machine's can do them")
    say(f"building itera in {folder}")
    for words in (configure, ["cmake", "--build", folder, "--target", "itera-command", "--parallel",
                              str(os.cpu_count() or 1)]):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        if done.returncode:
            raise RuntimeError("itera is not built:\n" + done.stdout[-2000:])
    return folder + "/itera"
