"""Properties of a difference: it can be applied (its text by git), and is computed in bounded time."""

from __future__ import annotations

import copy
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition.document import digest
from gitstore.definition.quoting import INVISIBLE
from gitstore.diff.sequences import align, filled, text_diff
from gitstore.diff.structure import apply, diff
from gitstore.diff.summary import LONGEST, summary
from gitstore.diff.values import difference
from gitstore.drafts import File
from gitstore.model import Rules
from tests.conftest import examples
from tests.gitstore.graphs import edge, graph, node

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 0.5]), st.text(max_size=3)
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["id", "name", "data", "a/b", "~", "position"]), inner, max_size=4),
    ),
    max_leaves=8,
)
_IDS = st.one_of(st.sampled_from(["a", "b", "c", "d"]), _SCALARS)
_NODES = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"id": _IDS},
        optional={
            "type": _IDS,
            "position": JSON,
            "parentId": _IDS,
            "data": st.one_of(
                JSON,
                st.fixed_dictionaries(
                    {},
                    optional={
                        "config": JSON,
                        "style": JSON,
                        "childNodes": st.lists(_IDS),
                        "parentContainer": _IDS,
                    },
                ),
            ),
        },
    ),
)
_EDGES = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"source": _IDS, "target": _IDS}, optional={"id": _IDS, "sourceHandle": _IDS, "label": JSON}
    ),
)
DEFINITIONS = st.fixed_dictionaries(
    {},
    optional={
        "nodes": st.one_of(st.lists(_NODES, max_size=6), JSON),
        "edges": st.one_of(st.lists(_EDGES, max_size=6), JSON),
        "name": JSON,
        "more": JSON,
    },
)


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal by RFC 8785."""
    return difference(a, b) is None


@given(DEFINITIONS, st.sampled_from(Rules), st.booleans())
def test_a_definition_equals_itself(a: dict[str, Any], rules: Rules, layout: bool) -> None:
    changes = diff(a, copy.deepcopy(a), rules, layout=layout)
    assert changes.empty
    assert summary(changes) == "no change"


@examples(400)
@given(DEFINITIONS, DEFINITIONS, st.sampled_from(Rules), st.booleans())
def test_applying_a_difference_gives_the_newer_definition(
    a: dict[str, Any], b: dict[str, Any], rules: Rules, layout: bool
) -> None:
    """The digests are equal; with layout, the values are, too."""
    before = copy.deepcopy((a, b))
    changes = diff(a, b, rules, layout=layout)
    applied = apply(changes, a)
    assert digest(applied, rules) == digest(b, rules)
    assert layout or changes.empty == (digest(a, rules) == digest(b, rules))
    if layout or rules is Rules.ANY:
        assert same(applied, b)
    assert (a, b) == before
    sentence = summary(changes)
    assert 0 < len(sentence) <= LONGEST
    assert not INVISIBLE.search(sentence)


@given(st.lists(st.integers(0, 6), max_size=40), st.lists(st.integers(0, 6), max_size=40))
def test_alignment_pairs_equal_items_in_order(a: list[int], b: list[int]) -> None:
    pairs = align(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    everything = filled(pairs, len(a), len(b))
    assert set(pairs) <= set(everything)
    assert len({i for i, _ in everything}) == len({j for _, j in everything}) == len(everything)


# Text


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    """An import may hold a file that does not parse."""
    broken = b"nodes: [\n  {token: x}\n\xff\n"
    text = text_diff(File("workflow.yaml", broken), File("workflow.yaml", b"nodes: []\n"))
    assert "-nodes: [\n-  {token: x}\n-\ufffd\n" in text


_LINES = st.lists(st.sampled_from(["a", "b", "c", "d", "", "  e: 1"]), max_size=25)


@examples(60)
@given(_LINES, _LINES, st.booleans(), st.booleans())
def test_git_applies_a_text_diff(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], open_old: bool, open_new: bool
) -> None:
    """Also where the last line has no line break."""
    before, after = (
        "\n".join(lines) + ("" if is_open or not lines else "\n")
        for lines, is_open in ((old, open_old), (new, open_new))
    )
    patch = text_diff(File("workflow.yaml", before.encode()), File("workflow.yaml", after.encode()))
    if before == after:
        assert patch == ""
        return
    folder: Path = tmp_path_factory.mktemp("patched")
    (folder / "workflow.yaml").write_bytes(before.encode())
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), check=True, capture_output=True)
    assert (folder / "workflow.yaml").read_bytes() == after.encode()


def test_a_new_file_name_is_a_rename() -> None:
    old, new = File("workflow.yml", b"a: 1\n"), File("workflow.yaml", b"a: 2\n")
    assert text_diff(old, new) == (
        "diff --git a/workflow.yml b/workflow.yaml\n"
        "rename from workflow.yml\nrename to workflow.yaml\n"
        "--- a/workflow.yml\n+++ b/workflow.yaml\n"
        "@@ -1 +1 @@\n-a: 1\n+a: 2\n"
    )


# Cost


def test_five_hundred_changed_nodes_are_found() -> None:
    def flow(seed: int) -> dict[str, Any]:
        nodes = [
            node(f"n{n}", x=n, url=f"https://{seed}/{n}", headers='{"A": "b"}', retry={"max": 3, "by": 2})
            for n in range(500)
        ]
        return graph(*nodes, edges=[edge(f"n{n}", f"n{n + 1}") for n in range(499)])

    assert len(diff(flow(1), flow(2)).of("node", "changed")) == 500


@pytest.mark.parametrize("length", [500, 5_000])
def test_hostile_lists_are_compared_in_bounded_time(length: int) -> None:
    """Lists with no common items, with equal items only, and reversed."""
    shapes: list[list[Any]] = [
        list(range(length)),
        [0] * length,
        list(range(length))[::-1],
        [0, 1] * (length // 2),
    ]
    for a in shapes:
        for b in shapes:
            assert apply(diff({"x": a}, {"x": b}, Rules.ANY), {"x": a}) == {"x": b}
