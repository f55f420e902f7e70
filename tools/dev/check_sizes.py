#!/usr/bin/env python3
"""Checks file and function sizes, line width, ASCII, and words that do not belong in finished code.

    check_sizes.py [ROOT]

Limits: files 800 lines, functions 80 (in kernels/ 120), lines 150 columns (clang-format keeps code at 100; tables and
scripts may be wider). A function is a brace block
that starts on a line ending in ") {" or similar at nesting depth 0 of classes and namespaces.
"""
import pathlib
import re
import sys

FILE_LINES, FUNCTION_LINES, KERNEL_LINES, COLUMNS = 800, 80, 120, 150
TOPS = ("runtime", "kernels", "graph", "tools", "tests", "bench")
SUFFIXES = {".h", ".cc", ".c", ".def", ".cu", ".py", ".sh", ".cmake"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SCOPE = re.compile(r"^\s*(inline\s+)?(namespace|extern|class|struct|union|enum|template)\b")


NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"'
    r'|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])*\'',
    re.DOTALL,
)
FUNCTION_END = re.compile(r"\)\s*(const|noexcept|override|->[^;{]*)*\s*$")


def strip_code(text):
    """Blanks out comments, strings and characters, keeping the line structure."""
    return NOT_CODE.sub(lambda m: "\n" * m[0].count("\n"), text)


def functions(text):
    """(first line, number of lines, head) of each function body."""
    stack, found = [], []
    head = ""
    for number, line in enumerate(strip_code(text).splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for char in line:
            if char == "{":
                is_scope = bool(SCOPE.match(head)) and not FUNCTION_END.search(head)
                inside = any(not scope for scope, _, _ in stack)
                is_function = not is_scope and not inside and ")" in head and "=" not in head.split("(")[0]
                stack.append((is_scope, number if is_function else 0, head.strip()))
                head = ""
            elif char == "}":
                if stack:
                    _, start, name = stack.pop()
                    if start:
                        found.append((start, number - start + 1, name))
                head = ""
            elif char == ";":
                head = ""
            else:
                head += char
        head += " "
    return found


def check_cpp(path, text, problems):
    limit = KERNEL_LINES if path.startswith("kernels/") else FUNCTION_LINES
    for start, lines, name in functions(text):
        if lines > limit:
            problems.append(f"{path}:{start}: function of {lines} lines, at most {limit}: {name[-80:]}")


def check_file(path, text, problems):
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        problems.append(f"{path}: {len(lines)} lines, at most {FILE_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS and "http" not in line:
            problems.append(f"{path}:{number}: {len(line)} columns, at most {COLUMNS}")
        if not line.isascii():
            problems.append(f"{path}:{number}: not ASCII")
        if UNFINISHED.search(line) and "check_sizes.py" not in path:
            problems.append(f"{path}:{number}: unfinished: {line.strip()[:60]}")
    if not text.endswith("\n"):
        problems.append(f"{path}: no newline at the end")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems, files = [], 0
    for top in TOPS:
        for file in sorted((root / top).rglob("*")):
            path = file.relative_to(root).as_posix()
            checked = file.suffix in SUFFIXES or file.name == "CMakeLists.txt"
            if not file.is_file() or not checked or path.startswith("tests/data/"):
                continue
            files += 1
            text = file.read_text()
            check_file(path, text, problems)
            if file.suffix in {".h", ".cc", ".c"}:
                check_cpp(path, text, problems)
    print("\n".join(problems))
    print(f"{files} files checked, {len(problems)} problems")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
