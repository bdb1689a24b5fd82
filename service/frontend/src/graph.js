// Changes of the graph as JSON Patches. Each takes the picture of the present text.
export const WIDTH = 216; // of a node
export const HEIGHT = 60;
const LEFTOVERS = ["selected", "dragging", "measured"];
const APART = 84;

function add(picture, list, value) {
  const has = list === "nodes" ? picture.hasNodes : picture.hasEdges;
  return has ? [{ op: "add", path: `/${list}/-`, value }] : [{ op: "add", path: `/${list}`, value: [value] }];
}

const ids = (items) => new Set(items.map((item) => item.id));

function unused(taken, stem) {
  for (let number = 1; ; number += 1) if (!taken.has(`${stem}-${number}`)) return `${stem}-${number}`;
}

function edge(picture, source, target) {
  const id = unused(ids(picture.edges), "e");
  return add(picture, "edges", { id, source, target });
}

/** Connect two nodes. */
export const connect = (source, target) => (picture) =>
  source === target || picture.edges.some((each) => each.source === source && each.target === target) ? [] : edge(picture, source, target);

/** Return how a node without edges is obviously connected: with the nearest node before it, or after one that starts runs. */
export function neighbour(picture, key, kinds) {
  const node = picture.nodes.find((each) => each.key === key);
  if (!node?.id || node.parent) return null;
  const starts = Boolean(kinds[node.kind]?.starts);
  const others = picture.nodes.filter((each) => each !== node && each.id && !each.parent && (starts ? !kinds[each.kind]?.starts : each.kind !== "terminate"));
  const apart = (each) => (starts ? each.x - node.x - node.width : node.x - each.x - each.width);
  const beside = others.filter((each) => apart(each) >= 0);
  const distance = (each) => Math.hypot(Math.max(apart(each), 0), each.y - node.y);
  const [other] = (beside.length ? beside : others).toSorted((one, two) => distance(one) - distance(two) || Math.abs(one.index - node.index) - Math.abs(two.index - node.index));
  if (!other) return null;
  return { other, starts, steps: starts ? connect(node.id, other.id) : connect(other.id, node.id) };
}

/** Add a node of a kind: after the node with the key `after`, and connected with it, or at `place`. */
export function create(kind, { after = null, place, isOpen = () => true, made }) {
  return (picture) => {
    const id = unused(ids(picture.nodes), kind.name);
    const before = after === null ? undefined : picture.nodes.find((node) => node.key === after && node.id && !node.parent);
    const isContainer = kind.name === "loop";
    const outer = before || isContainer ? undefined : containerAt(picture, place, isOpen);
    const position = outer ? within(outer, place, { width: WIDTH, height: HEIGHT })
      : free(picture, before ? { x: before.x + before.width + APART, y: before.y } : place);
    const data = { label: kind.title, type: kind.name, config: {}, ...(outer ? { parentContainer: outer.id } : {}) };
    if (isContainer) Object.assign(data, { isContainer: true, childNodes: [], dimensions: { width: 600, height: 400 } });
    const node = { id, type: isContainer ? "loopContainer" : "default", position, ...(outer ? { parentId: outer.id, extent: "parent" } : {}), data };
    made(id);
    return [
      ...listed(picture, node), ...add(picture, "nodes", node),
      ...(before && before.kind !== "terminate" ? edge(picture, before.id, id) : []),
    ];
  };
}

/** Return the open container that the middle of a new node at `place` would be in. */
function containerAt(picture, place, isOpen) {
  const x = place.x + WIDTH / 2;
  const y = place.y + HEIGHT / 2;
  return picture.nodes.find((node) => node.container && node.id && isOpen(node.key) && node.x < x && x < node.x + node.width && node.y < y && y < node.y + node.height);
}

/** Return a place of the canvas as one inside a container. */
function within(container, { x, y }, { width, height }) {
  const limited = (value, least, most) => Math.round(Math.max(least, Math.min(value, Math.max(least, most))));
  return {
    x: limited(x - container.x, 24, container.width - width - 24),
    y: limited(y - container.y, 56, container.height - height - 24),
  };
}

