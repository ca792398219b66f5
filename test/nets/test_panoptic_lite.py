"""Things by their centres: the grouping against loops in fp64, and the network around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_perception.core.errors import CardError
from dense_perception.data.centres import centre_targets
from dense_perception.nets.centres import OFFSET_PX, CentreGrouping
from dense_perception.nets.zoo import build, stuff_of, tasks_of
from test.support.flops import cost

STUFF = (0, 2)
CLASSES = 5
COUNT = 6
SMALL = {
    "family": "panoptic",
    "variant": "lite0",
    "height": 64,
    "width": 96,
    "dim": 32,
    "depth": 1,
    "heads": 2,
    "decoder_dim": 32,
    "windows": [2, 4, 4, 4],
    "classes": CLASSES,
    "stuff": list(STUFF),
    "count": COUNT,
}


def grouped(logits: np.ndarray, centres: np.ndarray, threshold: float, fewest: int) -> list[dict]:
    """What :class:`CentreGrouping` computes for one picture, pixel by pixel."""
    classes, height, width = logits.shape
    peaks = []
    for r in range(height):
        for c in range(width):
            around = centres[0, max(0, r - 2) : r + 3, max(0, c - 2) : c + 3]
            if centres[0, r, c] == around.max() and centres[0, r, c] >= threshold:
                peaks.append((centres[0, r, c], r, c))
    peaks = sorted(peaks, reverse=True)[:COUNT]
    members: list[list[tuple[int, int]]] = [[] for _ in peaks]
    shares = np.exp(logits - logits.max(0))
    shares /= shares.sum(0)
    for r in range(height):
        for c in range(width):
            if not peaks or int(logits[:, r, c].argmax()) in STUFF:
                continue
            row = r + centres[1, r, c] * OFFSET_PX / 2
            column = c + centres[2, r, c] * OFFSET_PX / 2
            away = [(row - y) ** 2 + (column - x) ** 2 for _, y, x in peaks]
            members[int(np.argmin(away))].append((r, c))
    found = []
    for (peak, _, _), pixels in zip(peaks, members, strict=True):
        if len(pixels) < fewest:
            continue
        votes = [sum(shares[k, r, c] for r, c in pixels) for k in range(classes)]
        label = max((k for k in range(classes) if k not in STUFF), key=lambda k: votes[k])
        rows, columns = zip(*pixels, strict=True)
        found.append(
            {
                "score": min(peak, 1.0) * votes[label] / len(pixels),
                "label": label,
                "pixels": set(pixels),
                "box": [2 * min(columns), 2 * min(rows), 2 * max(columns) + 2, 2 * max(rows) + 2],
            }
        )
    return sorted(found, key=lambda thing: -thing["score"])


@pytest.mark.parametrize("threshold", [0.3, 0.999])
def test_grouping_as_loops_compute_it(threshold: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1, (3, CLASSES, 16, 24)) * 2
    centres = np.concatenate(
        [rng.uniform(0, 1.1, (3, 1, 16, 24)), rng.normal(0, 0.2, (3, 2, 16, 24))], axis=1
    )
    if threshold > 0.9:
        centres[1, 0] = 0.0  # a picture without things among others
    grouping = CentreGrouping(CLASSES, STUFF, COUNT, threshold, 4)
    got = grouping(torch.from_numpy(logits), torch.from_numpy(centres), 2)
    for n in range(3):
        want = grouped(logits[n], centres[n], threshold, 4)
        assert int((got.scores[n] > 0).sum()) == len(want)
        assert (n == 1 and threshold > 0.9) == (not want)
        assert not got.boxes[n, len(want) :].any()
        labels = logits[n].argmax(0)
        for k, thing in enumerate(want):
            assert float(got.scores[n, k]) == pytest.approx(thing["score"], abs=1e-12)
            assert [1, 3, 4][int(got.classes[n, k])] == thing["label"]
            assert got.boxes[n, k].tolist() == thing["box"]
            assert {tuple(at) for at in np.argwhere(got.ids[n].numpy() == k + 1)} == thing["pixels"]
            for at in thing["pixels"]:
                labels[at] = thing["label"]
        np.testing.assert_array_equal(got.labels[n].numpy(), labels)


def test_true_targets_give_the_true_things() -> None:
    ids_hw = np.zeros((64, 96), np.uint16)
    labels_hw = np.zeros((64, 96), np.int64)
    for number, label, rows, columns in (
        (3, 1, slice(8, 24), slice(10, 40)),
        (9, 3, slice(30, 62), slice(60, 80)),
        (5, 1, slice(40, 60), slice(4, 30)),
    ):
        ids_hw[rows, columns], labels_hw[rows, columns] = number, label
    targets = np.nan_to_num(centre_targets(ids_hw, {3: 2, 9: 4, 5: 2}))[::2, ::2]
    targets[..., 1:] /= OFFSET_PX
    logits = torch.nn.functional.one_hot(torch.from_numpy(labels_hw[::2, ::2]), CLASSES) * 12.0
    got = CentreGrouping(CLASSES, STUFF, COUNT, 0.3, 4)(
        logits.permute(2, 0, 1)[None], torch.from_numpy(targets).permute(2, 0, 1)[None], 2
    )
    boxes = {tuple(box) for box in got.boxes[0, :3].tolist()}
    assert boxes == {(10, 8, 40, 24), (60, 30, 80, 62), (4, 40, 30, 60)}
    assert int((got.scores > 0).sum()) == 3
    np.testing.assert_array_equal(got.labels[0].numpy(), labels_hw[::2, ::2])


def test_labels_and_ids_agree_in_every_pixel() -> None:
    torch.manual_seed(0)
    network = build(SMALL).eval()
    with torch.no_grad():
        torch.nn.init.normal_(network.heads["instances"].out.weight, std=0.3)
        torch.nn.init.zeros_(network.heads["instances"].out.bias)
        outputs = network(torch.randn(2, 3, 64, 96), torch.tensor([60.0, 90.0]))
    assert outputs["depth"].shape == outputs["labels"].shape == (2, 64, 96)
    assert outputs["boxes"].shape == (2, COUNT, 4)
    names = [1, 3, 4]
    used = outputs["box_scores"] > 0
    assert used.any()
    for n in range(2):
        for number in outputs["instance_ids"][n].unique().tolist():
            inside = outputs["instance_ids"][n] == number
            if number:
                label = names[int(outputs["box_classes"][n, number - 1])]
                assert (outputs["labels"][n][inside] == label).all()
                rows, columns = inside.nonzero(as_tuple=True)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert outputs["boxes"][n, number - 1].tolist() == [float(side) for side in box]


def test_what_is_trained_and_what_is_stuff() -> None:
    assert tasks_of(SMALL) == ("segmentation", "depth", "instances")
    assert stuff_of(SMALL) == (1, 3)
    assert stuff_of({"family": "mult", "variant": "lite0"}) == ()


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"stuff": [5]}, "stuff is \\[5\\], expected one or more different classes from 0 to 4"),
        ({"stuff": []}, "expected one or more different classes"),
        ({"stuff": [0, 1, 2, 3, 4]}, "not all of them"),
        ({"tasks": ["depth", "instances"]}, "expected segmentation and instances"),
        ({"count": 200}, "count is 200"),
        ({"tasks": ["segmentation", "instances", "boxes"]}, "expected different ones of"),
    ],
)
def test_entries_that_do_not_fit_are_refused(entries: dict, complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        build({**SMALL, **entries})


def test_the_budget() -> None:
    with torch.device("meta"):
        total = cost(build({"family": "panoptic", "variant": "lite0", "classes": 25}), 192, 256)
    assert total.gflops < 8
    assert total.parameters * 4 < 25e6
