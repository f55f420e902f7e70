#!/usr/bin/env python3
"""Checks that lists (.def files) and the files they name agree, both ways.

    check_registries.py [ROOT]
"""
import pathlib
import re
import sys


def entries(path, macro):
    """First identifiers of MACRO(...) lines; comments and the macro's own definition are skipped."""
    out = []
    for line in path.read_text().splitlines():
        line = line.split("//", 1)[0]
        match = re.match(rf"\s*{macro}\(([^)]*)\)?", line)
        if match:
            out.append([part.strip().strip('"') for part in match[1].split(",")])
    return out


def compare(problems, what, listed, found, repeats=False):
    for name in sorted(set(listed) - set(found)):
        problems.append(f"{what}: '{name}' is listed but has no file")
    for name in sorted(set(found) - set(listed)):
        problems.append(f"{what}: {name} has a file but no line in the list")
    for name in sorted({n for n in listed if listed.count(n) > 1 and not repeats}):
        problems.append(f"{what}: '{name}' is listed twice")


def defining(folder, pattern):
    """Names that files of the folder define, by regular expression."""
    names = []
    for file in sorted(folder.glob("*.cc")):
        names += re.findall(pattern, file.read_text(), re.MULTILINE)
    return names


def check_op_groups(root, problems):
    listed = [e[0] for e in entries(root / "graph/ops/op_groups.def", "SPRUN_OP_GROUP")]
    found = defining(root / "graph/ops", r"std::span<const OpDef> k_(\w+)_ops\b")
    compare(problems, "graph/ops/op_groups.def", listed, found)
    for name in listed:
        if not (root / f"graph/ops/{name}.cc").exists():
            problems.append(f"graph/ops/op_groups.def: group '{name}' is not in graph/ops/{name}.cc")


def check_passes(root, problems):
    listed = [e[1] for e in entries(root / "graph/passes/passes.def", "SPRUN_PASS")]
    found = defining(root / "graph/passes", r"^(?:Status|Result<[^>]*>|bool|int)\s+pass_(\w+)\(")
    compare(problems, "graph/passes/passes.def", listed, found, repeats=True)
    for name in listed:
        if not (root / f"graph/passes/{name}.cc").exists():
            problems.append(f"graph/passes/passes.def: pass '{name}' is not in graph/passes/{name}.cc")


def check_commands(root, problems):
    listed = [e[0] for e in entries(root / "tools/sprun/commands.def", "SPRUN_COMMAND")]
    found = [f.stem[len("cmd_"):] for f in (root / "tools/sprun").glob("cmd_*.cc")]
    compare(problems, "tools/sprun/commands.def", listed, found)


KERNEL_SYMBOL = re.compile(
    r"[a-z]\w*_(ref|sse2|scalar|avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|avx512bf16|avx512vbmi2bf16|amxint8|amxbf16|amxemu|emu)"
)
ISA_FILE = re.compile(r"_(sse2|avx2|avxvnni|avx512\w*|amxint8|amxbf16)\.cc$")


def listed_symbols(definition):
    lines = [line.split("//", 1)[0] for line in definition.read_text().splitlines()]
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    names = set()
    for arguments in re.findall(r"SPRUN_\w+\(([^)]*)\)", text):
        names |= {a.strip() for a in arguments.split(",")}
    return {n for n in names if KERNEL_SYMBOL.fullmatch(n)}


def check_kernels(root, problems):
    """Every symbol of a family's lists is defined in its folder; every ISA file defines a listed one."""
    for folder in sorted({d.parent for d in (root / "kernels").glob("*/*.def")}):
        symbols = set().union(*(listed_symbols(d) for d in folder.glob("*.def")))
        sources = {file: file.read_text() for file in folder.glob("*.cc")}
        where = folder.relative_to(root).as_posix()
        for symbol in sorted(symbols):
            if not any(re.search(rf"\b{symbol}\b", source) for source in sources.values()):
                problems.append(f"{where}: '{symbol}' is listed but not defined")
        for file, source in sources.items():
            listed = any(re.search(rf"\b{s}\b", source) for s in symbols)
            if ISA_FILE.search(file.name) and not listed:
                problems.append(f"{where}: nothing of {file.name} is listed")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems = []
    for check in (check_op_groups, check_passes, check_commands, check_kernels):
        check(root, problems)
    print("\n".join(problems))
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
