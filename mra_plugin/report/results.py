"""What was measured, as plain values: everything else in this package starts from these."""

from dataclasses import dataclass
from typing import Literal

Direction = Literal["forward", "training"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "training")

MRA = "mra"


@dataclass(frozen=True)
class Span:
    """A median over rounds, and the least and greatest of them."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Timing:
    """One method at one length, timed in turns with the method that it is compared with.

    Attributes:
        method: label, the same for the same thing in all results.
        params: the method's parameters, by name.
        tokens: sequence length.
        direction: "forward", or "training" for forward and backward.
        shape: of the query, [batch, heads, tokens, channels], or of the hidden states.
        reference: label of the method that it is compared with.
        seconds: median of the rounds.
        speed_up: time of the reference over the method's own, round by round.
        peak_bytes: most memory in use at a time, None where it can't be told.
        reference_peak_bytes: the reference's.
    """

    method: str
    params: dict[str, object]
    tokens: int
    direction: Direction
    shape: tuple[int, ...]
    reference: str
    seconds: float
    speed_up: Span
    peak_bytes: int | None
    reference_peak_bytes: int | None

    @property
    def seconds_each(self) -> float:
        """Per sequence of the batch: comparable where longer sequences come in smaller batches."""
        return self.seconds / self.shape[0]

    @property
    def bytes_each(self) -> float | None:
        """Peak memory per sequence of the batch."""
        return None if self.peak_bytes is None else self.peak_bytes / self.shape[0]


@dataclass(frozen=True)
class ClosenessResult:
    """How close a method comes to the attention of a pretrained encoder, and at what cost.

    Attributes:
        method: label, the same for the same thing in all results.
        tokens: sequence length.
        model: the encoder.
        text: what it reads.
        budget: blocks per row, or landmarks.
        budget_unit: "blocks per row" or "landmarks".
        density: share of the query-key pairs that are computed exactly; None without such pairs.
        relative_cost: multiply-adds over those of exact attention.
        relative_error: Frobenius norm of the distance to exact attention's output, over the norm
            of that; averaged over layers and heads.
        cosine: to exact attention's output, mean over tokens, layers and heads.
        layers: how many layers of the encoder that is averaged over.
    """

    method: str
    tokens: int
    model: str
    text: str
    budget: int
    budget_unit: str
    density: float | None
    relative_cost: float
    relative_error: float | None
    cosine: float | None
    layers: int


@dataclass(frozen=True)
class RetrievalResult:
    """How well a method finds documents, and how fast it reads them, beside exact attention.

    Attributes:
        method: label, the same for the same thing in all results.
        params: the method's parameters, by name.
        tokens: length that documents are cut to.
        model: the encoder.
        collection: where documents and queries come from.
        half: the half of the collection that was searched.
        documents: how many there are, each with one query.
        full_documents: how many of them reach the length.
        reference: label of exact attention.
        seconds: median time of reading a batch of documents.
        speed_up: time with exact attention over the method's own, round by round.
        mrr: mean reciprocal rank of the right document.
        reference_mrr: the same with exact attention.
        first_hits: queries that find the right document first.
        overlap: share of the ten nearest documents that are among exact attention's ten.
        vector_cosine: between documents' vectors and those of exact attention, mean.
    """

    method: str
    params: dict[str, object]
    tokens: int
    model: str
    collection: str
    half: str
    documents: int
    full_documents: int
    reference: str
    seconds: float
    speed_up: Span
    mrr: float
    reference_mrr: float
    first_hits: int
    overlap: float | None
    vector_cosine: float | None

    @property
    def kept(self) -> float:
        """MRR as a share of exact attention's."""
        return self.mrr / self.reference_mrr


@dataclass(frozen=True)
class PictureResult:
    """Attention of a picture's or clip's tokens, beside exact attention.

    Attributes:
        what: "attention" alone, or a whole "block" of a diffusion transformer.
        grid: sides of the grid of tokens, (height, width) or (frames, height, width).
        method: label, the same for the same thing in all results.
        params: the method's parameters, by name.
        tokens: how many there are.
        reference: label of exact attention.
        speed_up: time with exact attention over the method's own, round by round.
        relative_error: norm of the distance to what exact attention gives, over the norm of that.
        cosine: to what exact attention gives, mean over tokens.
    """

    what: str
    grid: tuple[int, ...]
    method: str
    params: dict[str, object]
    tokens: int
    reference: str
    speed_up: Span
    relative_error: float | None
    cosine: float | None


