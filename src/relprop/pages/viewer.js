// One sample: its map over its picture, a cursor that reads values, and the controls.

const canvas = byId("canvas");
const VIEWS = { over: "both", map: "relevance", picture: "picture" };
const state = {
  item: null, map: 0, view: "over", row: 0, column: 0,
  channels: data.look.channels, percentile: data.look.percentile, opacity: data.look.opacity, shared: data.look.shared,
};
let maps = []; // Relevance of the item, one for each explanation
let picture = null; // its pixels: of its own size, lightened, and in the map's size; null until they are decoded

const isStrip = () => maps[0].rows === 1;
const view = () => (picture ? state.view : "map");

function placeName(row, column) {
  if (isStrip()) return data.look.features[column] ?? `position ${column}`;
  return `row ${row}, column ${column}`;
}

function draw() {
  const map = maps[state.map];
  const unsigned = UNSIGNED.includes(state.channels);
  const paint = painter(unsigned, view() === "over", state.opacity);
  const limit = limitOf(state.shared ? maps : [map], state.channels, state.percentile);
  const plane = map.plane(state.channels);
  if (isStrip()) drawBars(canvas, plane, paint, limit);
  else drawPixels(canvas, map, plane, picture, view(), paint, limit);
  drawScale(byId("scale"), paint, unsigned, view() === "over");
  byId("low").textContent = unsigned ? "0" : number(-limit, 3);
  byId("middle").textContent = unsigned ? number(limit / 2, 3) : "0";
  byId("high").textContent = `${number(limit, 3)}${state.percentile < 100 ? " and more" : ""}`;
  byId("percentile-told").textContent = `${number(state.percentile)} %`;
  byId("opacity-told").textContent = `${Math.round(100 * state.opacity)} %`;
  byId("meaning").textContent = data.look.meaning[unsigned ? "unsigned" : "signed"].replace("$target", () => map.map.aim);
  read();
}

// What is below the cursor, in words.
function read() {
  const { map, columns, rows } = maps[state.map];
  const place = state.row * columns + state.column;
  const value = maps[state.map].plane(state.channels)[place];
  const told = `relevance ${value > 0 ? "+" : ""}${number(value)}`;
  const part = share(value, map.score);
  const parts = [element("b", placeName(state.row, state.column)), element("div", part ? `${told}, ${part} ${ofScore(map.score)}` : told)];
  if (picture) {
    const [red, green, blue] = picture.small.data.subarray(4 * place, 4 * place + 3);
    const swatch = element("span", "", { className: "swatch" });
    swatch.style.background = `rgb(${red}, ${green}, ${blue})`;
    const line = element("div");
    line.append(swatch, `picture: red ${red}, green ${green}, blue ${blue}`);
    parts.push(line);
  }
  byId("reading").replaceChildren(...parts);
  Object.assign(byId("cursor").style, {
    left: `${(100 * (state.column + 0.5)) / columns}%`,
    top: `${(100 * (state.row + 0.5)) / rows}%`,
    width: `max(11px, ${100 / columns}%)`,
    height: `max(11px, ${100 / rows}%)`,
  });
}

function move(row, column) {
  state.row = Math.max(0, Math.min(maps[0].rows - 1, row));
  state.column = Math.max(0, Math.min(maps[0].columns - 1, column));
  read();
}

function goToLargest() {
  const place = maps[state.map].largest(state.channels);
  move(Math.floor(place / maps[0].columns), place % maps[0].columns);
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const part = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
  move(Math.floor(part[0] * maps[0].rows), Math.floor(part[1] * maps[0].columns));
}

