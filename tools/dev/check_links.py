#!/usr/bin/env python3
"""Checks the README files: relative links resolve, and code that is also in a file is the same there.

    check_links.py [ROOT]

A code block directly after a line `<!-- same as PATH -->` must equal the file PATH.
"""
import pathlib
import re
import sys

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"<!-- same as (\S+) -->\n```\w*\n(.*?)```\n", re.DOTALL)
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def anchor(heading):
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


def anchors_of(file):
    return {anchor(h) for h in HEADING.findall(file.read_text())}


def check(root, file):
    text, name = file.read_text(), file.relative_to(root).as_posix()
    problems = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        to = (file.parent / path).resolve() if path else file
        if not to.exists() or root not in [to, *to.parents]:
            problems.append(f"{name}: link to {target}: no such file")
        elif fragment and to.suffix == ".md" and fragment not in anchors_of(to):
            problems.append(f"{name}: link to {target}: no such heading")
    for path, code in FENCE.findall(text):
        if not (root / path).is_file() or (root / path).read_text() != code:
            problems.append(f"{name}: the code block is not the same as {path}")
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    skipped = {"build", ".git"}
    files = [f for f in root.rglob("*.md") if not skipped & set(f.relative_to(root).parts)]
    problems = [problem for file in sorted(files) for problem in check(root, file)]
    for folder in ("runtime", "kernels", "graph", "tools", "tests", "bench"):
        if not (root / folder / "README.md").exists():
            problems.append(f"{folder}/README.md is missing")
    print("\n".join(problems))
    print(f"{len(files)} files checked, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