@dataclass(frozen=True)
class EncoderTiming:
    """A whole pretrained encoder at one length, beside itself with exact attention.

    Attributes:
        model: the encoder.
        text: what it reads.
        exact: name of the exact attention.
        attention: name of the other.
        params: the other's parameters, by name.
        remarks: what was done to model or text to reach the greatest length.
        tokens: sequence length.
        exact_seconds: median time of a forward pass with exact attention.
        seconds: with the other.
        token_cosine: between both outputs, mean over tokens.
        sentence_cosine: between the means of all tokens' outputs.
    """

    model: str
    text: str
    exact: str
    attention: str
    params: dict[str, object]
    remarks: tuple[str, ...]
    tokens: int
    exact_seconds: float
    seconds: float
    token_cosine: float | None
    sentence_cosine: float | None

    @property
    def speed_up(self) -> float:
        """How many times as fast as with exact attention."""
        return self.exact_seconds / self.seconds


@dataclass(frozen=True)
class Distillation:
    """A model beside its exact teacher at one length, before and after its distillation.

    Attributes:
        steps: optimizer steps.
        batch: examples in a step.
        length: tokens of an example in training.
        where: what trained it, for example "2 CPU threads".
        minutes: that training took; None if it was resumed.
        tokens: length that closeness was measured at.
        token_cosines: to the teacher's output, mean over tokens; before and after.
        sentence_cosines: between the means of all tokens' outputs; before and after.
    """

    steps: int
    batch: int
    length: int
    where: str
    minutes: float | None
    tokens: int
    token_cosines: tuple[float | None, float | None]
    sentence_cosines: tuple[float | None, float | None]


@dataclass(frozen=True)
class NotRun:
    """What could not be measured; direction and tokens are None where it is all of them."""

    kind: str
    method: str
    direction: str | None
    tokens: int | None
    reason: str


@dataclass(frozen=True)
class BusyTiming:
    """Attention while so many other processes kept the machine busy."""

    processes: int
    timing: Timing


@dataclass(frozen=True)
class Stage:
    """A part of a step, beside what reading and computing would take at the least.

    On a CPU also what it does at best, as measured beside it: bytes per second with one thread and
    with all, and operations per second of a thread.
    """

    method: str
    tokens: int
    direction: str
    stage: str
    seconds: float
    share: float
    floor_bytes_seconds: float | None
    floor_operations_seconds: float | None
    bandwidth: float | None = None
    bandwidth_all_threads: float | None = None
    peak: float | None = None


@dataclass(frozen=True)
class Source:
    """A result file: when it was made, from which commit (None: unknown), with which versions."""

    file: str
    date: str
    commit: str | None
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Results:
    """Everything measured on one device of one machine in one data type.

    Attributes:
        machine: name of the processor or GPU.
        threads: of the CPU that PyTorch was given; None on a GPU.
        capability: instruction set or compute capability, None if unknown.
        dtype: of queries, keys and values, for example "float32".
        sources: the files that it comes from.
        attention: attention alone.
        layer: a whole encoder layer.
        busy: attention on a machine that others keep busy.
        closeness: error against cost.
        retrieval: how well documents are found.
        pictures: attention of pictures and clips.
        encoders: whole pretrained encoders, as `mra compare` measures them.
        distillations: models before and after `mra train --distill`.
        not_run: what could not be measured.
        stages: parts of a step.
        notes: what a reader should know about these files.
        channels: of a head, where attention was measured with several numbers of them.
    """

    machine: str
    threads: int | None
    capability: str | None
    dtype: str
    sources: tuple[Source, ...]
    attention: tuple[Timing, ...] = ()
    layer: tuple[Timing, ...] = ()
    busy: tuple[BusyTiming, ...] = ()
    closeness: tuple[ClosenessResult, ...] = ()
    retrieval: tuple[RetrievalResult, ...] = ()
    pictures: tuple[PictureResult, ...] = ()
    encoders: tuple[EncoderTiming, ...] = ()
    distillations: tuple[Distillation, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    stages: tuple[Stage, ...] = ()
    notes: tuple[str, ...] = ()
    channels: int | None = None

    @property
    def title(self) -> str:
        """Names these results among others: "AMD EPYC, 2 threads, float32"."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.threads else None
        channels = f"{self.channels} channels" if self.channels else None
        parts = (self.machine, threads, self.dtype, channels)
        return ", ".join(part for part in parts if part)
