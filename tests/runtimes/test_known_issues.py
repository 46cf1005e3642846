"""Known problems with NVIDIA GPUs; the messages are quoted from reports."""

from __future__ import annotations

import re

import pytest

from edgeml.runtimes.known_issues import KNOWN_ISSUES, known_issue, recognise, see


def test_each_issue_has_its_own_name_a_fix_and_a_link() -> None:
    assert len({issue.name for issue in KNOWN_ISSUES}) == len(KNOWN_ISSUES)
    for issue in KNOWN_ISSUES:
        document = issue.to_dict()
        assert set(document) == {"name", "what", "mend", "link"}
        assert all(value and "\n" not in value for value in document.values())
        assert re.fullmatch(r"https://[\w./-]+", issue.link)
        assert known_issue(issue.name) is issue


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: "
            "libcublasLt.so.11: cannot open shared object file: No such file or directory",
            "cuda-libraries",
        ),
        (
            "Failed to load library libonnxruntime_providers_cuda.so with error: "
            "libcudnn.so.9: cannot open shared object file: No such file or directory",
            "cuda-libraries",
        ),
        ("Failed to load libcurand.so.10: libcurand.so.10: cannot open", "cuda-libraries"),
        (
            "[W] [TRT] CUDA initialization failure with error: 35. Please check your CUDA "
            "installation",
            "driver-too-old",
        ),
        ("CUDA initialization failure with error: 100.", "tensorrt-without-gpu"),
        (
            "CUDA driver version is insufficient for CUDA runtime version",
            "driver-too-old",
        ),
        (
            "The engine plan file is generated on an incompatible device, expecting compute 8.6 "
            "got compute 7.5, please rebuild.",
            "engine-of-another-gpu",
        ),
        (
            "Serialization assertion stdVersionRead == serializationVersion failed.Version tag "
            "does not match. Note: Current Version: 213, Serialized Engine Version: 232",
            "engine-of-another-version",
        ),
        (
            "libonnxruntime_providers_tensorrt.so: libnvinfer.so.10: cannot open shared object",
            "tensorrt-provider",
        ),
        ("out of memory", None),
        ("", None),
    ],
)
def test_a_message_is_recognised(message: str, name: str | None) -> None:
    found = recognise(message)
    assert (found and found.name) == name
    assert bool(see(message)) is (name is not None)


def test_a_known_issue_is_a_sentence_with_its_link() -> None:
    text = see("generated on an incompatible device")
    assert text.startswith(" Known: an engine runs")
    assert "https://github.com/NVIDIA/TensorRT/issues/2176" in text
