"""params.yaml, typed: every number that changes a result, once, without defaults in the code."""

from fuseline.config.augment import AudioAugment, Augment, ImageAugment, TextAugment
from fuseline.config.base import Modality, Section
from fuseline.config.combine import Distill, Fitted, Greedy, MemberWeights, Stacking
from fuseline.config.data import DEALT_BY, Duplicates, Prepare, Task, Validate
from fuseline.config.encoders import (
    AnyImageEncoder,
    AudioCnn,
    AudioEncoder,
    AudioTransformer,
    Encoders,
    ImageEncoder,
    ImageTransformer,
    TextEncoder,
)
from fuseline.config.evaluation import Disturb, Evaluate, Explain
from fuseline.config.gate import COMPARED, QUALITY, SERVING, Acceptance, Rule, Slices
from fuseline.config.members import CrossAttention, Expert, Fusion, LowRank, Member, Members, Mixture
from fuseline.config.optimisation import SGD, Decayed, Focal, LastLayers, Lora, Polynomial, Restarts, Tuning, WarmStart
from fuseline.config.params import Params
from fuseline.config.reading import check, load, load_publish, load_search, read
from fuseline.config.search import Choices, Range, Search
from fuseline.config.serving import Benchmark, Cuda, Offline, Server
from fuseline.config.training import Pretrain, Train

__all__ = [
    "COMPARED",
    "DEALT_BY",
    "QUALITY",
    "SERVING",
    "SGD",
    "Acceptance",
    "AnyImageEncoder",
    "AudioAugment",
    "AudioCnn",
    "AudioEncoder",
    "AudioTransformer",
    "Augment",
    "Benchmark",
    "Choices",
    "CrossAttention",
    "Cuda",
    "Decayed",
    "Distill",
    "Disturb",
    "Duplicates",
    "Encoders",
    "Evaluate",
    "Expert",
    "Explain",
    "Fitted",
    "Focal",
    "Fusion",
    "Greedy",
    "ImageAugment",
    "ImageEncoder",
    "ImageTransformer",
    "LastLayers",
    "Lora",
    "LowRank",
    "Member",
    "MemberWeights",
    "Members",
    "Mixture",
    "Modality",
    "Offline",
    "Params",
    "Polynomial",
    "Prepare",
    "Pretrain",
    "Range",
    "Restarts",
    "Rule",
    "Search",
    "Section",
    "Server",
    "Slices",
    "Stacking",
    "Task",
    "TextAugment",
    "TextEncoder",
    "Train",
    "Tuning",
    "Validate",
    "WarmStart",
    "check",
    "load",
    "load_publish",
    "load_search",
    "read",
]  # fmt: skip
