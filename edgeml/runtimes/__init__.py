"""The libraries that run a model: one file each, opened only when asked for."""

from edgeml.runtimes.open import open_runtime as open_runtime
from edgeml.runtimes.protocol import Runtime as Runtime
