"""Published data sets, read in the layouts in which they are distributed."""

from codi.data.benchmarks.audiocaps import AudioCaps
from codi.data.benchmarks.base import Benchmark, Example
from codi.data.benchmarks.coco import Coco
from codi.data.benchmarks.msrvtt import MsrVtt
from codi.data.benchmarks.ucf101 import Ucf101

BENCHMARKS: dict[str, Benchmark] = {
    reader.name: reader for reader in (Coco(), MsrVtt(), Ucf101(), AudioCaps())
}
"""Every data set by name. Add your own here."""

__all__ = ["BENCHMARKS", "Benchmark", "Example"]
