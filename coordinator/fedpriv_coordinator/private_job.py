"""A private job, settled before anything is sent: how much noise its mode comes to here, and what every order says.

Everything that makes a mode impossible with these workers, this strategy or this way of summing is found here, with
what would make it possible. It draws no noise (`private_rounds`) and decides nothing for a worker, which makes its own
bill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.sampling import Everybody, Sampling
from fedpriv.learning.strategies import Strategy
from fedpriv.privacy.accountants import times_left
from fedpriv.privacy.budget import WORKER, Account
from fedpriv.privacy.calibration import gaussian_noise
from fedpriv.privacy.mechanisms import Single, parts_of
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, Mode, TreeDP, check_clip
from fedpriv.privacy.noises import Noise, check_drawn
from fedpriv.privacy.relations import Relation
from fedpriv.secagg.thresholds import colluding
from fedpriv.wire.private import Private
from fedpriv_coordinator.secure_aggregation import SecureAggregation, least_in_sum

MODES: Mapping[str, type[Mode]] = {
    "central": CentralDP,
    "distributed": DistributedDP,
    "local": LocalDP,
    "example": ExampleDP,
    "tree": TreeDP,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a mode is settled against: the job's rounds and loop, its workers' announced rows, and how they are summed.

    `dimension` is the number of values in an update.
    """

    rounds: int
    local: LocalTraining
    rows: Mapping[WorkerName, int | None]
    dimension: int
    quorum: int
    secure: SecureAggregation | None


@dataclass(frozen=True, slots=True)
class Settled:
    """A mode with its noise: what orders say, and what one round costs each worker, as its coordinator reckons.

    `mode` is as the researcher wrote it. A `whole` mechanism is that of all rounds together.
    """

    mode: Mode
    private: Private
    costs: Mapping[WorkerName, tuple[Single, int]]
    whole: bool = False


def check_private(
    mode: Mode,
    metrics: tuple[str, ...],
    strategy: Strategy,
    local: LocalTraining,
    sampling: Sampling,
    secure: SecureAggregation | None,
    *,
    resume: bool,
) -> None:
    """Raise `UsageError` for what a private job cannot be combined with; `local` is as `strategy` prepared it."""
    if not isinstance(mode, Mode):
        raise UsageError(f"privacy is a {type(mode).__name__}; use fp.ExampleDP(epsilon=3.0) or another of the modes")
    name = type(mode).__name__
    if metrics:
        raise UsageError(
            f"worker_metrics ({', '.join(metrics)}) would leave without noise beside a private update; leave them out, "
            "and measure the model here with evaluate, on rows of your own"
        )
    if not strategy.of_sums:
        raise UsageError(
            f"strategy {strategy.name!r} needs every worker's own update, and {name} shows their mean alone; use one "
            "that needs no more, such as FedAvg"
        )
    _check_term(mode, strategy, local)
    if isinstance(mode, CentralDP | DistributedDP | TreeDP) and sampling.name != Everybody().name:
        raise UsageError(
            f"sampling {sampling.name!r} asks some of the workers, and {name} reckons with all of them in every round: "
            "sums are divided, and noise is shared out, by their public number; leave sampling out, or use LocalDP or "
            "ExampleDP, whose noise counts on no other worker"
        )
    _check_noise(mode, secure, resume=resume)


def _check_noise(mode: Mode, secure: SecureAggregation | None, *, resume: bool) -> None:
    """Raise `UsageError` where the noise of `mode` cannot be made under this way of summing, or once more."""
    name = type(mode).__name__
    match mode:
        case DistributedDP() if secure is None:
            raise UsageError(
                f"{name} adds a share of the noise at each worker, which protects nobody outside of a sum; pass "
                "secure_aggregation=fp.SecureAggregation(), or use LocalDP"
            )
        case CentralDP(adaptive=adaptive) if adaptive is not None and secure is not None:
            raise UsageError(
                "a clip adapts to how many updates it cut, which nobody sees under secure aggregation; use a fixed "
                "clip, or train without secure_aggregation"
            )
        case TreeDP() if resume:
            raise UsageError(
                f"the correlated noise of {name} lies in the memory of the process that began the run, so it cannot be "
                "resumed; start another run"
            )
        case TreeDP(participations=most, separation=apart) if most is not None or apart != 1:
            raise UsageError(
                "participations and separation promise that workers sit rounds out, and here every one is asked in "
                "every round; leave both out"
            )


def _check_term(mode: Mode, strategy: Strategy, local: LocalTraining) -> None:
    """Raise `UsageError` for a strategy whose part of local training no private order carries out."""
    term, name = local.term, type(mode).__name__
    if term is None and local.personal is None:
        return
    if local.personal is not None or (term is not None and (term.kept or term.shared)):
        raise UsageError(
            f"strategy {strategy.name!r} has each worker keep what it made of its rows for later rounds, and a private "
            f"round begins with nothing but the model, so that its bill is all that its rows do; with {name} use "
            "FedAvg, FedProx or a server optimiser such as FedAdam"
        )
    if isinstance(mode, ExampleDP):
        raise UsageError(
            f"strategy {strategy.name!r} adds a term to local training, and {name} trains by private steps on the loss "
            "of single rows, in which no term takes part; use FedAvg or a server optimiser such as FedAdam"
        )