function press(event) {
  const step = event.shiftKey ? 10 : 1;
  const { row, column } = state;
  const moves = {
    ArrowUp: [row - step, column], ArrowDown: [row + step, column], ArrowLeft: [row, column - step],
    ArrowRight: [row, column + step], Home: [row, 0], End: [row, maps[0].columns - 1],
  };
  if (!moves[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  move(...moves[event.key]);
}

// Toggles, of which one is on.
function toggles(id, names, chosen, choose) {
  const choices = Object.entries(names).map(([value, text]) => {
    const label = element("label");
    const input = element("input", "", { type: "radio", name: id, value, checked: value === String(chosen) });
    input.addEventListener("change", () => choose(value));
    label.append(input, ` ${text}`);
    return label;
  });
  byId(id).replaceChildren(byId(id).querySelector("legend"), ...choices);
  byId(id).hidden = choices.length < 2;
}

function showMap(index) {
  state.map = Number(index);
  const { map, columns } = maps[state.map];
  const place = maps[state.map].largest(state.channels);
  const largest = number(maps[state.map].plane(state.channels)[place]);
  canvas.setAttribute("aria-label", `Relevance for ${map.target}: sum ${number(map.total)}, largest value ${largest} at `
    + placeName(Math.floor(place / columns), place % columns));
  byId("notes").replaceChildren(...map.notes.map((note) => element("li", note, { className: "warned" })));
  showLedger(map);
  showFacts(state.item, map);
  draw();
}

function showView(value) {
  state.view = value;
  byId("opacity-control").hidden = view() !== "over";
  showMap(state.map);
}

function shapeFrame() {
  const { rows, columns } = maps[0];
  Object.assign(byId("frame").style, isStrip()
    ? { aspectRatio: "auto", height: "11rem", width: "100%" }
    : { aspectRatio: `${columns} / ${rows}`, height: "auto", width: `min(100%, ${31 * Math.min(1, columns / rows)}rem)` });
  byId("keys").textContent = `Point at the map or touch it to read a value. ${isStrip() ? "The keys ← and →" : "Arrow keys"} move `
    + "the cursor, with Shift by ten places; Home and End go to the ends of the row.";
}

// The names of features, or the numbers of places, below their bars if there is room for them.
function nameBars() {
  const { columns } = maps[0];
  const names = isStrip() && columns <= FEW_ROWS ? Array.from({ length: columns }, (_, c) => data.look.features[c] ?? String(c)) : [];
  byId("names").className = names.some((name) => name.length > 60 / columns) ? "long" : "";
  byId("names").replaceChildren(...names.map((name) => element("span", name)));
}

// Draws relevance alone at once, and over the picture as soon as that is decoded.
async function show(item) {
  const [channels, rows, columns] = item.shape;
  Object.assign(state, { item, map: Math.min(state.map, item.maps.length - 1) });
  maps = item.maps.map((map) => new Relevance(map, item.shape));
  picture = null;
  if (state.channels >= channels) state.channels = data.look.channels;
  byId("label").textContent = item.label;
  byId("label").hidden = !item.label;
  toggles("explanations", { ...item.maps.map((map) => map.name) }, state.map, showMap);
  byId("shared-control").hidden = item.maps.length < 2;
  const numbered = Array.from({ length: channels }, (_, c) => [String(c), `channel ${c}`]);
  byId("channels").replaceChildren(...[...Object.keys(REDUCED).map((name) => [name, name]), ...numbered].map(
    ([value, text]) => element("option", text, { value, selected: value === String(state.channels) }),
  ));
  byId("channels-control").hidden = channels < 2;
  shapeFrame();
  nameBars();
  goToLargest();
  toggles("views", item.picture === null ? {} : VIEWS, state.view, showView);
  showView(state.view);
  showValues(isStrip() ? maps : [], state.channels);
  byId("unread").hidden = true;
  if (item.picture === null) return;
  const image = new Image();
  image.src = data.pictures[item.picture];
  const decoded = await image.decode().then(() => true, () => false);
  if (state.item !== item) return; // another sample was chosen meanwhile
  if (decoded) {
    const own = pixelsOf(image, image.width, image.height);
    picture = { own, light: lightened(own.data), small: pixelsOf(image, columns, rows) };
  } else {
    byId("unread").hidden = false;
    toggles("views", {}, state.view, showView);
  }
  showView(state.view);
}

canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("keydown", press);
byId("largest").addEventListener("click", goToLargest);
byId("percentile").min = Math.min(50, Math.floor(state.percentile));
for (const id of ["opacity", "percentile"]) {
  byId(id).value = state[id];
  byId(id).addEventListener("input", (event) => { state[id] = Number(event.target.value); draw(); });
}
byId("shared").checked = state.shared;
byId("shared").addEventListener("change", (event) => { state.shared = event.target.checked; draw(); });
byId("channels").addEventListener("change", ({ target: { value } }) => {
  state.channels = value in REDUCED ? value : Number(value);
  showMap(state.map);
  showValues(isStrip() ? maps : [], state.channels);
});
