"use strict";
// What is shown of a digit and its explanation: pictures, bars, the ledger, and the value at a pixel.

const $ = (id) => document.getElementById(id);

const SIGNED = new Intl.NumberFormat("en", { signDisplay: "exceptZero", maximumSignificantDigits: 3 });
const FIXED = new Intl.NumberFormat("en", { maximumFractionDigits: 2, minimumFractionDigits: 2 });
const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const withMinus = (text) => text.replace("-", "−");
const signed = (value) => withMinus(SIGNED.format(value));
const number = (value) => withMinus(FIXED.format(value));

/** Decode bytes in base64. */
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Paint size² pixels. colour(at) is the red, green and blue of one, from 0 to 255, or a level of grey. */
function paint(canvas, size, colour) {
  const image = new ImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer); // opacity, blue, green and red, from the highest bits on
  for (let at = 0; at < size * size; at++) {
    const painted = colour(at);
    const [red, green, blue] = typeof painted === "number" ? [painted, painted, painted] : painted;
    pixels[at] = 0xff000000 | (blue << 16) | (green << 8) | red;
  }
  if (canvas.width !== size) canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Return the colour of a value from -1 to 1 in a table of colours: red, green and blue of each step. */
function colourIn(table, value) {
  const steps = table.length / 3 - 1;
  const at = 3 * Math.round(((Math.min(1, Math.max(-1, value)) + 1) / 2) * steps);
  return table.subarray(at, at + 3);
}

const level = (pixel) => 127.5 * (pixel + 1); // of grey

/** Show the drawing, or the test digit, and what the network sees of it. */
function showDrawing(ink, digit, isTestDigit) {
  if (isTestDigit) paint($("draw"), SIDE, (at) => level(digit[at]));
  else paint($("draw"), ink.size, (at) => 255 * ink.levels[at]);
  $("draw").classList.toggle("pixels", isTestDigit);
  paint($("seen"), SIDE, (at) => (digit ? level(digit[at]) : 0));
}

/** Show probabilities and scores, and which classes are explained, and against which. */
function showScores(scores, best, of, not) {
  const odds = scores.map((score) => Math.exp(score - scores[best]));
  const total = sum(odds);
  document.querySelectorAll("#scores button").forEach((button, k) => {
    button.setAttribute("aria-pressed", String(k === of));
    button.classList.toggle("best", k === best);
    button.classList.toggle("against", k === not);
    button.querySelector(".bar i").style.width = `${(100 * odds[k]) / total}%`;
    button.querySelector(".share").textContent = PERCENT.format(odds[k] / total);
    button.querySelector(".score").textContent = number(scores[k]);
  });
}

/**
 * The ways in which a map is drawn. Each has the value of the full colour, and the colour of a value from -1 to 1 at a
 * pixel of the digit.
 */
function viewsOf(colours) {
  const positive = (map) => map.reduce((a, b) => Math.max(a, b), 0);
  const size = (map) => map.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return {
    signed: { least: -1, full: size, colour: (value) => colourIn(colours.signed, value) },
    heat: { least: 0, full: positive, colour: (value) => colourIn(colours.positive, value) },
    filtered: {
      least: 0,
      full: positive,
      colour: (value, pixel) => level(pixel) * Math.sqrt(Math.max(0, value)),
    },
  };
}

/** Draw the map of a digit, and its scale. */
function showMap(map, digit, view) {
  const full = view.full(map);
  paint($("map"), SIDE, (at) => view.colour(full === 0 ? 0 : map[at] / full, digit[at]));
  const stops = Array.from({ length: 21 }, (_, n) => view.least + (n / 20) * (1 - view.least));
  const grey = (painted) => [painted, painted, painted].map(Math.round);
  const css = (painted) => `rgb(${(painted[0] === undefined ? grey(painted) : painted).join(",")})`;
  const ramp = stops.map((value) => css(view.colour(value, 1)));
  $("ramp").style.background = `linear-gradient(to right, ${ramp.join(",")})`;
  $("least").textContent = view.least ? signed(-full) : "0";
  $("most").textContent = signed(full);
}

/** Show how the score is shared out: amounts by name, of which the first is always shown. */
function showLedger(score, amounts) {
  const listed = Object.entries(amounts).filter(([, amount], n) => n === 0 || Math.abs(amount) >= 0.005);
  const span = sum(listed.map(([, amount]) => Math.abs(amount))) || 1;
  const piece = (sink, amount) => {
    const found = document.createElement("i");
    found.dataset.sink = sink;
    found.className = amount < 0 ? "minus" : "";
    return found;
  };
  const bars = listed.map(([sink, amount]) => {
    const bar = piece(sink, amount);
    bar.style.width = `${(100 * Math.abs(amount)) / span}%`;
    return bar;
  });
  $("amounts").replaceChildren(...bars);
  const terms = listed.map(([sink, amount], n) => {
    const term = document.createElement("span");
    const sign = n === 0 ? "" : amount < 0 ? "− " : "+ ";
    term.append(sign, piece(sink, amount), ` ${number(n === 0 ? amount : Math.abs(amount))} ${sink} `);
    return term;
  });
  $("sums").replaceChildren(`Score ${number(score)} = `, ...terms);
}

/** Show the value at a pixel of the map, [row, column], and a mark there. */
function showValue(map, score, [row, column]) {
  const value = map[row * SIDE + column];
  // Of a negative score a share would have the other sign than the value.
  const share = score > 0 ? `, ${withMinus(PERCENT.format(value / score))} of the score` : "";
  $("value").textContent = `Row ${row}, column ${column}: ${signed(value)}${share}`;
  $("spot").hidden = false;
  $("spot").style.left = `${(100 * (column + 0.5)) / SIDE}%`;
  $("spot").style.top = `${(100 * (row + 0.5)) / SIDE}%`;
}

function hideValue() {
  $("value").textContent = "Point at a pixel, or tap it, to read its value.";
  $("spot").hidden = true;
}
