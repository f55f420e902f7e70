#!/usr/bin/env python3
"""Checks that includes follow the layers, and that each outside package is included only at its door.

    check_includes.py [ROOT]

Layers, lower to higher: public headers, runtime/base, runtime/text, kernels, graph, runtime/{plan,session,device}, tools;
tests and bench may include everything but each other. runtime/text and kernels do not see each other.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
SOURCE_SUFFIXES = {".h", ".cc", ".c", ".def"}
ISA_FILE = re.compile(r"_(sse2|avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|avx512bf16|avx512vbmi2bf16|amxint8|amxbf16)\.cc$")

# Layer -> layers it may include.
ALLOWED = {
    "public": {"public"},
    "base": {"public", "base"},
    "text": {"public", "base", "text"},
    "kernels": {"public", "base", "kernels"},
    "graph": {"public", "base", "kernels", "graph"},
    "runtime": {"public", "base", "text", "kernels", "graph", "runtime"},
    "tools": {"public", "base", "kernels", "graph", "runtime", "tools"},
    "tests": {"public", "base", "text", "kernels", "graph", "runtime", "tools", "tests"},
    "bench": {"public", "base", "text", "kernels", "graph", "runtime", "bench"},
}
# Of runtime/base, kernels may use only these.
BASE_FOR_KERNELS = {"thread_pool.h", "trace.h", "half.h", "packed_cache.h"}
# Of kernels, tools may use only these: what `sprun devices` and `sprun profile` show.
KERNELS_FOR_TOOLS = {"kernels/isa.h", "kernels/peak/peak.h"}
# What vector files may include from the standard library: nothing that defines functions outside the file.
ISA_FILE_STD = {"immintrin.h", "cstdint", "cstddef", "stdint.h", "stddef.h", "type_traits", "limits", "bit", "concepts"}

# Package -> (pattern of the included path, prefixes of files that may include it).
DOORS = {
    "oneDNN": (r"^(dnnl|oneapi/dnnl)", ["bench/kernels/gemm_bench.cc", "bench/kernels/"]),
    "oneTBB": (r"^(tbb/|oneapi/tbb)", ["runtime/base/thread_pool.cc", "tests/runtime/"]),
    "xsimd": (r"^xsimd/", ["kernels/"]),
    "protobuf": (r"^google/protobuf/", ["graph/onnx/", "tests/graph/onnx/"]),
    "onnx": (r"^onnx/", ["graph/onnx/", "tests/graph/onnx/"]),
    "GoogleTest": (r"^(gtest|gmock)/", ["tests/"]),
    "Google Benchmark": (r"^benchmark/", ["bench/"]),
    "CLI11": (r"^CLI/", ["tools/"]),
    "nlohmann-json": (r"^nlohmann/", ["tools/", "bench/", "tests/", "runtime/base/trace.cc", "runtime/text/"]),
    "utf8proc": (r"^utf8proc\.h$", ["runtime/text/unicode.cc"]),
    "PCRE2": (r"^pcre2\.h$", ["runtime/text/regex.cc"]),
    "libzip": (r"^zip\.h$", ["tools/sprun/io/npz.cc", "tests/tools/"]),
    "spdlog": (r"^spdlog/", ["runtime/base/log.cc"]),
    "fmt": (r"^fmt/", ["runtime/", "graph/", "tools/", "tests/", "bench/", "kernels/"]),
    "Eigen": (r"^Eigen/", ["tools/compress/", "tests/"]),
}


def layer_of(path):
    if path.startswith("runtime/include/") or path.startswith("sprun/"):
        return "public"
    if path.startswith("runtime/base/"):
        return "base"
    if path.startswith("runtime/text/"):
        return "text"
    top = path.split("/", 1)[0]
    return top if top in ALLOWED else None


def check_quoted(path, target):
    """Why the file may not include "target"; None if it may."""
    source, wanted = layer_of(path), layer_of(target)
    if wanted is None:
        return f'"{target}" is not a path from the repository root'
    if wanted not in ALLOWED[source]:
        return f"{source} may not include {wanted}"
    if source == "kernels" and wanted == "base" and target.rsplit("/", 1)[1] not in BASE_FOR_KERNELS:
        return "kernels may include only " + ", ".join(sorted(BASE_FOR_KERNELS)) + " of runtime/base"
    if source == "graph" and target.endswith("_impl.h"):
        return "graph may include contracts of kernels, not their _impl.h"
    if source == "tools" and wanted == "kernels" and target not in KERNELS_FOR_TOOLS:
        return "tools may include only " + ", ".join(sorted(KERNELS_FOR_TOOLS)) + " of kernels"
    if path.startswith("kernels/cuda/") and target != "sprun/device_plugin.h":
        return "the plugin may include only sprun/device_plugin.h"
    return None


def check_angled(path, target):
    for package, (pattern, doors) in DOORS.items():
        if re.search(pattern, target) and not any(path.startswith(door) for door in doors):
            return f"{package} may be included only in " + ", ".join(doors)
    if path.startswith("kernels/") and ISA_FILE.search(path) and target not in ISA_FILE_STD:
        return f"a vector file may not include <{target}>"
    if path.startswith("runtime/include/") and "/" in target:
        return "public headers may include only the standard library"
    return None


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems, files = [], 0
    for top in ("runtime", "kernels", "graph", "tools", "tests", "bench"):
        for file in sorted((root / top).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix not in SOURCE_SUFFIXES or path.startswith(("tests/consumer/", "tests/data/")):
                continue
            files += 1
            for number, line in enumerate(file.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                check = check_quoted if match[1] == '"' else check_angled
                reason = check(path, match[2])
                if reason:
                    problems.append(f"{path}:{number}: {match[2]}: {reason}")
    print("\n".join(problems))
    print(f"{files} files checked, {len(problems)} problems")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
