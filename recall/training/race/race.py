"""Race of recipes by successive halving (Jamieson and Talwalkar 2016).

Large data are raced on a share of the users. Three or four heats share the time. The first one trains square losses, which are
the cheapest, and chooses the fields. Without histories, where the best of them takes little of the time, the second changes
single settings of it, beginning with the number of factors, as long as that improves it by more than a standard error. In the
third, the other objectives continue from the best models. In the last, the same changes are made to the winner.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import cast

from numba.core.event import TimingListener, install_listener
from pydantic import JsonValue

from recall.config import RunConfig
from recall.data.dataset import Dataset
from recall.errors import TrainingError
from recall.evaluation.bootstrap import Comparison, Estimate, PerRequestMetrics, compare, estimate
from recall.training.race.entrant import Entrant, SharedData, leads, merged, sampled
from recall.training.race.recipes import (
    SPARSE,
    SQUARES,
    USUAL_K,
    Recipe,
    Scale,
    Values,
    field_choices,
    has_item_ids_only,
    neighbours,
    softmaxes,
)

SECONDS = 30.0
"""Duration of a race where the final training is shorter, without the time of compiling kernels after an installation."""
_SHARE = 0.5  # of the interactions that train in a race of large data. A tenth of ml-1m prefers ten times the regularisation
_FEWEST_TRAIN, _MOST_TRAIN = 100_000, 1_000_000  # training interactions of a race. Chosen, not tuned.
_REQUESTS = 4_000  # that are evaluated: 95 % intervals are then about 4 % of the figure on toys and ml-1m
# Requests over a large catalogue, and scores of one evaluation. Chosen, not tuned.
_FEWEST_REQUESTS, _MOST_SCORES = 1_000, 60_000_000
_SMALL = 200_000  # interactions up to which a race takes SECONDS at most
_HEAT_ENDS = (0.5, 0.65, 0.9)  # of the time, at which the first three heats end. Chosen, not tuned.
_CHEAP = 0.07  # of the time: a square loss up to this is refined early. Twice the factors take three times as long.
_FIRST_SWEEPS = 3  # sweeps before the first halving; fewer say little of a square loss that converges slowly
_MOST_COMPONENTS, _LEAST_FFM_K = 512, 4  # of an FFM's vector, k for each pair of fields. Chosen, not tuned.
_MOST_SWEEPS = 12  # most sweeps of a square loss


@dataclass(frozen=True, slots=True)
class RaceResult:
    """Result of a race.

    Attributes:
        values: overrides of the winner; the number of sweeps or epochs is that of its best model.
        name: of the winner.
        placed: all that finished, best first, with estimates of their figures.
        lead: the winner against the second, over the same requests; None when it ran alone.
        over_default: the winner against the default square loss with all fields; None when that failed or won.
        popularity: of the most frequent training items, on the same requests.
        over_popularity: the winner against these.
        failed: name and fault of each that did not finish.
        metric: of all figures, such as `ndcg@10`.
        requests: number of validation requests.
        share: of the users, for training and validation.
        seconds: of the race.
    """

    values: Values
    name: str
    placed: tuple[tuple[Entrant, Estimate], ...]
    lead: Comparison | None
    over_default: Comparison | None
    popularity: Estimate
    over_popularity: Comparison
    failed: tuple[tuple[str, str], ...]
    metric: str
    requests: int
    share: float
    seconds: float

    @property
    def beats_popularity(self) -> bool:
        """Whether the winner is better than popularity beyond chance."""
        low = self.over_popularity.difference.low
        return self.over_popularity.difference.value > 0 if low is None else low > 0

    def record(self) -> JsonValue:
        """Return what the bundle's manifest keeps of the race."""

        def plain(comparison: Comparison | None) -> JsonValue:
            return None if comparison is None else comparison.difference.model_dump()

        return {
            "metric": self.metric,
            "requests": self.requests,
            "share_of_users": round(self.share, 4),
            "seconds": round(self.seconds, 1),
            "winner": self.name,
            "raced": [
                {
                    **found.model_dump(),
                    "recipe": one.name,
                    "sweeps": one.best_sweep,
                    "seconds": round(one.seconds + one.validation_seconds, 2),
                    "figures": [round(figure, 5) for figure in one.figures],
                }
                for one, found in self.placed
            ],
            "lead": plain(self.lead),
            "over_default": plain(self.over_default),
            "popularity": self.popularity.model_dump(),
            "over_popularity": plain(self.over_popularity),
            "failed": [f"{name}: {fault}" for name, fault in self.failed],
        }


