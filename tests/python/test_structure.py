"""Folders depend on each other in one direction: lib < calibration < passes < recipes < tools."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
ORDER = ("lib", "calibration", "passes", "recipes", "tools")


def includes():
    """(folder, file, what it includes) for every include of the project's own code."""
    for folder in ORDER:
        files = [f for f in (ROOT / folder).rglob("*") if f.suffix in (".h", ".cpp", ".inc", ".cu", ".cuh")]
        assert files
        for file in files:
            for included in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', file.read_text(), re.M):
                yield folder, file.relative_to(ROOT), included


def test_a_folder_includes_only_what_stands_before_it():
    for folder, file, included in includes():
        top = included.split("/")[0]
        assert top not in ORDER or ORDER.index(top) <= ORDER.index(folder), f"{file} includes {included}"
        assert not included.startswith(".."), f"{file} includes {included}: paths are from the project's root"
        assert top not in ("tests", "benchmarks"), f"{file} includes {included}"


def test_protobuf_and_onnx_are_seen_by_lib_onnx_alone():
    for _, file, included in includes():
        if included.startswith(("onnx/", "google/protobuf/")):
            assert file.parts[:2] == ("lib", "onnx"), f"{file} includes {included}"