/** Return the place, or one below it where no node is. */
function free(picture, { x, y }) {
  const place = { x: Math.round(x), y: Math.round(y) };
  while (picture.nodes.some((node) => !node.parent && Math.abs(node.x - place.x) < 100 && Math.abs(node.y - place.y) < 60)) place.y += 80;
  return place;
}

/** Add a copy of a node beside it, without its edges. */
export const duplicate = (key, made) => (picture) => {
  const node = picture.nodes.find((each) => each.key === key);
  if (!node) return [];
  const copy = structuredClone(node.value);
  for (const name of LEFTOVERS) delete copy[name];
  copy.id = unused(ids(picture.nodes), node.kind || "node");
  copy.position = free(picture, { x: node.x + 40, y: node.y + 80 });
  if (copy.data?.isContainer) copy.data.childNodes = [];
  made(copy.id);
  return [...listed(picture, copy), ...add(picture, "nodes", copy)];
};

/** Return the step that lists a new child in its container. */
function listed(picture, copy) {
  const container = picture.nodes.find((node) => node.id !== null && node.id === copy.data?.parentContainer);
  return Array.isArray(container?.value.data?.childNodes) ? [{ op: "add", path: `/nodes/${container.index}/data/childNodes/-`, value: copy.id }] : [];
}

/** Put a node into the container with that id; null takes it out. Its place on the canvas stays, if that is inside. */
export const contain = (key, id) => (picture) => {
  const node = picture.nodes.find((each) => each.key === key);
  if (!node?.id) return [];
  const old = picture.nodes.find((each) => each.id !== null && each.id === (node.value.data?.parentContainer ?? node.parent));
  const container = picture.nodes.find((each) => each.id !== null && each.id === id && each.container);
  const outer = picture.nodes.find((each) => each.key === node.parent) ?? { x: 0, y: 0 };
  const free = { x: node.x + outer.x, y: node.y + outer.y };
  const place = container ? within(container, free, node) : free;
  const listed = Array.isArray(old?.value.data?.childNodes) ? old.value.data.childNodes.indexOf(node.id) : -1;
  const list = container && Array.isArray(container.value.data?.childNodes);
  return [
    ...(listed >= 0 ? [{ op: "remove", path: `/nodes/${old.index}/data/childNodes/${listed}` }] : []),
    ...set(node, ["parentId"], container?.id), ...set(node, ["extent"], container && "parent"),
    ...set(node, ["data", "parentContainer"], container?.id), ...moved(node, place),
    ...(container ? [{ op: "add", path: `/nodes/${container.index}/data/childNodes${list ? "/-" : ""}`, value: list ? node.id : [node.id] }] : []),
  ];
};

/** Put nodes that are in no loop into a new one around them. Edges from and to the others become those of the loop. */
export const group = (keys, kind, made) => (picture) => {
  const inner = picture.nodes.filter((node) => keys.includes(node.key) && node.id && !node.parent && !node.container);
  if (!inner.length) return [];
  const id = unused(ids(picture.nodes), kind.name);
  const names = new Set(inner.map((node) => node.id));
  const left = Math.round(Math.min(...inner.map((node) => node.x))) - 24;
  const top = Math.round(Math.min(...inner.map((node) => node.y))) - 56;
  const dimensions = {
    width: Math.round(Math.max(...inner.map((node) => node.x + node.width))) - left + 24,
    height: Math.round(Math.max(...inner.map((node) => node.y + node.height))) - top + 24,
  };
  const data = { label: kind.title, type: kind.name, config: {}, isContainer: true, childNodes: [...names], dimensions };
  made(id);
  return [
    ...inner.flatMap((node) => [
      ...set(node, ["parentId"], id), ...set(node, ["extent"], "parent"), ...set(node, ["data", "parentContainer"], id),
      ...moved(node, { x: node.x - left, y: node.y - top }),
    ]),
    ...redirected(picture, names, id),
    // Before its nodes, as MeshHook's editor needs it.
    { op: "add", path: `/nodes/${Math.min(...inner.map((node) => node.index))}`, value: { id, type: "loopContainer", position: { x: left, y: top }, data } },
  ];
};