def race(
    config: RunConfig, dataset: Dataset, seconds: float | None, report: Callable[[Entrant], None], *, without: str = ""
) -> RaceResult:
    """Race known recipes for a configuration, and return the winner.

    With time enough for all recipes, equal data and seeds give an equal result.

    Args:
        config: with `train.objective` "auto" or any other, which is not used.
        dataset: of the run, with a validation part.
        seconds: of the race; None for SECONDS, or the duration of the final training if that is longer.
        report: called when an entrant leaves the race.
        without: public data set whose own recipes are left out, as if it had never been seen.

    Raises:
        TrainingError: No recipe could be trained.
    """
    trains = max(1, len(dataset.training))
    share = min(1.0, min(max(_FEWEST_TRAIN, _SHARE * trains), _MOST_TRAIN) / trains)
    with install_listener("numba:compile", TimingListener()) as compiling:
        run = _RaceRun(config, sampled(dataset, share, config.seed), share, seconds, compiling, report, without)
        run.successive_halving(run.squares(), _HEAT_ENDS[0])
        rival = run.rival()
        if run.refines_early():
            run.hill_climb(_HEAT_ENDS[1])
        run.train_in_turn(run.objectives(rival), _HEAT_ENDS[2])
        run.hill_climb()
    return run.result()


