"use strict";
// From a drawing to a digit as MNIST has them (LeCun et al. 1998, section III.A): scaled to fit a box of 20 × 20
// pixels with grey levels at the edges, and placed with its centre of mass at the centre of 28 × 28 pixels.

const SIDE = 28;
const BOX = 20;

/** Ink on a square canvas: how much of each pixel is covered, from 0 to 1. Strokes are lists of points [x, y]. */
class Ink {
  constructor(size) {
    this.size = size;
    this.levels = new Float64Array(size * size);
  }

  clear() {
    this.levels.fill(0);
  }

  /** Draw a line of a pen with this radius, with smooth edges. */
  line([x0, y0], [x1, y1], radius) {
    const { size, levels } = this;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const squared = dx * dx + dy * dy;
    const within = (c) => Math.min(size - 1, Math.max(0, Math.round(c)));
    const reached = (a, b) => [within(Math.min(a, b) - radius - 1), within(Math.max(a, b) + radius + 1)];
    const [left, right] = reached(x0, x1);
    const [top, bottom] = reached(y0, y1);
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) {
        // The distance of the pixel's centre from the line is that from its nearest point.
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const t = squared === 0 ? 0 : Math.min(1, Math.max(0, (px * dx + py * dy) / squared));
        const covered = radius + 0.5 - Math.hypot(px - t * dx, py - t * dy);
        const at = y * size + x;
        levels[at] = Math.max(levels[at], Math.min(1, Math.max(0, covered)));
      }
  }

  stroke(points, radius) {
    points.forEach((point, n) => this.line(points[Math.max(0, n - 1)], point, radius));
  }
}

/**
 * Return ink of `size`² pixels as a digit: SIDE² numbers from -1, no ink, to 1. Return null if there is no ink.
 */
function normalised(levels, size) {
  const [rows, columns] = [new Float64Array(size), new Float64Array(size)];
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++) {
      const level = levels[row * size + column];
      rows[row] += level;
      columns[column] += level;
    }
  const [top, bottom] = extent(rows);
  const [left, right] = extent(columns);
  if (top < 0 || left < 0) return null;
  const scale = BOX / Math.max(bottom - top, right - left);
  const height = Math.max(1, Math.round((bottom - top) * scale));
  const width = Math.max(1, Math.round((right - left) * scale));
  const box = resized(levels, size, { top, left, height: bottom - top, width: right - left }, height, width);
  const full = box.reduce((a, b) => Math.max(a, b)); // averaging makes thin lines pale
  const digit = new Float64Array(SIDE * SIDE).fill(-1);
  const [down, across] = [corner(box, height, width, true), corner(box, height, width, false)];
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      digit[(down + row) * SIDE + across + column] = (2 * box[row * width + column]) / full - 1;
  return digit;
}

/** Return the first place with ink, -1 if there is none, and the one behind the last. */
function extent(profile) {
  const has = (amount) => amount > 0.1;
  return [profile.findIndex(has), profile.findLastIndex(has) + 1];
}

/** Cut out a part, and average it over the areas of height × width pixels. */
function resized(levels, size, part, height, width) {
  // First the columns of all rows, then the rows.
  const narrow = new Float64Array(part.height * width);
  shares(part.width, width, (from, to, share) => {
    for (let row = 0; row < part.height; row++)
      narrow[row * width + to] += share * levels[(part.top + row) * size + part.left + from];
  });
  const small = new Float64Array(height * width);
  shares(part.height, height, (from, to, share) => {
    for (let column = 0; column < width; column++)
      small[to * width + column] += share * narrow[from * width + column];
  });
  return small;
}

/** Call visit(from, to, share) for each of `many` pixels that lies in one of `few`, with its share of that one. */
function shares(many, few, visit) {
  const length = many / few;
  for (let to = 0; to < few; to++)
    for (let from = Math.floor(to * length); from < Math.min(many, Math.ceil((to + 1) * length)); from++) {
      const covered = Math.min(from + 1, (to + 1) * length) - Math.max(from, to * length);
      if (covered > 0) visit(from, to, covered / length);
    }
}

/** Return where the box begins, so that its centre of mass lies at the centre: between 13.5 and 14.5 from 0. */
function corner(box, height, width, vertical) {
  let [mass, moment] = [0, 0];
  box.forEach((level, at) => {
    mass += level;
    moment += level * (vertical ? Math.floor(at / width) : at % width);
  });
  const offset = Math.ceil(SIDE / 2 - 0.5 - moment / mass);
  return Math.min(Math.max(offset, 0), SIDE - (vertical ? height : width));
}

/** Add `margin` pixels without ink at each side. */
function padded(digit, margin) {
  const size = SIDE + 2 * margin;
  const wider = new Float64Array(size * size).fill(-1);
  for (let row = 0; row < SIDE; row++)
    wider.set(digit.subarray(row * SIDE, (row + 1) * SIDE), (row + margin) * size + margin);
  return wider;
}

// A link carries a drawing as letters: three for each point, and "." between strokes. A canvas has 512 steps a side, and
// what is drawn lies on these steps, so that a link gives the same drawing.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STEPS = 511;

const stepOf = (c, size) => Math.min(STEPS, Math.max(0, Math.round((c / size) * STEPS)));

/** Return the point nearest to one that a link can carry. */
const snapped = (point, size) => point.map((c) => (stepOf(c, size) / STEPS) * size);

function written(strokes, size) {
  const letters = ([x, y]) => {
    const bits = stepOf(x, size) * (STEPS + 1) + stepOf(y, size); // 18 of them
    return LETTERS[bits >> 12] + LETTERS[(bits >> 6) & 63] + LETTERS[bits & 63];
  };
  // A point that is the same as the one before it is left out.
  const text = (stroke) =>
    stroke
      .map(letters)
      .filter((point, n, all) => point !== all[n - 1])
      .join("");
  return strokes.map(text).join(".");
}

/** Read what `written` wrote. Anything else in it is left out. */
function read(text, size) {
  const point = (letters) => {
    const bits = [...letters].reduce((all, letter) => all * 64 + LETTERS.indexOf(letter), 0);
    return [Math.floor(bits / (STEPS + 1)), bits % (STEPS + 1)].map((step) => (step / STEPS) * size);
  };
  const stroke = (part) => [...part.matchAll(/[A-Za-z0-9_-]{3}/g)].map(([letters]) => point(letters));
  return text
    .split(".")
    .map(stroke)
    .filter((points) => points.length > 0);
}
