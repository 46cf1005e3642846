"""Cameras, videos and folders, classified frame by frame."""

from edgeml.stream.pipeline import run_stream as run_stream
from edgeml.stream.results import FrameResult as FrameResult
from edgeml.stream.results import StreamInfo as StreamInfo
from edgeml.stream.results import StreamSummary as StreamSummary
from edgeml.stream.sinks import Sink as Sink
from edgeml.stream.sources import Opened as Opened
from edgeml.stream.sources import Shot as Shot
from edgeml.stream.sources import Source as Source