def settle(mode: Mode, setting: Setting) -> Settled:
    """Return `mode` with the noise multiplier that it comes to; raise `UsageError` where there is none."""
    mode = replace(mode, clip=float(mode.clip), delta=float(mode.delta))
    check_clip(mode.clip)
    count = len(setting.rows)
    match mode:
        case CentralDP():
            central = mode.noise(rounds=setting.rounds, workers=count)
            named = replace(mode, epsilon=None, noise_multiplier=central.multiplier, adaptive=None)
            return _alike(mode, Private(named, setting.rounds, count), central, setting)
        case TreeDP():
            tree = mode.noise(rounds=setting.rounds, workers=count)
            private = Private(replace(mode, epsilon=None, noise_multiplier=tree.multiplier), setting.rounds, count)
            return replace(_alike(mode, private, tree, setting), whole=True)
        case LocalDP():
            local = mode.noise(rounds=setting.rounds)
            private = Private(replace(mode, epsilon=None, noise_multiplier=local.multiplier), setting.rounds, count)
            return _alike(mode, private, local, setting)
        case DistributedDP():
            return _distributed(mode, setting)
        case ExampleDP():
            return _by_rows(mode, setting)


def _alike(mode: Mode, private: Private, noise: Noise, setting: Setting) -> Settled:
    check_drawn(noise, setting.dimension)
    ((single, times),) = parts_of(noise.mechanism)
    return Settled(mode, private, dict.fromkeys(setting.rows, (single, times)))


def _distributed(mode: DistributedDP, setting: Setting) -> Settled:
    assert setting.secure is not None  # `check_private` looked
    count, secure = len(setting.rows), setting.secure
    enrolled = secure.enrolled(count)
    least = least_in_sum(secure, count, enrolled, setting.quorum)
    colluders = colluding(enrolled, secure.colluding_share)
    noise = mode.noise(
        rounds=setting.rounds, workers=count, threshold=least, minimum=least, dimension=setting.dimension,
        colluding=colluders,
    )  # fmt: skip  # one line of numbers
    bits = noise.scale_bits
    named = replace(mode, epsilon=None, noise_multiplier=noise.multiplier, scale_bits=bits)
    return _alike(mode, Private(named, setting.rounds, count, colluders), noise, setting)


def _by_rows(mode: ExampleDP, setting: Setting) -> Settled:
    """Return an example-level mode with noise that is enough for each worker, whatever its number of rows."""
    local = setting.local
    if local.drop_last or not local.shuffle:
        raise UsageError(
            "each private step draws a Poisson sample: batches in order, or whole ones alone, would be none and would "
            "have to be billed as many times as much; leave shuffle and drop_last as they are"
        )
    found = {}
    for worker, rows in setting.rows.items():
        if rows is None:
            raise UsageError(
                f"worker {worker!r} hides how many rows it has, and the rate at which private steps sample them "
                'follows from that; its owner can announce them rounded (rows = "rounded")'
            )
        if rows < local.batch_size:
            raise UsageError(
                f"batch_size is {local.batch_size} and worker {worker!r} announces {rows} rows; use at most that many"
            )
        steps = local.steps_over(rows)
        found[worker] = (rows, steps)
    multiplier = mode.noise_multiplier
    if multiplier is None:
        multiplier = max(
            gaussian_noise(
                epsilon=mode.target, delta=mode.delta, times=setting.rounds * steps, rate=local.batch_size / rows
            )
            for rows, steps in set(found.values())
        )
    named = replace(mode, epsilon=None, noise_multiplier=multiplier)
    noises = {
        worker: named.noise(rows=rows, batch_size=local.batch_size, rounds=setting.rounds, steps=steps)
        for worker, (rows, steps) in found.items()
    }
    check_drawn(next(iter(noises.values())), setting.dimension)
    costs = {worker: parts_of(noise.mechanism)[0] for worker, noise in noises.items()}
    private = Private(named, setting.rounds, len(setting.rows), optimizer=local.optimizer)
    return Settled(mode, private, costs)


def running_out(settled: Settled, worker: WorkerName, account: Account | None, asked: Sequence[int]) -> str:
    """Return in words that a worker's budget will not pay all rounds, "" where it does or where it has none.

    `asked` are the numbers of the rounds in which the worker is asked.
    """
    single, times = settled.costs[worker]
    rounds, budget = settled.private.rounds, None if account is None else account.budget
    if account is None or budget is None:
        return ""
    mode = settled.mode
    if isinstance(mode, ExampleDP) and budget.unit == WORKER:
        return f"the budget of {worker} is for all its rows together, which no private step on rows can be billed to"
    relation = mode.relation if isinstance(mode, ExampleDP) or budget.unit == WORKER else Relation.REPLACE_ONE
    paid = times_left(account, single, relation) // times
    if paid >= (min(1, len(asked)) if settled.whole else len(asked)):
        return ""
    return (
        f"the budget of {worker} runs out in round {asked[paid]} of {rounds}: epsilon {account.left:.4g} of "
        f"{budget.epsilon:g} is left; it will refuse from then on"
    )
