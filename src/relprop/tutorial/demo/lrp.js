"use strict";
// Layer-wise relevance propagation for small networks: layers, rules, ledger. Nothing here knows the page.
//
// A layer has a map with a weight w, and its transpose. Letters are those of the literature: input x, output z,
// relevance R. All numbers are doubles. A part of a weight has a name: "all", "positive" or "negative".

/** Return n numbers, value(i) for each i. */
function filled(n, value) {
  const found = new Float64Array(n);
  for (let i = 0; i < n; i++) found[i] = value(i);
  return found;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Return a / b, and 0 where b is zero. */
const quotient = (a, b) => filled(a.length, (i) => (b[i] === 0 ? 0 : a[i] / b[i]));

/**
 * z_j = Σ_i x_i w_ij + b_j at each of several places, with w of shape (channels, inputs of a place). A place is the
 * numbers of the inputs that it sees: a dense layer has one that sees all, a convolution one for each position.
 */
class Linear {
  constructor({ weight, bias }, inputs, places) {
    this.inputs = inputs;
    this.places = places.map((place) => Int32Array.from(place));
    this.channels = bias.length;
    this.bias = filled(bias.length * places.length, (j) => bias[Math.floor(j / places.length)]);
    this.parts = {
      all: weight,
      positive: weight.map((w) => Math.max(0, w)),
      negative: weight.map((w) => Math.min(0, w)),
    };
  }

  /** Return x·w without the bias, for a part of the weight: channels one after the other. */
  apply(x, part = "all") {
    const w = this.parts[part];
    const z = new Float64Array(this.bias.length);
    this.places.forEach((place, at) => {
      const seen = new Float64Array(place.length);
      for (let i = 0; i < seen.length; i++) seen[i] = x[place[i]];
      for (let channel = 0; channel < this.channels; channel++) {
        const row = channel * seen.length;
        let product = 0;
        for (let i = 0; i < seen.length; i++) product += seen[i] * w[row + i];
        z[channel * this.places.length + at] = product;
      }
    });
    return z;
  }

  /** Return the transpose of `apply`, as a gradient takes it. */
  transpose(s, part = "all") {
    const w = this.parts[part];
    const c = new Float64Array(this.inputs);
    this.places.forEach((place, at) => {
      const given = new Float64Array(place.length);
      for (let channel = 0; channel < this.channels; channel++) {
        const factor = s[channel * this.places.length + at];
        if (factor === 0) continue; // as of many outputs behind a ReLU
        const row = channel * given.length;
        for (let i = 0; i < given.length; i++) given[i] += factor * w[row + i];
      }
      for (let i = 0; i < place.length; i++) c[place[i]] += given[i];
    });
    return c;
  }
}

function dense(layer) {
  const [, inputs] = layer.shape;
  return new Linear(layer, inputs, [filled(inputs, (i) => i)]);
}

/** A convolution without padding, with w of shape (channels, channels before, kernel, kernel), on `size`² pixels. */
function convolution(layer, size) {
  const [, before, kernel] = layer.shape;
  const width = size - kernel + 1;
  const places = Array.from({ length: width * width }, (_, at) => {
    const corner = Math.floor(at / width) * size + (at % width);
    return filled(before * kernel * kernel, (i) => {
      const row = Math.floor(i / kernel); // of all channels
      return corner + Math.floor(row / kernel) * size * size + (row % kernel) * size + (i % kernel);
    });
  });
  return Object.assign(new Linear(layer, before * size * size, places), { width });
}

/** Half the sum over blocks of 2 × 2. An odd last row or column is left out. */
class SumPool {
  constructor(channels, size) {
    this.inputs = channels * size * size;
    this.width = Math.floor(size / 2);
    this.corners = Array.from({ length: channels * this.width ** 2 }, (_, j) => {
      const row = Math.floor(j / this.width); // of all channels
      const channel = Math.floor(row / this.width);
      return (channel * size + 2 * (row % this.width)) * size + 2 * (j % this.width);
    });
    this.offsets = [0, 1, size, size + 1];
  }

  apply(x) {
    const { corners, offsets } = this;
    return filled(corners.length, (j) => 0.5 * offsets.reduce((z, offset) => z + x[corners[j] + offset], 0));
  }

  transpose(s) {
    const c = new Float64Array(this.inputs);
    this.corners.forEach((corner, j) => this.offsets.forEach((offset) => (c[corner + offset] = 0.5 * s[j])));
    return c;
  }
}

class ReLU {
  apply(x) {
    return x.map((value) => Math.max(0, value));
  }
}

// Rules. Each takes the layer, its input x and output z, the relevance R of the output, and a function that
// notes in the ledger what is absorbed. It returns the relevance of the input.

/** Share R in proportion to x·w, where contributions that have the sign of z weigh 1 + γ, and the bias likewise. */
function gammaRule(gamma) {
  return (layer, x, z, R, absorb) => {
    const P = layer.apply(x, "positive");
    const favoured = filled(z.length, (j) => (z[j] < 0 ? z[j] - layer.bias[j] - P[j] : P[j]));
    const share = layer.bias.map((b, j) => b + gamma * (z[j] < 0 ? Math.min(0, b) : Math.max(0, b)));
    const s = quotient(
      R,
      z.map((value, j) => value - layer.bias[j] + gamma * favoured[j] + share[j]),
    );
    absorb("bias", sum(s.map((value, j) => value * share[j])));
    const c = layer.transpose(s);
    const up = layer.transpose(
      s.map((value, j) => (z[j] < 0 ? 0 : value)),
      "positive",
    );
    const down = layer.transpose(
      s.map((value, j) => (z[j] < 0 ? value : 0)),
      "negative",
    );
    return filled(x.length, (i) => x[i] * (c[i] + gamma * (up[i] + down[i])));
  };
}

/** R_i = Σ_j x_i w_ij / (z_j + ε sgn z_j) · R_j. */
function epsilonRule(epsilon) {
  return (layer, x, z, R, absorb) => {
    const stabiliser = z.map((value) => (value < 0 ? -epsilon : epsilon));
    const s = quotient(
      R,
      z.map((value, j) => value + stabiliser[j]),
    );
    absorb("bias", sum(s.map((value, j) => value * layer.bias[j])));
    absorb("epsilon", sum(s.map((value, j) => value * stabiliser[j])));
    const c = layer.transpose(s);
    return filled(x.length, (i) => x[i] * c[i]);
  };
}

/** α times R in proportion to positive contributions, -β times to negative ones; z⁺ for β = 0. For x ≥ 0. */
function alphaBetaRule(alpha, beta) {
  return (layer, x, z, R, absorb) => {
    const [P, N] = [layer.apply(x, "positive"), layer.apply(x, "negative")];
    // Contributions of one sign alone get all of the relevance. Under z⁺, β = 0, negative ones get nothing.
    const forP = R.map((value, j) => (beta > 0 && N[j] === 0 ? value : alpha * value));
    const forN = R.map((value, j) => (beta > 0 && P[j] === 0 ? value : -beta * value));
    absorb("no contribution", sum(R.map((value, j) => (P[j] > 0 || (beta > 0 && N[j] < 0) ? 0 : value))));
    const up = layer.transpose(quotient(forP, P), "positive");
    const down = beta > 0 ? layer.transpose(quotient(forN, N), "negative") : new Float64Array(x.length);
    return filled(x.length, (i) => x[i] * (up[i] + down[i]));
  };
}

/** R_i = Σ_j (x_i w_ij - l w_ij⁺ - h w_ij⁻) / Σ_i (same) · R_j, for pixels between l and h. */
function boxRule(low, high) {
  return (layer, x, z, R, absorb) => {
    const [l, h] = [x.map(() => low), x.map(() => high)];
    const [whole, least, most] = [layer.apply(x), layer.apply(l, "positive"), layer.apply(h, "negative")];
    const bracket = filled(z.length, (j) => whole[j] - least[j] - most[j]);
    const s = quotient(R, bracket);
    absorb("no contribution", sum(R.map((value, j) => (bracket[j] === 0 ? value : 0))));
    const [all, up, down] = [
      layer.transpose(s),
      layer.transpose(s, "positive"),
      layer.transpose(s, "negative"),
    ];
    return filled(x.length, (i) => x[i] * all[i] - low * up[i] - high * down[i]);
  };
}

/** The rules of the first layer and of the others, by name. Sensitivity has none: it is the squared gradient. */
const RULES = {
  "deep-taylor": [boxRule(-1, 1), alphaBetaRule(1, 0)],
  "alpha2-beta1": [boxRule(-1, 1), alphaBetaRule(2, 1)],
  epsilon: [epsilonRule(1e-6), epsilonRule(1e-6)],
  gamma: [boxRule(-1, 1), gammaRule(0.25)],
};

class Network {
  /** Build a network from its layers' descriptions, for pictures of one channel with `size`² pixels. */
  constructor({ layers, size }) {
    this.size = size;
    let [channels, width] = [1, size];
    this.layers = layers.map((layer) => {
      if (layer.kind === "relu") return new ReLU();
      if (layer.kind === "dense") return dense(layer);
      const made = layer.kind === "pool" ? new SumPool(channels, width) : convolution(layer, width);
      [channels, width] = [made.channels ?? channels, made.width];
      return made;
    });
  }

  /** Return the inputs of all layers, and the scores at the end. */
  activations(x) {
    const found = [x];
    for (const layer of this.layers) {
      const z = layer.apply(found.at(-1));
      found.push(layer.bias ? z.map((value, j) => value + layer.bias[j]) : z);
    }
    return found;
  }

  /**
   * Explain Σ_k weights[k]·score[k], as the score of a class, or the difference of two, by a rule of `RULES` or
   * "sensitivity". `found` is what `activations` returned. Return { relevance, score, absorbed }: the relevance of
   * the pixels, and the ledger.
   */
  explain(found, weights, rule) {
    const seed = found.at(-1).map((score, k) => weights[k] * score);
    const absorbed = {};
    if (rule === "sensitivity") {
      const gradient = this.gradient(found, Float64Array.from(weights));
      return { relevance: gradient.map((g) => g * g), score: sum(seed), absorbed };
    }
    const absorb = (sink, amount) => (absorbed[sink] = (absorbed[sink] ?? 0) + amount);
    let R = seed;
    for (let n = this.layers.length - 1; n >= 0; n--) {
      const [layer, x, z] = [this.layers[n], found[n], found[n + 1]];
      if (layer.bias) {
        R = RULES[rule][n === 0 ? 0 : 1](layer, x, z, R, absorb);
      } else if (layer instanceof SumPool) {
        const c = layer.transpose(quotient(R, z)); // in proportion to the values of a block
        R = x.map((value, i) => value * c[i]);
      } // and a ReLU lets relevance pass as it is
    }
    return { relevance: R, score: sum(seed), absorbed };
  }

  gradient(found, g) {
    for (let n = this.layers.length - 1; n >= 0; n--) {
      const [layer, x] = [this.layers[n], found[n]];
      g = layer instanceof ReLU ? g.map((value, i) => (x[i] > 0 ? value : 0)) : layer.transpose(g);
    }
    return g;
  }
}

/** Decode weights: whole numbers of `size` bytes, least byte first, in base64; the largest stands for `scale`. */
function decoded({ bytes, size, scale }) {
  const text = atob(bytes);
  const unused = 32 - 8 * size;
  return filled(text.length / size, (i) => {
    let bits = 0;
    for (let k = 0; k < size; k++) bits |= text.charCodeAt(size * i + k) << (8 * k);
    const whole = (bits << unused) >> unused; // with its sign
    return (whole / (2 ** (8 * size - 1) - 1)) * scale;
  });
}

/** Build a network from what the page has of it. */
function networkOf({ layers, size }) {
  return new Network({
    size,
    layers: layers.map((layer) =>
      layer.weight ? { ...layer, weight: decoded(layer.weight), bias: Float64Array.from(layer.bias) } : layer,
    ),
  });
}
