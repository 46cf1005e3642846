"""Cameras, videos and folders, classified frame by frame."""

from edgeml.streaming.pipeline import run_stream as run_stream
from edgeml.streaming.results import FrameResult as FrameResult
from edgeml.streaming.results import StreamInfo as StreamInfo
from edgeml.streaming.results import StreamSummary as StreamSummary
from edgeml.streaming.sinks import Sink as Sink
from edgeml.streaming.sources import CapturedFrame as CapturedFrame
from edgeml.streaming.sources import Source as Source
from edgeml.streaming.sources import SourceInfo as SourceInfo
