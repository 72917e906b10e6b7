// What is drawn on the canvases: pixels of a map, bars of a sequence, the scale of colours.

const WHITE = [255, 255, 255];
const GREY = lightened(Uint8ClampedArray.of(128, 128, 128, 255));
const BAR = 60; // height in pixels of the largest bar
const BARS = 2048; // the most bars: of more values, each bar has the largest of several

// The pixels of an image, drawn in a size.
function pixelsOf(image, width, height) {
  const hidden = Object.assign(document.createElement("canvas"), { width, height });
  const context = hidden.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// A map alone, over its picture, or the picture alone. The canvas has the pixels of the larger one of both.
function drawPixels(canvas, map, plane, picture, view, paint, limit) {
  const own = view === "map" ? null : picture.own;
  const width = own ? Math.max(map.columns, own.width) : map.columns;
  const height = own ? Math.max(map.rows, own.height) : map.rows;
  Object.assign(canvas, { width, height });
  const drawn = new ImageData(width, height);
  for (let y = 0, to = 0; y < height; y++) {
    const row = Math.floor((y * map.rows) / height) * map.columns;
    const line = own ? Math.floor((y * own.height) / height) * own.width : 0;
    for (let x = 0; x < width; x++, to += 4) {
      const from = own ? 4 * (line + Math.floor((x * own.width) / width)) : 0;
      if (view === "picture") drawn.data.set(own.data.subarray(from, from + 4), to);
      else paint(plane[row + Math.floor((x * map.columns) / width)], limit, own ? picture.light : WHITE, from, drawn.data, to);
    }
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

// Sequences and features: a bar for each, upwards for what is positive.
function drawBars(canvas, plane, paint, limit) {
  const width = Math.min(plane.length, BARS);
  Object.assign(canvas, { width, height: 2 * BAR + 1 });
  const drawn = new ImageData(width, 2 * BAR + 1);
  drawn.data.fill(255);
  for (let x = 0; x < width; x++) {
    let value = 0;
    for (let place = Math.floor((x * plane.length) / width); place < ((x + 1) * plane.length) / width; place++) {
      if (Math.abs(plane[place]) > Math.abs(value)) value = plane[place];
    }
    const end = limit > 0 ? Math.round(Math.max(-1, Math.min(1, value / limit)) * BAR) : 0;
    // Pale colours would not be seen on white, so the smallest bars have the colour of a quarter.
    const seen = Math.sign(value) * Math.max(Math.abs(value), limit / 4);
    for (let y = Math.min(0, end); y <= Math.max(0, end); y++) {
      const to = 4 * ((BAR - y) * width + x);
      if (y) paint(seen, limit, WHITE, 0, drawn.data, to);
      else drawn.data.set([120, 115, 110], to);
    }
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

function drawScale(canvas, paint, unsigned, over) {
  const drawn = new ImageData(2 * LEVELS + 1, 1);
  for (let level = 0; level <= 2 * LEVELS; level++) {
    paint(unsigned ? level / 2 : level - LEVELS, LEVELS, over ? GREY : WHITE, 0, drawn.data, 4 * level);
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}
