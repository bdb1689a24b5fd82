"""Graph layout: boxes keep their `position`, and those without one are arranged in layers.

Layers follow the edges from left to right: a node is one layer after the last of its predecessors. Within a
layer nodes are ordered by their neighbours (the barycenter heuristic of Sugiyama et al., 1981). No validity
is assumed: a cycle is laid out as if it lacked the edges into its first node.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

K = TypeVar("K", bound=Hashable)

WIDTH: Final = 208
HEIGHT: Final = 56
GAP_X: Final = 72
GAP_Y: Final = 28
_SWEEPS: Final = 4
_MOST_STRETCHED: Final = 150  # boxes that are compared pairwise
_LARGEST_STRETCH: Final = 2.5


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def moved(self, x: float, y: float) -> Rect:
        return Rect(self.x + x, self.y + y, self.width, self.height)


def around(rects: Iterable[Rect]) -> Rect:
    """Return the smallest rectangle that contains them all."""
    every = list(rects) or [Rect(0, 0)]
    x, y = min(r.x for r in every), min(r.y for r in every)
    return Rect(x, y, max(r.right for r in every) - x, max(r.bottom for r in every) - y)


def arrange(
    sizes: Mapping[K, tuple[float, float]],
    given: Mapping[K, tuple[float, float]],
    edges: Iterable[tuple[K, K]],
) -> dict[K, Rect]:
    """Return a position for every box: those of `given` unchanged, the others in layers below them."""
    placed = _stretched({key: Rect(*given[key], *sizes[key]) for key in sizes if key in given})
    rest = [key for key in sizes if key not in given]
    if not rest:
        return placed
    inner = [(a, b) for a, b in edges if a != b and a in sizes and b in sizes]
    layered = _layered(rest, sizes, [(a, b) for a, b in inner if a not in given and b not in given])
    if not placed:
        return layered
    there = around(placed.values())
    return placed | {key: rect.moved(there.x, there.bottom + 2 * GAP_Y) for key, rect in layered.items()}


def _stretched(placed: dict[K, Rect]) -> dict[K, Rect]:
    """Spread the boxes, if the editor's boxes are smaller than ours, so that they do not overlap."""
    rects = list(placed.values())
    if len(rects) > _MOST_STRETCHED:
        return placed
    factor = 1.0
    for index, a in enumerate(rects):
        for b in rects[index + 1 :]:
            wide, high = (a.width + b.width) / 2 + 16, (a.height + b.height) / 2 + 16
            x = abs(a.x + a.width / 2 - b.x - b.width / 2)
            y = abs(a.y + a.height / 2 - b.y - b.height / 2)
            needed = min(wide / x if x else _LARGEST_STRETCH, high / y if y else _LARGEST_STRETCH)
            if x * factor < wide and y * factor < high:
                factor = min(max(factor, needed), _LARGEST_STRETCH)
    return {key: Rect(r.x * factor, r.y * factor, r.width, r.height) for key, r in placed.items()}


def _layered(
    keys: Sequence[K], sizes: Mapping[K, tuple[float, float]], edges: Sequence[tuple[K, K]]
) -> dict[K, Rect]:
    after: dict[K, list[K]] = {key: [] for key in keys}
    before: dict[K, list[K]] = {key: [] for key in keys}
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
    layers = _layers(keys, after, before)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for index in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            neighbours, other = (before, layers[index - 1]) if down else (after, layers[index + 1])
            layers[index] = _in_order(layers[index], neighbours, other)
    return _placed(layers, sizes)


def _layers(keys: Sequence[K], after: Mapping[K, list[K]], before: Mapping[K, list[K]]) -> list[list[K]]:
    """Return the keys by layer. A cycle is entered at a node that was reached, else at its first one."""
    layer: dict[K, int] = {}
    reached = dict.fromkeys(keys, 0)
    waiting = {key: len(before[key]) for key in keys}
    ready = [key for key in keys if not waiting[key]]
    while len(layer) < len(keys):
        if not ready:
            rest = [key for key in keys if key not in layer]
            ready.append(next((key for key in rest if reached[key]), rest[0]))
        key = ready.pop()
        layer[key] = reached[key]
        for child in after[key]:
            if child not in layer:
                reached[child] = max(reached[child], layer[key] + 1)
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
    layers: list[list[K]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for key in keys:
        layers[layer[key]].append(key)
    return layers


def _in_order(layer: Sequence[K], neighbours: Mapping[K, list[K]], other: Sequence[K]) -> list[K]:
    at = {key: index for index, key in enumerate(other)}

    def middle(pair: tuple[int, K]) -> tuple[float, int]:
        index, key = pair
        places = [at[each] for each in neighbours[key] if each in at]
        return (sum(places) / len(places) if places else index, index)

    return [key for _, key in sorted(enumerate(layer), key=middle)]


def _placed(layers: Sequence[Sequence[K]], sizes: Mapping[K, tuple[float, float]]) -> dict[K, Rect]:
    heights = [sum(sizes[key][1] + GAP_Y for key in layer) - GAP_Y for layer in layers]
    tallest, x = max(heights), 0.0
    rects: dict[K, Rect] = {}
    for layer, height in zip(layers, heights, strict=True):
        y = (tallest - height) / 2
        for key in layer:
            rects[key] = Rect(x, y, *sizes[key])
            y += sizes[key][1] + GAP_Y
        x += max(sizes[key][0] for key in layer) + GAP_X
    return rects
