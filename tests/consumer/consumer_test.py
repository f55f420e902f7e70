#!/usr/bin/env python3
"""Installs sprun, moves the prefix, builds an outside project against it and runs a model with it.

    consumer_test.py cmake|pkg-config BUILD_FOLDER
"""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import onnx_models  # noqa: E402


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{command}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build_with_cmake(prefix, folder):
    run("cmake", "-S", HERE, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", folder / "build")
    return folder / "build/embed_service"


def build_with_pkg_config(prefix, folder):
    (package,) = prefix.rglob("sprun.pc")
    flags = run("pkg-config", "--cflags", "--libs", "sprun", env={**os.environ, "PKG_CONFIG_PATH": str(package.parent)})
    program = folder / "embed_service"
    libdir = package.parent.parent
    run(os.environ.get("CXX", "c++"), HERE / "embed_service.cc", "-o", program, *shlex.split(flags), "-pthread",
        f"-Wl,-rpath,{libdir}")
    return program


def check_installed_files(prefix):
    headers = {p.name for p in prefix.glob("include/**/*") if p.is_file()}
    public = {p.name for p in (HERE.parents[1] / "runtime/include/sprun").glob("*.h")}
    assert headers == public, headers ^ public
    text = "".join(p.read_text() for p in [*prefix.rglob("*.cmake"), *prefix.rglob("*.pc")])
    assert "first_place" not in text, "an installed file names the place it was installed to"


def main():
    way, build = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run("cmake", "--install", build, "--prefix", folder / "first_place")
        prefix = folder / "second place"
        shutil.move(folder / "first_place", prefix)
        check_installed_files(prefix)
        program = build_with_cmake(prefix, folder) if way == "cmake" else build_with_pkg_config(prefix, folder)
        model = folder / "model.onnx"
        model.write_bytes(onnx_models.tiny_bert())
        answers = run(program, model, input="1 2 3\n4 5\n49 99\n").splitlines()
        answers.sort()
        assert len(answers) == 3 and len(answers[0].split()) == 17, answers
        assert answers[2].startswith("2: error: "), answers  # 99 is outside the table
        assert "sprun" in run(prefix / "bin/sprun", "--version")
        print("\n".join(answers))


if __name__ == "__main__":
    main()
