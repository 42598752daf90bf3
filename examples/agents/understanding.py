"""The agents that show how the ideas of a text hang together: knowledge graph and mind map."""

from collections import Counter
from itertools import combinations

from pydantic import Field

from examples.agents.contract import Answer, Payload, Refusal
from examples.agents.documents import Material
from examples.agents.prose import Section, outline, ranked, terms, terms_by_sentence

_BRANCHES = 5
_LEAVES = 4


class GraphWish(Material):
    """A text, and how many of its terms the graph may show."""

    max_terms: int = Field(12, ge=2, le=50)


def build_knowledge_graph(payload: Payload) -> Answer:
    """Link the most frequent terms of a text that share sentences."""
    wish = GraphWish.model_validate(payload)
    rows = terms_by_sentence(wish.read())
    top = ranked(Counter(term for row in rows for term in row), wish.max_terms)
    links = _links(rows, {term for term, _ in top})
    return {
        "nodes": [{"id": term, "count": count} for term, count in top],
        "edges": [
            {"source": source, "target": target, "weight": weight}
            for (source, target), weight in sorted(links.items(), key=lambda x: (-x[1], x[0]))
        ],
        "method": "most frequent terms; an edge weighs the sentences that hold both its ends",
    }


def _links(rows: list[list[str]], chosen: set[str]) -> Counter[tuple[str, str]]:
    return Counter(
        pair for row in rows for pair in combinations(sorted(chosen.intersection(row)), 2)
    )


def create_mindmap(payload: Payload) -> Answer:
    """Draw a text as a tree: its headings, or its main terms where it has none."""
    text = Material.model_validate(payload).read()
    counts = terms(text)
    if not counts:
        raise Refusal("text: expected some English words with a subject")
    sections = outline(text)
    if any(section.heading for section in sections):
        tree, method = _tree_of_headings(sections), "headings of the text with their main terms"
    else:
        tree, method = _tree_of_terms(text), "main terms with the terms that share their sentences"
    return {"tree": tree, "method": method}


def _node(label: str) -> Answer:
    return {"label": label, "children": []}


def _tree_of_headings(sections: list[Section]) -> Answer:
    root = _node("")
    path: list[tuple[int, Answer]] = [(0, root)]
    for section in sections:
        if section.heading:
            while len(path) > 1 and path[-1][0] >= section.level:
                path.pop()
            node = _node(section.heading)
            path[-1][1]["children"].append(node)
            path.append((section.level, node))
        leaves = ranked(terms(section.body), _LEAVES)
        path[-1][1]["children"].extend(_node(term) for term, _ in leaves)
    only_title = len(root["children"]) == 1
    return root["children"][0] if only_title else {**root, "label": "text"}


def _tree_of_terms(text: str) -> Answer:
    rows = terms_by_sentence(text)
    counts = Counter(term for row in rows for term in row)
    (title, _), *branches = ranked(counts, 1 + _BRANCHES)
    root = _node(title)
    for branch, _ in branches:
        near = Counter(term for row in rows if branch in row for term in row)
        leaves = [_node(term) for term, _ in ranked(near, _LEAVES) if term not in {branch, title}]
        root["children"].append({"label": branch, "children": leaves})
    return root
