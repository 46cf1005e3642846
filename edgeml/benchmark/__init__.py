"""How fast a model is on this machine, from the encoded picture to the labels."""

from edgeml.benchmark.measure import measure as measure
from edgeml.benchmark.plan import Plan as Plan
from edgeml.benchmark.report import BenchReport as BenchReport
