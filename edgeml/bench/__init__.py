"""How fast a model is on this machine, from the encoded picture to the labels."""

from edgeml.bench.measure import measure as measure
from edgeml.bench.plan import Plan as Plan
from edgeml.bench.report import BenchReport as BenchReport