/** Return the steps that give a new container the edges between `names`, which are put into it, and others. */
function redirected(picture, names, container) {
  const known = new Set();
  const changed = [];
  const gone = [];
  for (const { index, source, target, value } of picture.edges) {
    if (names.has(source) === names.has(target)) continue;
    const side = names.has(source) ? "source" : "target";
    const pair = side === "source" ? `to ${target}` : `from ${source}`;
    if (known.has(pair)) {
      gone.unshift({ op: "remove", path: `/edges/${index}` });
      continue;
    }
    known.add(pair);
    changed.push({ op: "replace", path: `/edges/${index}/${side}`, value: container });
    if (`${side}Handle` in value) changed.push({ op: "remove", path: `/edges/${index}/${side}Handle` });
  }
  return [...changed, ...gone];
}

/** Remove nodes with their edges and the nodes inside them, and edges. */
export const remove = (keys, edgeIndexes) => (picture) => {
  const gone = picture.nodes.filter((node) => keys.includes(node.key) || keys.includes(node.parent));
  const names = new Set(gone.map((node) => node.id));
  const edges = picture.edges.filter((each) => edgeIndexes.includes(each.index) || names.has(each.source) || names.has(each.target));
  const down = (one, other) => other.index - one.index;
  const children = picture.nodes.filter((node) => !gone.includes(node) && Array.isArray(node.value.data?.childNodes)).flatMap((node) =>
    node.value.data.childNodes.map((id, index) => ({ id, index })).filter(({ id }) => names.has(id)).sort(down)
      .map(({ index }) => ({ op: "remove", path: `/nodes/${node.index}/data/childNodes/${index}` })));
  return [
    ...children,
    ...edges.sort(down).map(({ index }) => ({ op: "remove", path: `/edges/${index}` })),
    ...gone.sort(down).map(({ index }) => ({ op: "remove", path: `/nodes/${index}` })),
  ];
};

/** Move nodes to the places by key. */
export const move = (places) => (picture) =>
  picture.nodes.filter((node) => places[node.key]).flatMap((node) => moved(node, places[node.key]));

/** Set a value within a node to what `next` returns for the present one. */
export const change = (key, path, next) => (picture) => {
  const node = picture.nodes.find((each) => each.key === key);
  return node ? set(node, path, next(path.reduce((value, name) => value?.[name], node.value))) : [];
};

/** Return the steps of a patch that set `value` at `path` within a node; undefined removes it. */
export function set(node, path, value) {
  const steps = [];
  let at = node.value;
  let pointer = `/nodes/${node.index}`;
  for (let depth = 0; depth < path.length - 1; depth += 1) {
    pointer += `/${escaped(path[depth])}`;
    const next = at?.[path[depth]];
    if (next === null || typeof next !== "object") {
      if (value === undefined) return [];
      let made = value;
      for (let inner = path.length - 1; inner > depth; inner -= 1) made = { [path[inner]]: made };
      return [{ op: "add", path: pointer, value: made }];
    }
    at = next;
  }
  const last = path[path.length - 1];
  pointer += `/${escaped(last)}`;
  if (value === undefined) {
    if (last in at) steps.push({ op: "remove", path: pointer });
  } else if (JSON.stringify(at[last]) !== JSON.stringify(value)) {
    steps.push({ op: last in at ? "replace" : "add", path: pointer, value });
  }
  return steps;
}

/** Return the steps that move a node: only the numbers that change. */
export function moved(node, { x, y }) {
  const place = { x: Math.round(x), y: Math.round(y) };
  if (node.placed || typeof node.value.position?.x !== "number" || typeof node.value.position?.y !== "number") {
    return set(node, ["position"], place);
  }
  return [...set(node, ["position", "x"], place.x), ...set(node, ["position", "y"], place.y)];
}

/** Return the steps that give a node another kind, where it has it. */
export function rekinded(node, kind) {
  const own = ["default", "loopContainer", undefined].includes(node.value.type) || node.value.data?.type !== undefined;
  return own ? [...set(node, ["data", "type"], kind), ...(node.value.type === undefined ? set(node, ["type"], "default") : [])] : set(node, ["type"], kind);
}

const escaped = (key) => key.replaceAll("~", "~0").replaceAll("/", "~1");
