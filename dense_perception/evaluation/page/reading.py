"""What the sections ask a report: who competes, which is best, what is certain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from dense_perception.evaluation.document import ContestantData, FigureValue, PairValue, Report
from dense_perception.evaluation.figures import figure, in_order

HEADLINES = (
    "depth.metric.absrel",
    "depth.metric.d1",
    "depth.scale",
    "depth.aligned.absrel",
    "depth.aligned.d1",
    "labels.miou",
    "labels.accuracy",
    "boxes.ap",
    "masks.ap",
    "panoptic.pq",
    "normals.mean_deg",
    "depth.normals.mean_deg",
    "depth.edge.within_4px",
    "temporal.scale_jitter",
    "confidence.ece",
    "edges.l1",
    "keypoints.l1",
    "reshading.l1",
)

_MOST = 8
_OF_THINGS = ("boxes.", "masks.", "panoptic.")
_FREE = ("depth.scale", "depth.coverage")


class Reading:
    """A report with the questions that several sections have.

    ``models`` are the contestants that are no baselines, in the report's order. Each has its place
    in it as ``slot``: its colour and sign on the whole page. Baselines have ``None``.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        named = report["contestants"]
        self.models = [each for each in named if each["kind"] != "baseline"]
        self.baselines = [each for each in named if each["kind"] == "baseline"]
        self._slots = {each["name"]: k for k, each in enumerate(self.models)}

    @property
    def contestants(self) -> list[ContestantData]:
        """Models first, then baselines."""
        return [*self.models, *self.baselines]

    def slot(self, name: str) -> int | None:
        """The place of a contestant among the models."""
        return self._slots.get(name)

    def legend(self, names: Iterable[str]) -> list[tuple[str, int | None]]:
        """Names with their slots, in the order of the page."""
        wanted = set(names)
        named = [each["name"] for each in self.contestants if each["name"] in wanted]
        return [(name, self.slot(name)) for name in named]

    @cached_property
    def figures(self) -> list[str]:
        """Every figure that some contestant has, in the order of the catalogue."""
        found = self.report["figures"].values()
        return in_order(name for values in found for name in values if "@" not in name)

    @cached_property
    def headlines(self) -> list[str]:
        """The few figures of the first table; the one of the verdict is among them."""
        chosen = [name for name in HEADLINES if self._is_of_model(name)]
        if self.primary and self.primary not in chosen:
            chosen.insert(0, self.primary)
        if any(name.startswith(_OF_THINGS) for name in chosen):
            chosen = _of_each_task(chosen)
        return chosen[:_MOST] or self.figures[:_MOST]

    @cached_property
    def primary(self) -> str:
        """The figure that the verdict rests on; empty without any figure."""
        for verdict in self.report["verdict"]:
            if (pair := self.pair_of(verdict["pair"])) is not None:
                return pair["figure"]
        return next(
            (name for name in (*HEADLINES, *self.figures) if self._is_of_model(name)),
            "",
        )

    def _is_of_model(self, which: str) -> bool:
        """Whether some model has the figure: what baselines alone have is not in question."""
        return any(self.value(each["name"], which) is not None for each in self.models)

    def pair_of(self, index: int | None) -> PairValue | None:
        """The pair with that number; ``None`` where there is none."""
        pairs = self.report["pairs"]
        return pairs[index] if index is not None and 0 <= index < len(pairs) else None

    def value(self, name: str, which: str) -> FigureValue | None:
        """A contestant's figure; ``None`` where it has none."""
        return self.report["figures"].get(name, {}).get(which)

    def best(self, which: str) -> tuple[str, bool] | None:
        """The model with the best value, and whether it certainly beats every other one.

        ``None`` where fewer than two models have the figure, or several the best value.
        """
        values = {
            each["name"]: found["value"]
            for each in self.models
            if (found := self.value(each["name"], which)) and found["value"] is not None
        }
        if len(values) < 2:
            return None
        leader = best_of(which, values.items())
        others = [name for name in values if name != leader]
        if values[leader] in [values[name] for name in others]:
            return None
        return leader, all(self._is_certainly_better(leader, other, which) for other in others)

    def unbeaten(self, name: str, which: str) -> list[str]:
        """The baselines that a model's value does not improve on.

        None in what baselines have for free, as they are fitted to the truth.
        """
        own = self.value(name, which)
        if own is None or own["value"] is None or which in _FREE:
            return []
        return [
            each["name"]
            for each in self.baselines
            if (theirs := self.value(each["name"], which)) is not None
            and theirs["value"] is not None
            and not figure(which).improves(theirs["value"], own["value"])
        ]

    def _is_certainly_better(self, name: str, other: str, which: str) -> bool:
        return any(
            pair["figure"] == which
            and {pair["a"], pair["b"]} == {name, other}
            and pair["certain"]
            and pair["better"] == name
            for pair in self.report["pairs"]
        )


def _of_each_task(names: list[str]) -> list[str]:
    """As many as are shown, and more of no task that leave out another one."""
    kept = list(names)
    tasks = [name.partition(".")[0] for name in kept]
    while len(kept) > max(_MOST, len(set(tasks))):
        fullest = max(tasks, key=tasks.count)
        last = len(tasks) - 1 - tasks[::-1].index(fullest)
        del kept[last], tasks[last]
    return kept


def best_of(which: str, values: Iterable[tuple[str, float]]) -> str:
    """The name with the best value of a figure."""
    found: Sequence[tuple[str, float]] = list(values)
    leader, best = found[0]
    for name, value in found[1:]:
        if figure(which).improves(best, value):
            leader, best = name, value
    return leader
