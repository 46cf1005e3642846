"""The libraries that run a model: one file each, imported only when needed."""

from edgeml.runtimes.open import open_runtime as open_runtime
from edgeml.runtimes.protocol import Runtime as Runtime
from edgeml.runtimes.protocol import RuntimeOptions as RuntimeOptions
