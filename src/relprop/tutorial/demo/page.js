"use strict";
// The page: what is drawn or chosen, what is asked, and the link that keeps it. Numbers come from lrp.js and
// digit.js, and show.js shows them.

(() => {
  const CANVAS = 280;
  const PEN = 11; // radius
  const PATIENCE = 300; // milliseconds without a change, after which the link is renewed

  const data = JSON.parse($("data").textContent);
  const mapped = (object, change) =>
    Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));
  const networks = mapped(data.networks, networkOf);
  const views = viewsOf(mapped(data.colours, bytesOf));
  const { labels } = data.digits;
  const levels = bytesOf(data.digits.levels);
  const testDigit = (n) => filled(SIDE * SIDE, (at) => (2 * levels[n * SIDE * SIDE + at]) / 255 - 1);

  // Either strokes are drawn, or a test digit is chosen. Without a class the best one is explained.
  let drawn = { strokes: [], chosen: 0 };
  const before = []; // what was drawn, and the class that was chosen, for undo
  const asked = { network: "cnn", rule: "deep-taylor", view: "signed", of: null, not: null };
  const ink = new Ink(CANVAS);
  let shown = null; // the map and the score on the page
  let spot = null; // the row and column whose value is read

  // ---- from what is drawn and asked to what is shown ----

  function update() {
    const isTestDigit = drawn.chosen !== null;
    const digit = isTestDigit ? testDigit(drawn.chosen) : normalised(ink.levels, CANVAS);
    showDrawing(ink, digit, isTestDigit);
    sayWhatIsDrawn(digit);
    showLinkSoon();
    document.body.classList.toggle("empty", digit === null);
    if (digit === null) {
      shown = null;
      $("said").textContent = "Draw a digit, or choose one.";
      return;
    }
    const network = networks[asked.network];
    const margin = (network.size - SIDE) / 2;
    const x = padded(digit, margin);
    const found = network.activations(x);
    const scores = found.at(-1);
    const ranked = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
    const of = asked.of ?? ranked[0];
    const other = asked.not === "next" ? ranked.find((k) => k !== of) : asked.not;
    const not = other === of ? null : other;
    const weights = scores.map((_, k) => (k === of ? 1 : 0) - (k === not ? 1 : 0));
    const { relevance, score, absorbed } = network.explain(found, weights, asked.rule);
    const inside = (at) => relevance[(Math.floor(at / SIDE) + margin) * network.size + (at % SIDE) + margin];
    const map = filled(SIDE * SIDE, inside);
    shown = { map, score: asked.rule === "sensitivity" ? 0 : score };
    showScores(scores, ranked[0], of, not);
    showMap(map, digit, views[asked.view]);
    showLedger(score, { pixels: sum(map), margin: sum(relevance) - sum(map), ...absorbed });
    sayWhatIsExplained(ranked[0], of, not, score);
    if (spot === null) hideValue();
    else showValue(shown.map, shown.score, spot);
  }

  function sayWhatIsDrawn(digit) {
    const { strokes, chosen } = drawn;
    const count = `${strokes.length} stroke${strokes.length === 1 ? "" : "s"}`;
    $("drawn").textContent =
      chosen === null
        ? "The small picture is what the network sees: scaled to 20 × 20 pixels, and centred, as in its training."
        : `A test digit, a ${labels[chosen]}. Draw over it to begin your own.`;
    $("draw").setAttribute(
      "aria-label",
      chosen === null ? `Your drawing, ${count}.` : `A test digit, a ${labels[chosen]}.`,
    );
    const buttons = document.querySelectorAll("#digits button");
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(n === chosen)));
    $("undo").disabled = before.length === 0;
    $("clear").disabled = digit === null;
  }

  function sayWhatIsExplained(best, of, not, score) {
    const sensitivity = asked.rule === "sensitivity";
    const classes = not === null ? `${of}` : `${of}, and not for ${not}`;
    $("asked").textContent = `Explain ${of}, and not`;
    $("goal").textContent = sensitivity
      ? `Which pixels would change ${not === null ? `the score of ${of}` : `${of} less ${not}`} most?`
      : `Which pixels speak for ${classes}?`;
    $("said").textContent =
      `The network sees a ${best}. Explained: ${of}${not === null ? "" : ` and not ${not}`}.`;
    const goal = $("goal").textContent.replace("?", "");
    const total = sensitivity ? "" : `, sum ${number(sum(shown.map))} of a score of ${number(score)}`;
    $("map").setAttribute("aria-label", `Map: ${goal}${total}.`);
    $("ledger").hidden = sensitivity;
    $("negative").hidden = sensitivity || score >= 0;
    $("margin").hidden = asked.network !== "cnn" || sensitivity;
    for (const part of document.querySelectorAll("[data-about]"))
      part.hidden = part.dataset.about !== asked.rule;
  }

  // ---- the link ----

  let timer = 0;
  function showLinkSoon() {
    clearTimeout(timer); // browsers allow few changes of the address in a second
    timer = setTimeout(showLink, PATIENCE);
  }

  function showLink() {
    const state = new URLSearchParams();
    if (drawn.chosen === null) state.set("d", written(drawn.strokes, CANVAS));
    else state.set("t", drawn.chosen);
    for (const [name, value] of Object.entries(asked)) if (value !== null) state.set(name, value);
    history.replaceState(null, "", `#${state}`);
    $("link").value = location.href;
  }

  function fromLink() {
    const state = new URLSearchParams(location.hash.slice(1));
    const among = (name, all) => (all.includes(state.get(name)) ? state.get(name) : asked[name]);
    const digit = (name) => (/^[0-9]$/.test(state.get(name) ?? "") ? Number(state.get(name)) : null);
    const chosen = /^[0-9]+$/.test(state.get("t") ?? "") ? Number(state.get("t")) : labels.length;
    if (state.has("d")) drawn = { strokes: read(state.get("d"), CANVAS), chosen: null };
    else if (chosen < labels.length) drawn = { strokes: [], chosen };
    asked.network = among("network", Object.keys(networks));
    asked.rule = among("rule", ["sensitivity", ...Object.keys(RULES)]);
    asked.view = among("view", Object.keys(views));
    asked.of = digit("of");
    asked.not = state.get("not") === "next" ? "next" : digit("not");
    for (const name of ["network", "rule", "view"]) $(`${name}-${asked[name]}`).checked = true;
    $("not").value = asked.not ?? "";
    drawAgain();
  }

  // ---- drawing ----

  function drawAgain() {
    ink.clear();
    drawn.strokes.forEach((stroke) => ink.stroke(stroke, PEN));
    update();
  }

  /** Draw something else, which may be undone. A class that was chosen for the digit before does not stay. */
  function replaceBy(other) {
    before.push([drawn, asked.of]);
    drawn = other;
    asked.of = null;
    drawAgain();
  }

  let waiting = false;
  function updateSoon() {
    if (waiting) return; // once for each frame
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  }

  function begin(point) {
    const at = snapped(point, CANVAS);
    if (drawn.chosen !== null) replaceBy({ strokes: [[at]], chosen: null });
    else {
      before.push([drawn, asked.of]);
      drawn = { strokes: [...drawn.strokes, [at]], chosen: null };
    }
    ink.line(at, at, PEN);
    updateSoon();
  }

  function proceed(point) {
    const stroke = drawn.strokes.at(-1);
    if (drawn.chosen !== null || !stroke) return begin(point); // it was undone, or a digit was chosen
    const at = snapped(point, CANVAS);
    ink.line(stroke.at(-1), at, PEN);
    stroke.push(at);
    updateSoon();
  }

  const lift = drawable($("draw"), $("pen"), CANVAS, begin, proceed);

  function undo() {
    lift();
    [drawn, asked.of] = before.pop();
    drawAgain();
  }

  $("undo").addEventListener("click", undo);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && before.length > 0) undo();
  });
  $("clear").addEventListener("click", () => {
    lift();
    replaceBy({ strokes: [], chosen: null });
  });
  labels.forEach((label, n) => {
    const button = document.createElement("button");
    const small = document.createElement("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `test digit ${n + 1}, a ${label}`);
    button.append(small);
    paint(small, SIDE, (at) => levels[n * SIDE * SIDE + at]);
    button.addEventListener("click", () => {
      lift();
      replaceBy({ strokes: [], chosen: n });
    });
    $("digits").append(button);
  });

  // ---- asking ----

  for (const name of ["network", "rule", "view"])
    for (const input of document.querySelectorAll(`input[name=${name}]`))
      input.addEventListener("change", () => {
        asked[name] = input.value;
        update();
      });
  $("not").addEventListener("change", () => {
    const { value } = $("not");
    asked.not = value === "" || value === "next" ? value || null : Number(value);
    update();
  });
  for (let k = 0; k < 10; k++) {
    const button = document.createElement("button");
    button.type = "button";
    const part = (name) => Object.assign(document.createElement("span"), { className: name });
    const [name, bar] = [part("name"), part("bar")];
    name.textContent = k;
    bar.append(document.createElement("i"));
    button.append(name, bar, part("share"), part("score"));
    button.addEventListener("click", () => {
      asked.of = asked.of === k ? null : k; // once more, and the best class is explained again
      update();
    });
    $("scores").append(button);
    $("not").append(new Option(k, k));
  }

  // ---- reading the map ----

  function readAt(place) {
    spot = place.map((c) => Math.min(SIDE - 1, Math.max(0, Math.floor(c))));
    if (shown !== null) showValue(shown.map, shown.score, spot);
  }

  function readBy(event) {
    const box = $("map").getBoundingClientRect();
    readAt([event.clientY - box.top, event.clientX - box.left].map((c) => (c / box.width) * SIDE));
  }

  $("map").addEventListener("pointerdown", readBy);
  $("map").addEventListener("pointermove", readBy);
  $("map").addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "mouse") return; // a finger leaves after each tap
    spot = null;
    hideValue();
  });
  $("map").addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [row, column] = spot ?? [SIDE / 2, SIDE / 2];
    readAt([row + move[0], column + move[1]]);
  });

  $("copy").addEventListener("click", async () => {
    showLink();
    $("link").select();
    try {
      await navigator.clipboard.writeText($("link").value);
      $("copied").textContent = "copied";
    } catch {
      $("copied").textContent = document.execCommand("copy") ? "copied" : "copy what is marked";
    }
  });
  addEventListener("hashchange", fromLink);
  fromLink();
})();