class _RaceRun:
    """Entrants of one race on one clock."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        share: float,
        seconds: float | None,
        compiling: TimingListener,
        report: Callable[[Entrant], None],
        without: str,
    ) -> None:
        self._config = config
        self._without = without
        self._dataset = dataset
        self._users = int(dataset.events["user"].gather(dataset.training).n_unique())
        self._share = share
        self._seconds = seconds
        self._requests = max(_FEWEST_REQUESTS, min(_REQUESTS, _MOST_SCORES // max(1, len(dataset.items))))
        self._report = report
        self._compiling = compiling
        self._began, self._used = time.monotonic(), time.process_time()
        self._shared_data: dict[str, SharedData] = {}
        self._ran: list[Entrant] = []
        self._leader: Entrant | None = None
        self._tried: set[str] = set()  # neighbours of leaders

    # The clock.

    @property
    def _may_be_extended(self) -> bool:
        """Whether the race may last as long as the final training."""
        return self._seconds is None and len(self._dataset.events) > _SMALL

    def _budget(self) -> float:
        """Return the seconds of the race.

        As configured; or SECONDS; or, on large data, as long as the final training of the leader, or of an entrant under way,
        which may become the leader: inf until its first epoch, because its opening takes another time.
        """
        if not self._may_be_extended:
            return SECONDS if self._seconds is None else self._seconds
        ran = [one for one in (self._leader, *self._ran[-1:]) if one is not None and one.figures]
        if any(not one.finished and len(one.figures) <= one.config.method.opened for one in ran):
            return float("inf")
        finals = [
            one.seconds / len(one.figures) / self._share * (one.best_sweep if one.finished else one.config.method.sweeps)
            for one in ran
        ]
        return max(SECONDS, *finals)

    def _elapsed(self) -> float:
        """Return the seconds so far, without those of compiling kernels.

        Kernels are compiled once after an installation: about 15 s, half of a race of SECONDS.

        If the time was configured, it is wall-clock time. Otherwise it is the CPU time of this process, but at least a quarter
        and at most all of the wall-clock time, so that a race on a busy machine does not end after its first recipes.
        """
        compiling = self._compiling.duration if self._compiling.done else 0.0
        seconds = time.monotonic() - self._began - compiling
        if self._seconds is not None:
            return seconds
        return max(min(seconds, time.process_time() - self._used - compiling), seconds / 4)

    def _over(self, share: float = 1.0) -> bool:
        """Return whether a share of the time is over."""
        return self._leader is not None and self._elapsed() > share * self._budget()

    def refines_early(self) -> bool:
        """Return whether to change the leader before other objectives follow.

        If that takes little of the time. Not with a history: a softmax then gains more than twice the factors do (toys: .063
        with 64 factors, .068 with 128, .070 by a softmax of 64), and one of twice the factors does not end in time.
        """
        leader = self._leader
        if leader is None or self._config.schema_.histories:
            return False
        return leader.seconds + leader.validation_seconds <= _CHEAP * self._budget()

    # Entrants.

    def _entrant(self, name: str, values: Values) -> Entrant:
        stopping = self._config.train.stopping
        asked: Values = {"metric": stopping.metric, "at": stopping.at, "requests": min(stopping.requests, self._requests)}
        train: Values = {**cast(Values, values["train"]), "stopping": asked}
        config = merged(self._config, {**values, "train": train})
        key = repr(config.fields)
        if key not in self._shared_data:
            self._shared_data[key] = SharedData.of(config, self._dataset)
        return Entrant(name, values, config, self._shared_data[key])

    def _model(self, k: int, cosine: bool) -> Values:
        given = self._config.model.model_dump(mode="json", exclude_unset=True)
        if self._config.model.kind == "lr":
            return given
        if self._config.model.kind == "ffm":
            sides = [sum(field.side == side for field in self._config.schema_.fields.values()) for side in ("user", "item")]
            k = min(k, max(_LEAST_FFM_K, _MOST_COMPONENTS // (sides[0] * sides[1])))
        return {"k": k, **given, **({"cosine": True} if cosine else {})}

    def _values(self, recipe: Recipe, fields: Values) -> Values:
        train = {"sweeps": _MOST_SWEEPS, **recipe.train} if recipe.train["objective"] == "square" else dict(recipe.train)
        return {**fields, "model": self._model(recipe.k, recipe.cosine), "train": train}

    def squares(self) -> Iterator[tuple[str, Values]]:
        """Yield each square loss, then the best of them without some fields."""
        for recipe in SQUARES:
            if self._without and recipe.tuned_on == self._without:
                continue
            yield recipe.name, self._values(recipe, {})
            if recipe is SPARSE and self._leader is not None and self._config.schema_.histories:
                # tuned together: with other square losses a long history is worse than a short one
                for name, values in islice(self._field_choices(self._leader), 1):
                    yield f"{recipe.name}, {name}", self._values(recipe, values)
        yield from self._without_fields()

    def _without_fields(self) -> Iterator[tuple[str, Values]]:
        """Yield the leader without some fields."""
        if (leader := self._leader) is not None:
            for name, values in self._field_choices(leader):
                fields = dict(cast(Values, leader.values.get("fields", {})))
                for field, change in cast(Values, values["fields"]).items():
                    before = fields.get(field)
                    fields[field] = {**before, **change} if isinstance(before, dict) and isinstance(change, dict) else change
                yield f"{leader.name}, {name}", {**leader.values, **values, "fields": fields}

    def _field_choices(self, leader: Entrant) -> Iterator[tuple[str, Values]]:
        return field_choices(leader.config, self._dataset, leader.shared.encoder, self._without)

    def rival(self) -> Entrant | None:
        """Return the best entrant with other fields, if it is about as good.

        That is, if the leader does not lead by more than a standard error.
        """
        if (leader := self._leader) is None:
            return None
        rivals = [
            one for one in self._ran if one.best is not None and not one.fault and one.config.fields != leader.config.fields
        ]
        best = max(rivals, key=lambda one: one.figure, default=None)
        return None if best is None or leads(leader.best, best.best, leader.metric) else best

    def objectives(self, rival: Entrant | None) -> Iterator[tuple[str, Values]]:
        """Yield the other objectives, which continue from the best square loss.

        Args:
            rival: with other fields. The first objective also continues from it; the rest continue from the better of the two.
                After a softmax, a long history may overtake a short one.
        """
        if (leader := self._leader) is None:
            return
        squares = [leader] if rival is None or rival.config.fields == leader.config.fields else [leader, rival]
        following, figures = [self._objectives_after(square) for square in squares], []
        for proposals in following:
            yield next(proposals)
            figures.append(self._ran[-1].figure)
        yield from following[figures.index(max(figures))]

    def _objectives_after(self, square: Entrant) -> Iterator[tuple[str, Values]]:
        """Yield the objectives that continue from a square loss, with its fields."""
        fields = {section: values for section, values in square.values.items() if section not in ("model", "train")}
        pairs, schema = square.shared.pairs, square.config.schema_
        scale = Scale(
            len(pairs.contexts),
            self._users,
            len(pairs.items),
            len(pairs.observed),
            self._share,
            item_ids_only=has_item_ids_only(schema),
        )
        k = cast(int, cast(Values, square.values["model"]).get("k", USUAL_K))
        for recipe in softmaxes(cast(Values, square.values["train"]), scale, k):
            if not (recipe.cosine and self._config.model.kind == "lr"):
                yield f"{recipe.name}, after {square.name}", self._values(recipe, fields)

    # Heats.

    def successive_halving(self, proposals: Iterable[tuple[str, Values]], share: float) -> None:
        """Train all for some sweeps, the better half for twice as many, and so on."""
        alive: list[Entrant] = []
        for name, values in proposals:
            if self._over(share):
                break
            alive.append(self._start(name, values))
            self._run(alive[-1], _FIRST_SWEEPS, share)
        sweeps = _FIRST_SWEEPS
        while True:
            alive.sort(key=lambda one: -one.figure)
            kept = alive[: max(1, len(alive) // 2)]
            for loser in alive[len(kept) :]:
                self._finish(loser)
            alive, sweeps = kept, 2 * sweeps
            if all(one.finished for one in alive) or self._over(share):
                break
            for entrant in sorted(alive, key=lambda one: one.seconds):  # the time may not suffice for all
                self._run(entrant, sweeps, share)
        for entrant in alive:
            self._finish(entrant)

    def train_in_turn(self, proposals: Iterable[tuple[str, Values]], share: float) -> None:
        """Train one after the other, to the end unless it starts worse than the best."""
        best: Entrant | None = None
        for name, values in proposals:
            determines_time = best is None and self._may_be_extended
            if self._over(share) and not determines_time:
                return
            entrant = self._start(name, values)
            self._run(entrant, _FIRST_SWEEPS, share)
            if best is None or entrant.figure >= best.best_figure(_FIRST_SWEEPS):
                self._run(entrant, entrant.config.method.sweeps, share)
            if best is None or entrant.figure > best.figure:
                best = entrant
            self._finish(entrant)

    def _start(self, name: str, values: Values) -> Entrant:
        self._ran.append(self._entrant(name, values))
        return self._ran[-1]

    def _run(self, entrant: Entrant, sweeps: int, share: float) -> None:
        entrant.run(sweeps, lambda: self._over(share))
        if not entrant.fault and (self._leader is None or entrant.figure > self._leader.figure):
            self._leader = entrant

    def hill_climb(self, share: float = 1.0) -> None:
        """Change single settings of the leader as long as one helps.

        Args:
            share: of the time, after which to stop.
        """
        while (leader := self._leader) is not None:
            for name, values in self._neighbours(leader):
                key = repr(values)
                if key in self._tried:
                    continue
                if self._over(share):
                    return
                entrant = self._start(name, values)
                entrant.run(entrant.config.method.sweeps, lambda: self._over(share))
                if entrant.finished:
                    self._tried.add(key)
                self._finish(entrant)
                if not entrant.fault and leads(entrant.best, leader.best, leader.metric):
                    self._leader = entrant
                    break
            else:
                return

    def _neighbours(self, leader: Entrant) -> Iterator[tuple[str, Values]]:
        """Yield the leader with one setting changed, or without some fields."""
        model, train = (cast(Values, leader.values[name]) for name in ("model", "train"))
        k = cast(int, model.get("k", USUAL_K))
        fixed = "k" in self._config.model.model_fields_set or self._config.model.kind == "lr"
        for name, change, other in neighbours(train, k, fixed):
            values: Values = {**leader.values, "train": {**train, **change}}
            if other != k:
                values["model"] = {**model, "k": other}
            yield f"{leader.name}, {name}", values
        yield from self._without_fields()

    def _finish(self, entrant: Entrant) -> None:
        entrant.learner = None  # frees the model
        self._report(entrant)

    # The result.

    def result(self) -> RaceResult:
        """Return the leader as the winner, beside all others."""
        winner = self._leader
        done = sorted((one for one in self._ran if one.best is not None), key=lambda one: (one is not winner, -one.figure))
        failed = tuple((one.name, one.fault) for one in self._ran if one.fault)
        if winner is None or winner.best is None:
            raise TrainingError("no recipe could be trained", where="train.objective", why="; ".join(map(": ".join, failed)))
        metric, seed, resamples = winner.metric, self._config.seed, self._config.evaluation.intervals
        popular = winner.shared.validation.unknown.popularity

        def against(other: PerRequestMetrics) -> Comparison:
            return compare(winner_metrics.only([metric]), other.only([metric]), resamples, seed)[metric]

        winner_metrics = winner.best
        placed = tuple(
            (one, estimate(one.best.only([metric]), resamples, seed)[metric]) for one in done if one.best is not None
        )
        second = next((one.best for one in done[1:] if one.best is not None), None)
        default = next((one.best for one in self._ran if one.name == SQUARES[0].name and one is not winner), None)
        return RaceResult(
            values=_with_sweeps(winner, self._share),
            name=winner.name,
            placed=placed,
            lead=None if second is None else against(second),
            over_default=None if default is None else against(default),
            popularity=estimate(popular.only([metric]), resamples, seed)[metric],
            over_popularity=against(popular),
            failed=failed,
            metric=metric,
            requests=len(winner_metrics.user),
            share=self._share,
            seconds=time.monotonic() - self._began,
        )


def _with_sweeps(winner: Entrant, share: float) -> Values:
    """Return the winner's overrides, with the sweeps of its best model.

    A model of gradients keeps all epochs unless the last of them made it worse. With more users, it begins to overfit later:
    on half of gowalla, k 192 is best after 5 epochs, and with all of its training rows, NDCG@20 is .119 after 5 of 5 epochs
    and .123 after 10 of 10.

    Args:
        winner: of the race.
        share: of the users, in the race.
    """
    train = dict(cast(Values, winner.values["train"]))
    if train["objective"] == "square":
        unfinished = len(winner.figures) < winner.config.method.sweeps and winner.best_sweep == len(winner.figures)
        train["sweeps"] = min(_MOST_SWEEPS, 2 * winner.best_sweep) if unfinished else winner.best_sweep
    elif winner.declines:
        epochs = winner.best_sweep - winner.config.method.opened
        train["epochs"] = min(ceil(epochs / share), winner.config.method.sweeps - winner.config.method.opened)
    return {**winner.values, "train": train}
