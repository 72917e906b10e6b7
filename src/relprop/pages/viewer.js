// One sample: its map over its picture, a cursor that reads values, and the controls.

const at = (id) => document.getElementById(id);
const canvas = at("canvas");
const VIEWS = { over: "both", map: "relevance", picture: "picture" };
const state = {
  item: null, map: 0, view: "over", row: 0, column: 0,
  channels: data.look.channels, percentile: data.look.percentile, opacity: data.look.opacity, shared: data.look.shared,
};
let maps = []; // Relevance of the item, one for each explanation
let picture = null; // its pixels: of its own size, lightened, and in the map's size

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
  drawScale(at("scale"), paint, unsigned, view() === "over");
  at("low").textContent = unsigned ? "0" : number(-limit, 3);
  at("middle").textContent = unsigned ? number(limit / 2, 3) : "0";
  at("high").textContent = `${number(limit, 3)}${state.percentile < 100 ? " and more" : ""}`;
  at("percentile-told").textContent = `${number(state.percentile)} %`;
  at("opacity-told").textContent = `${Math.round(100 * state.opacity)} %`;
  at("meaning").textContent = data.look.meaning[unsigned ? "unsigned" : "signed"].replace("$target", () => map.map.aim);
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
  at("reading").replaceChildren(...parts);
  Object.assign(at("cursor").style, {
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
  at(id).replaceChildren(at(id).querySelector("legend"), ...choices);
  at(id).hidden = choices.length < 2;
}

function showMap(index) {
  state.map = Number(index);
  const { map, columns } = maps[state.map];
  const place = maps[state.map].largest(state.channels);
  const largest = number(maps[state.map].plane(state.channels)[place]);
  canvas.setAttribute("aria-label", `Relevance for ${map.target}: sum ${number(map.total)}, largest value ${largest} at `
    + placeName(Math.floor(place / columns), place % columns));
  at("notes").replaceChildren(...map.notes.map((note) => element("li", note, { className: "warned" })));
  showLedger(map);
  showFacts(state.item, map);
  draw();
}

function showView(value) {
  state.view = value;
  at("opacity-control").hidden = view() !== "over";
  showMap(state.map);
}

function shapeFrame() {
  const { rows, columns } = maps[0];
  Object.assign(at("frame").style, isStrip()
    ? { aspectRatio: "auto", height: "11rem", width: "100%" }
    : { aspectRatio: `${columns} / ${rows}`, height: "auto", width: `min(100%, ${31 * Math.min(1, columns / rows)}rem)` });
  at("keys").textContent = `Point at the map or touch it to read a value. ${isStrip() ? "The keys ← and →" : "Arrow keys"} move `
    + "the cursor, with Shift by ten places; Home and End go to the ends of the row.";
}

// The names of features, or the numbers of places, below their bars if there is room for them.
function nameBars() {
  const { columns } = maps[0];
  const names = isStrip() && columns <= FEW_ROWS ? Array.from({ length: columns }, (_, c) => data.look.features[c] ?? String(c)) : [];
  at("names").className = names.some((name) => name.length > 60 / columns) ? "long" : "";
  at("names").replaceChildren(...names.map((name) => element("span", name)));
}

async function show(item) {
  const [channels, rows, columns] = item.shape;
  Object.assign(state, { item, map: Math.min(state.map, item.maps.length - 1) });
  maps = item.maps.map((map) => new Relevance(map, item.shape));
  picture = null;
  if (state.channels >= channels) state.channels = data.look.channels;
  at("label").textContent = item.label;
  at("label").hidden = !item.label;
  toggles("explanations", { ...item.maps.map((map) => map.name) }, state.map, showMap);
  at("shared-control").hidden = item.maps.length < 2;
  const numbered = Array.from({ length: channels }, (_, c) => [String(c), `channel ${c}`]);
  at("channels").replaceChildren(...[...Object.keys(REDUCED).map((name) => [name, name]), ...numbered].map(
    ([value, text]) => element("option", text, { value, selected: value === String(state.channels) }),
  ));
  at("channels-control").hidden = channels < 2;
  shapeFrame();
  nameBars();
  goToLargest();
  if (item.picture !== null) {
    const image = new Image();
    image.src = data.pictures[item.picture];
    await image.decode();
    if (state.item !== item) return; // another sample was chosen meanwhile
    const own = pixelsOf(image, image.width, image.height);
    picture = { own, light: lightened(own.data), small: pixelsOf(image, columns, rows) };
  }
  toggles("views", picture ? VIEWS : {}, state.view, showView);
  showView(state.view);
  showValues(isStrip() ? maps : [], state.channels);
}

canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("keydown", press);
at("largest").addEventListener("click", goToLargest);
at("percentile").min = Math.min(50, Math.floor(state.percentile));
for (const id of ["opacity", "percentile"]) {
  at(id).value = state[id];
  at(id).addEventListener("input", (event) => { state[id] = Number(event.target.value); draw(); });
}
at("shared").checked = state.shared;
at("shared").addEventListener("change", (event) => { state.shared = event.target.checked; draw(); });
at("channels").addEventListener("change", ({ target: { value } }) => {
  state.channels = value in REDUCED ? value : Number(value);
  showMap(state.map);
  showValues(isStrip() ? maps : [], state.channels);
});
