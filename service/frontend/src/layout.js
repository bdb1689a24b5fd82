// Where to draw the nodes of a definition, which need not be valid.
import dagre from "@dagrejs/dagre";
import { HEIGHT, WIDTH } from "./graph.js";

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const number = (value, other) => (Number.isFinite(value) && Math.abs(value) <= 1e5 ? value : other);

function kindOf(node, kinds) {
  const names = [node.type, node.data?.type].filter((name) => typeof name === "string" && name);
  for (const name of names) if (kinds[name]) return kinds[name];
  return names[1] ?? names[0] ?? "";
}

/** Return the nodes and edges of a definition as they are drawn. */
export function drawn(value, kinds, nodeRanges = [], edgeRanges = []) {
  const keys = new Map();
  const nodes = [];
  (Array.isArray(value.nodes) ? value.nodes : []).forEach((node, index) => {
    if (!isObject(node)) return;
    const data = isObject(node.data) ? node.data : {};
    const id = typeof node.id === "string" && node.id ? node.id : null;
    const key = id !== null && !keys.has(id) ? id : `\0${index}`;
    keys.set(key, nodes.length);
    const place = isObject(node.position) ? node.position : {};
    const container = Boolean(data.isContainer);
    nodes.push({
      key, id, index, value: node, container, kind: kindOf(node, kinds),
      label: typeof data.label === "string" ? data.label : "",
      x: number(place.x, null), y: number(place.y, null),
      width: container ? number(data.dimensions?.width, 600) : WIDTH,
      height: container ? number(data.dimensions?.height, 400) : HEIGHT,
      parent: typeof node.parentId === "string" ? node.parentId : null,
      from: nodeRanges[index]?.[0] ?? 0, to: nodeRanges[index]?.[1] ?? 0,
    });
  });
  for (const node of nodes) {
    const parent = nodes[keys.get(node.parent)];
    if (!parent?.container || parent === node || parent.parent) node.parent = null;
  }
  const edges = [];
  (Array.isArray(value.edges) ? value.edges : []).forEach((edge, index) => {
    if (!isObject(edge)) return;
    edges.push({
      index, id: edge.id, source: edge.source, target: edge.target, value: edge,
      drawn: keys.has(edge.source) && keys.has(edge.target),
      from: edgeRanges[index]?.[0] ?? 0, to: edgeRanges[index]?.[1] ?? 0,
    });
  });
  place(nodes, edges);
  // Projects with the rules "any" hold definitions of other engines.
  const isGraph = "nodes" in value || Object.keys(value).every((key) => ["name", "description", "edges"].includes(key));
  return { nodes, edges, isGraph, hasNodes: Array.isArray(value.nodes), hasEdges: Array.isArray(value.edges) };
}

/** Give nodes without a position one, below those that have one. */
function place(nodes, edges) {
  const without = nodes.filter((node) => node.x === null || node.y === null);
  if (!without.length) return;
  const bottom = nodes.reduce((low, node) => (node.y === null ? low : Math.max(low, node.y + node.height)), -80);
  const places = arrange(without, edges);
  for (const node of without) {
    node.placed = true;
    node.x = places[node.key].x;
    node.y = places[node.key].y + bottom + 80;
  }
}

/** Return positions by key, from left to right; nodes inside a container keep theirs. */
export function arrange(nodes, edges) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "LR", nodesep: 28, ranksep: 84, marginx: 0, marginy: 0 });
  graph.setDefaultEdgeLabel(() => ({}));
  const free = nodes.filter((node) => !node.parent);
  for (const { key, width, height } of free) graph.setNode(key, { width, height });
  for (const { source, target, index } of edges) {
    if (graph.hasNode(source) && graph.hasNode(target) && source !== target) graph.setEdge(source, target, {}, index);
  }
  dagre.layout(graph);
  const places = {};
  for (const { key, width, height } of free) {
    const { x, y } = graph.node(key);
    places[key] = { x: Math.round(x - width / 2), y: Math.round(y - height / 2) };
  }
  nodes.filter((node) => node.parent).forEach((node, index) => {
    places[node.key] = { x: 24, y: 56 + index * (HEIGHT + 24) };
  });
  return places;
}
