"""What goes wrong with NVIDIA GPUs; messages are quoted from where they were reported."""

from __future__ import annotations

import re

import pytest

from edgeml.runtimes.known_issues import KNOWN_ISSUES, known_issue, recognise, see


def test_each_issue_has_a_name_of_its_own_a_mend_and_a_link() -> None:
    assert len({issue.name for issue in KNOWN_ISSUES}) == len(KNOWN_ISSUES)
    for issue in KNOWN_ISSUES:
        told = issue.to_dict()
        assert set(told) == {"name", "what", "mend", "link"}
        assert all(value and "\n" not in value for value in told.values())
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


def test_what_is_known_is_a_sentence_with_the_link() -> None:
    text = see("generated on an incompatible device")
    assert text.startswith(" Known: an engine runs")
    assert "https://github.com/NVIDIA/TensorRT/issues/2176" in text
