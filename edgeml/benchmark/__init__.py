"""How fast a model is on this machine, from the encoded image to the labels."""

from edgeml.benchmark.plan import BenchPlan as BenchPlan
from edgeml.benchmark.report import BenchReport as BenchReport
from edgeml.benchmark.run import run_benchmark as run_benchmark
