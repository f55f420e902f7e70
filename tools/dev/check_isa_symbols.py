#!/usr/bin/env python3
"""Checks that vector objects cannot leak newer instructions into the rest of the program.

    check_isa_symbols.py OBJECT_FILE...
    check_isa_symbols.py --list FILE_WITH_ONE_OBJECT_FILE_PER_LINE

For every object of a file that is compiled with instruction-set flags (name ends in _avx2, _avx512vnni, ...):
- a weak symbol must carry an instruction set in its name (arch tag or namespace): the linker keeps one copy of each
  weak symbol for the whole program, and may take this one;
- there is no static initialiser: it would run before the CPU is looked at.
Needs nm and readelf.
"""
import pathlib
import re
import subprocess
import sys

ISA_OBJECT = re.compile(r"_(avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|avx512bf16|avx512vbmi2bf16|amxint8|amxbf16)\.cc\.o$")
TAG = re.compile(r"avx2|avxvnni|avx512|amx", re.IGNORECASE)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def check(path):
    problems = []
    for line in run("nm", "--defined-only", path).splitlines():
        _, kind, symbol = line.split(maxsplit=2)
        sanitizer = symbol.startswith(("__asan", "__ubsan", "__tsan", "__odr", ".LC"))
        if kind in "WVuwv" and not TAG.search(symbol) and not sanitizer and not symbol.startswith("DW.ref."):
            problems.append(f"{path}: weak symbol without an instruction set in its name: {symbol}")
    sections = run("readelf", "-SW", path)
    for match in re.finditer(r"\s(\.(?:init_array|ctors)\S*)", sections):
        if "asan" not in sections:  # AddressSanitizer registers its globals this way
            problems.append(f"{path}: static initialiser ({match[1]})")
    return problems


def main():
    paths = sys.argv[1:]
    if paths[:1] == ["--list"]:
        paths = pathlib.Path(paths[1]).read_text().split()
    objects = [p for p in paths if ISA_OBJECT.search(pathlib.Path(p).name)]
    problems = [problem for path in objects for problem in check(path)]
    print("\n".join(problems))
    print(f"{len(objects)} objects checked, {len(problems)} problems")
    return 1 if problems or not objects else 0


if __name__ == "__main__":
    sys.exit(main())
