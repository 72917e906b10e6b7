"use strict";
// The page: what is drawn or chosen, what is asked, and what is shown of it. Numbers come from lrp.js and digit.js.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  const CANVAS = 280;
  const PEN = 11; // radius
  const SIGN = new Intl.NumberFormat("en", { signDisplay: "exceptZero", maximumSignificantDigits: 3 });
  const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 2, minimumFractionDigits: 2 });
  const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
  const signed = (value) => (Number.isFinite(value) ? SIGN.format(value).replace("-", "−") : "–");
  const number = (value) => NUMBER.format(value).replace("-", "−");

  const networks = Object.fromEntries(
    Object.entries(data.networks).map(([name, of]) => [name, networkOf(of)]),
  );
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const digits = { labels: data.digits.labels, levels: bytes(data.digits.levels) };
  const colours = Object.fromEntries(
    Object.entries(data.colours).map(([name, table]) => [name, bytes(table)]),
  );

  // What is asked. Either strokes are drawn, or a test digit is chosen. Without a class the best one is explained.
  const asked = {
    strokes: [],
    chosen: 0,
    network: "cnn",
    rule: "deep-taylor",
    view: "heat",
    of: null,
    not: null,
  };
  const ink = new Ink(CANVAS);
  let shown = null; // the relevance on the page, for the pointer

  // ---- what is drawn ----

  function digitNow() {
    if (asked.chosen === null) return normalised(ink.levels, CANVAS);
    return digits.levels.slice(asked.chosen * SIDE * SIDE, (asked.chosen + 1) * SIDE * SIDE).reduce(
      (digit, level, at) => {
        digit[at] = (2 * level) / 255 - 1;
        return digit;
      },
      new Float64Array(SIDE * SIDE),
    );
  }

  function drawAgain() {
    ink.clear();
    asked.strokes.forEach((stroke) => ink.stroke(stroke, PEN));
  }

  /** Paint size² pixels. colour(at) is the red, green and blue of one, from 0 to 255, or a level of grey. */
  function paint(canvas, size, colour) {
    const image = new ImageData(size, size);
    for (let at = 0; at < size * size; at++) {
      const painted = colour(at);
      for (let k = 0; k < 3; k++) image.data[4 * at + k] = painted[k] ?? painted;
      image.data[4 * at + 3] = 255;
    }
    if (canvas.width !== size) canvas.width = canvas.height = size;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function coloured(table, value) {
    const steps = table.length / 3 - 1;
    const at = 3 * Math.round(((Math.min(1, Math.max(-1, value)) + 1) / 2) * steps);
    return table.subarray(at, at + 3);
  }

  // ---- what is shown ----

  function update() {
    const digit = digitNow();
    showDrawing(digit);
    document.body.classList.toggle("empty", digit === null);
    if (digit === null) {
      shown = null;
      $("said").textContent = "Draw a digit, or choose one.";
      showLink();
      return;
    }
    const network = networks[asked.network];
    const margin = (network.size - SIDE) / 2;
    const x = padded(digit, margin);
    const scores = network.scores(x);
    const ranked = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
    const of = asked.of ?? ranked[0];
    const other = asked.not === "next" ? ranked.find((k) => k !== of) : asked.not;
    const not = other === of ? null : other;
    const weights = scores.map((_, k) => (k === of ? 1 : 0) - (k === not ? 1 : 0));
    const found = network.explain(x, weights, asked.rule);
    shown = {
      ...within(found.relevance, network.size, margin),
      score: found.score,
      absorbed: found.absorbed,
    };
    showScores(scores, ranked[0], of, not);
    showMap(digit);
    showLedger();
    const goal = not === null ? `class ${of}` : `class ${of} and not ${not}`;
    $("asked").textContent = `Explain ${of}, and not`;
    $("goal").textContent =
      not === null ? `Which pixels speak for ${of}?` : `Which pixels speak for ${of}, and not for ${not}?`;
    $("said").textContent =
      `The network sees a ${ranked[0]}. Explained: ${goal}, score ${number(found.score)}.`;
    $("map").setAttribute("aria-label", `Relevance of the pixels for ${goal}: ${told()}`);
    for (const part of document.querySelectorAll("[data-about]"))
      part.hidden = part.dataset.about !== asked.rule;
    showLink();
  }

  /** Split relevance into that of the digit and the sum on the margin around it. */
  function within(relevance, size, margin) {
    const inside = filled(
      SIDE * SIDE,
      (at) => relevance[(Math.floor(at / SIDE) + margin) * size + (at % SIDE) + margin],
    );
    return {
      inside,
      margin: sum(relevance) - sum(inside),
      largest: inside.reduce((a, b) => Math.max(a, Math.abs(b)), 0),
    };
  }

  function showDrawing(digit) {
    if (asked.chosen === null) paint($("draw"), CANVAS, (at) => 255 * ink.levels[at]);
    else paint($("draw"), SIDE, (at) => 127.5 * (digit[at] + 1));
    $("draw").classList.toggle("pixels", asked.chosen !== null);
    paint($("seen"), SIDE, (at) => (digit ? 127.5 * (digit[at] + 1) : 0));
    $("draw").setAttribute(
      "aria-label",
      asked.chosen === null
        ? `Canvas with ${asked.strokes.length} strokes. Draw here; with keys: arrows move the pen, space lowers and lifts it.`
        : `Test digit, a ${digits.labels[asked.chosen]}. Draw here to begin a drawing.`,
    );
    document
      .querySelectorAll("#digits button")
      .forEach((button, n) => button.setAttribute("aria-pressed", String(n === asked.chosen)));
    $("undo").disabled = asked.chosen !== null || asked.strokes.length === 0;
    $("clear").disabled = digit === null;
  }

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

  function showMap(digit) {
    const { inside, largest } = shown;
    const value = (at) => (largest === 0 ? 0 : inside[at] / largest);
    const views = {
      heat: (at) => coloured(colours.positive, value(at)),
      signed: (at) => coloured(colours.signed, value(at)),
      filtered: (at) => 127.5 * (digit[at] + 1) * Math.sqrt(Math.max(0, value(at))),
    };
    paint($("map"), SIDE, views[asked.view]);
    const bar = { heat: [0, colours.positive], signed: [-1, colours.signed], filtered: [0, null] }[
      asked.view
    ];
    const stops = Array.from({ length: 21 }, (_, n) => bar[0] + (n / 20) * (1 - bar[0]));
    const grey = (level) => [level, level, level].map(Math.round);
    const colour = (v) => `rgb(${(bar[1] ? coloured(bar[1], v) : grey(255 * Math.sqrt(v))).join(",")})`;
    $("ramp").style.background = `linear-gradient(to right, ${stops.map(colour).join(",")})`;
    $("least").textContent = bar[0] ? signed(-largest) : "0";
    $("most").textContent = signed(largest);
  }

  function told() {
    const { inside, largest, score } = shown;
    const at = inside.findIndex((value) => Math.abs(value) === largest);
    const most = `largest at row ${Math.floor(at / SIDE) + 1}, column ${(at % SIDE) + 1}`;
    return asked.rule === "sensitivity" ? most : `sum ${number(sum(inside))} of ${number(score)}, ${most}.`;
  }

  function showLedger() {
    $("ledger").hidden = asked.rule === "sensitivity";
    const parts = { pixels: sum(shown.inside), "black margin": shown.margin, ...shown.absorbed };
    const listed = Object.entries(parts).filter(
      ([name, amount]) => name === "pixels" || Math.abs(amount) >= 0.005,
    );
    const span = sum(listed.map(([, amount]) => Math.abs(amount))) || 1;
    $("amounts").replaceChildren(
      ...listed.map(([name, amount]) => {
        const part = document.createElement("i");
        part.className = amount < 0 ? "minus" : "";
        part.dataset.sink = name;
        part.style.width = `${(100 * Math.abs(amount)) / span}%`;
        return part;
      }),
    );
    const terms = listed
      .map(([name, amount]) => `${number(amount)} ${name}`)
      .join(" + ")
      .replaceAll("+ −", "− ");
    $("sums").textContent = `Score ${number(shown.score)} = ${terms}`;
  }

  // ---- the link ----

  function showLink() {
    const state = new URLSearchParams();
    if (asked.chosen === null) state.set("d", written(asked.strokes, CANVAS));
    else state.set("t", asked.chosen);
    for (const name of ["network", "rule", "view", "of", "not"])
      if (asked[name] !== null) state.set(name, asked[name]);
    history.replaceState(null, "", `#${state}`);
    $("link").value = location.href;
  }

  function fromLink() {
    const state = new URLSearchParams(location.hash.slice(1));
    const among = (name, all) => (all.includes(state.get(name)) ? state.get(name) : asked[name]);
    const chosen = Number(state.get("t") ?? NaN);
    if (state.has("d")) [asked.strokes, asked.chosen] = [read(state.get("d"), CANVAS), null];
    else if (Number.isInteger(chosen) && chosen >= 0 && chosen < digits.labels.length) asked.chosen = chosen;
    asked.network = among("network", Object.keys(networks));
    asked.rule = among("rule", ["sensitivity", ...Object.keys(RULES)]);
    asked.view = among("view", ["heat", "signed", "filtered"]);
    const digit = (name) => (/^[0-9]$/.test(state.get(name) ?? "") ? Number(state.get(name)) : null);
    asked.of = digit("of");
    asked.not = state.get("not") === "next" ? "next" : digit("not");
    for (const name of ["network", "rule", "view"])
      document.querySelector(`input[name=${name}][value=${asked[name]}]`).checked = true;
    $("not").value = asked.not ?? "";
    drawAgain();
    update();
  }

  // ---- strokes and buttons ----

  let waiting = false;
  function soon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  }

  function begin(point) {
    if (asked.chosen !== null) {
      asked.chosen = null;
      asked.strokes = [];
      ink.clear();
    }
    asked.strokes.push([point]);
    ink.line(point, point, PEN);
    soon();
  }

  function proceed(point) {
    const stroke = asked.strokes.at(-1);
    if (asked.chosen !== null || !stroke) return begin(point); // it was undone, or a digit was chosen
    ink.line(stroke.at(-1), point, PEN);
    stroke.push(point);
    soon();
  }

  const lift = drawable($("draw"), $("pen"), CANVAS, begin, proceed);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !$("undo").disabled) $("undo").click();
  });

  $("undo").addEventListener("click", () => {
    asked.strokes.pop();
    lift();
    drawAgain();
    update();
  });
  $("clear").addEventListener("click", () => {
    [asked.strokes, asked.chosen] = [[], null];
    lift();
    drawAgain();
    update();
  });
  for (const name of ["network", "rule", "view"])
    document.querySelectorAll(`input[name=${name}]`).forEach((input) =>
      input.addEventListener("change", () => {
        asked[name] = input.value;
        update();
      }),
    );
  $("not").addEventListener("change", () => {
    asked.not =
      { "": null, next: "next" }[$("not").value] ??
      (/^[0-9]$/.test($("not").value) ? Number($("not").value) : null);
    update();
  });
  $("copy").addEventListener("click", async () => {
    $("link").select();
    try {
      await navigator.clipboard.writeText($("link").value);
      $("copied").textContent = "copied";
    } catch {
      $("copied").textContent = "press Ctrl+C";
    }
  });
  addEventListener("hashchange", fromLink);

  const readout = $("value");
  $("map").addEventListener("pointermove", (event) => {
    if (shown === null) return;
    const box = $("map").getBoundingClientRect();
    const [row, column] = [event.clientY - box.top, event.clientX - box.left].map((c) =>
      Math.min(SIDE - 1, Math.max(0, Math.floor((c / box.width) * SIDE))),
    );
    const value = shown.inside[row * SIDE + column];
    const share = asked.rule === "sensitivity" ? "" : `, ${PERCENT.format(value / shown.score)} of the score`;
    readout.textContent = `Row ${row + 1}, column ${column + 1}: ${signed(value)}${share}`;
  });
  $("map").addEventListener(
    "pointerleave",
    () => (readout.textContent = "Point at a pixel to read its relevance."),
  );

  // ---- the buttons of classes and test digits ----

  for (let k = 0; k < 10; k++) {
    const button = document.createElement("button");
    button.type = "button";
    const parts = ["name", "bar", "share", "score"].map((name) =>
      Object.assign(document.createElement("span"), { className: name }),
    );
    parts[0].textContent = k;
    parts[1].append(document.createElement("i"));
    button.append(...parts);
    button.addEventListener("click", () => {
      asked.of = asked.of === k ? null : k; // once more, and the best class is explained again
      update();
    });
    $("scores").append(button);
    $("not").append(new Option(k, k));
  }
  digits.labels.forEach((label, n) => {
    const button = document.createElement("button");
    const small = document.createElement("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `test digit ${n + 1}, a ${label}`);
    button.append(small);
    paint(small, SIDE, (at) => digits.levels[n * SIDE * SIDE + at]);
    button.addEventListener("click", () => {
      asked.chosen = n;
      lift();
      update();
    });
    $("digits").append(button);
  });
  fromLink();
})();
