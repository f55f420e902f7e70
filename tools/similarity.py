#!/usr/bin/env python3
"""Prints the cosine of every pair of rows of a float32 .npy matrix whose rows have length one.

    similarity.py EMBEDDINGS.npy "first sentence" "second sentence" ...
"""
import ast
import struct
import sys


def read_rows(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<H", data, 8)
    header = ast.literal_eval(data[10 : 10 + length].decode())
    rows, cols = header["shape"]
    values = struct.unpack_from(f"<{rows * cols}f", data, 10 + length)
    return [values[r * cols : (r + 1) * cols] for r in range(rows)]


def main():
    rows, sentences = read_rows(sys.argv[1]), sys.argv[2:]
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            cosine = sum(a * b for a, b in zip(rows[i], rows[j]))
            print(f"{cosine:6.3f}  {sentences[i]}  |  {sentences[j]}")


if __name__ == "__main__":
    main()
