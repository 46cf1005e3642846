"""HTML reports: one file each, that needs no other and asks nothing of the network."""

from edgeml.report.audit import audit_report as audit_report
from edgeml.report.bench import bench_report as bench_report
from edgeml.report.contents import CalibrationImages as CalibrationImages
from edgeml.report.contents import Command as Command
from edgeml.report.contents import Comparison as Comparison
from edgeml.report.contents import Demo as Demo
from edgeml.report.contents import DemoRow as DemoRow
from edgeml.report.contents import EpochRow as EpochRow
from edgeml.report.contents import FullRow as FullRow
from edgeml.report.contents import MixedPrecision as MixedPrecision
from edgeml.report.contents import RankedNode as RankedNode
from edgeml.report.contents import Recovery as Recovery
from edgeml.report.contents import Sample as Sample
from edgeml.report.contents import Scored as Scored
from edgeml.report.contents import Training as Training
from edgeml.report.contents import TriedMethod as TriedMethod
from edgeml.report.demo import demo_report as demo_report
from edgeml.report.export import export_report as export_report
from edgeml.report.train import train_report as train_report
from edgeml.report.train import write_lr_report as write_lr_report
