// Relevance as numbers and as colours. The scripts of the page are one module, so none of their names is global.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const STEPS = 32767; // the integer that stands for the largest value of a map
const LEVELS = 255; // steps of colour from zero to full colour, for each sign
const UNSIGNED = ["absolute sum", "norm"];
const REDUCED = {
  sum: (values) => values.reduce((sum, value) => sum + value, 0),
  "absolute sum": (values) => values.reduce((sum, value) => sum + Math.abs(value), 0),
  max: (values) => values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0),
  norm: (values) => Math.hypot(...values),
};

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// The relevance of one sample by one explanation. It is decoded when it is first drawn.
class Relevance {
  constructor(map, [channels, rows, columns]) {
    Object.assign(this, { map, channels, rows, columns });
    this.planes = new Map();
    this.sorted = new Map();
  }

  // One value for each pixel: by a reduction of the channels, or those of the channel with a number.
  plane(channel) {
    if (!this.planes.has(channel)) {
      this.integers ??= new Int16Array(bytes(this.map.values).buffer);
      const size = this.rows * this.columns;
      const plane = new Float64Array(size);
      const values = new Array(this.channels);
      for (let place = 0; place < size; place++) {
        for (let c = 0; c < this.channels; c++) values[c] = this.integers[c * size + place];
        const value = typeof channel === "number" ? values[channel] : REDUCED[channel](values);
        plane[place] = (value * this.map.largest) / STEPS;
      }
      this.planes.set(channel, plane);
    }
    return this.planes.get(channel);
  }

  // The sizes of the values that are not zero, in increasing order.
  sizes(channel) {
    if (!this.sorted.has(channel)) {
      this.sorted.set(channel, this.plane(channel).map(Math.abs).filter((size) => size > 0).sort());
    }
    return this.sorted.get(channel);
  }

  largest(channel) {
    const plane = this.plane(channel);
    let found = 0;
    plane.forEach((value, place) => {
      if (Math.abs(value) > Math.abs(plane[found])) found = place;
    });
    return found;
  }
}

// The relevance that gets the full colour. Between two sizes the percentile is interpolated.
function limitOf(maps, channel, percentile) {
  let sizes = maps[0].sizes(channel);
  if (maps.length > 1) {
    sizes = Float64Array.from(maps.flatMap((map) => [...map.sizes(channel)])).sort();
  }
  if (!sizes.length) return 0;
  const place = ((sizes.length - 1) * percentile) / 100;
  const below = Math.floor(place);
  const above = Math.min(below + 1, sizes.length - 1);
  return sizes[below] + (place - below) * (sizes[above] - sizes[below]);
}

// Returns a function that mixes the colour of a value with the ground below it. Over a picture, small values are
// seldom opaque, and have the colour of a larger one.
function painter(unsigned, over, opacity) {
  const table = bytes(data.look[unsigned ? "unsigned" : "signed"]);
  const colours = new Uint8Array(table.length);
  const opacities = new Float64Array(2 * LEVELS + 1).fill(1);
  for (let level = -LEVELS; level <= LEVELS; level++) {
    const size = Math.abs(level) / LEVELS;
    const seen = over ? Math.max(size, data.look.colourFrom) * (level < 0 ? -1 : 1) : level / LEVELS;
    const from = 3 * (Math.round(seen * LEVELS) + LEVELS);
    colours.set(table.subarray(from, from + 3), 3 * (level + LEVELS));
    if (over) opacities[level + LEVELS] = opacity * size ** data.look.opacityPower;
  }
  return (value, limit, ground, from, drawn, to) => {
    const part = limit > 0 ? Math.max(-1, Math.min(1, value / limit)) : 0;
    const level = Math.round(part * LEVELS) + LEVELS;
    const alpha = opacities[level];
    for (let c = 0; c < 3; c++) {
      drawn[to + c] = Math.round(alpha * colours[3 * level + c] + (1 - alpha) * ground[from + c]);
    }
    drawn[to + 3] = 255;
  };
}

// A picture as it is below relevance: in grey and mixed with white, so that all colours are relevance.
function lightened(pixels) {
  if (!data.look.grey) return pixels;
  const white = data.look.lightened;
  const light = new Uint8ClampedArray(pixels.length);
  for (let place = 0; place < pixels.length; place += 4) {
    const luma = 0.299 * pixels[place] + 0.587 * pixels[place + 1] + 0.114 * pixels[place + 2];
    light.fill(255 * white + (1 - white) * luma, place, place + 3);
  }
  return light;
}

// A number with a true minus sign, as short as its digits allow.
function number(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e6) ? value.toExponential(digits - 1) : `${Number(value.toPrecision(digits))}`;
  return text.replaceAll("-", "−");
}

// A part of the score. Of a negative one, the size is the whole, so that the part keeps its own sign.
function share(part, whole) {
  return whole && part !== null ? `${number((100 * part) / Math.abs(whole), 3)} %` : "";
}

const ofScore = (score) => (score < 0 ? "of the score’s size" : "of the score");
