// What is told in words and numbers beside a map. Every text is set as text, so none can be HTML.

const MOST_ROWS = 1000; // of the table of all values
const FEW_ROWS = 40; // up to which it is open

function element(name, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(name), attributes);
  made.textContent = text;
  return made;
}

// A part of the ledger as a coloured box, striped where the amount is negative.
function coloured(name, amount, kind) {
  const box = element("span", "", { className: `${kind} part${amount < 0 ? " against" : ""}` });
  box.style.setProperty("--shade", data.shades[name]);
  return box;
}

// Where the score went: a sentence, a bar whose parts are as long as their amounts, and a table.
function showLedger(map) {
  const amounts = new Map(map.ledger);
  const seed = amounts.get("seed") ?? null;
  amounts.delete("seed");
  const parts = [...amounts].map(([name, amount]) => ({ name, amount }));
  const all = parts.reduce((sum, { amount }) => sum + Math.abs(amount), 0);
  const seen = parts.filter(({ amount }) => amount === null || Math.abs(amount) > 1e-4 * all);
  const terms = seen.map(({ name, amount }, n) => {
    const sign = n === 0 ? "" : amount < 0 ? " − " : " + ";
    return `${sign}${name} ${number(n && amount ? Math.abs(amount) : amount)}`;
  });
  byId("sum").textContent = `${number(seed)} = ${terms.join("")}`;
  const stack = byId("stack");
  stack.setAttribute("aria-label", seen.map(({ name, amount }) => `${name} ${share(amount, seed) || number(amount)}`).join(", "));
  stack.replaceChildren(...seen.map(({ name, amount }) => {
    const box = coloured(name, amount, "");
    box.title = `${name} ${number(amount)}`;
    box.style.flexGrow = (1000 * Math.abs(amount)) / all;
    return box;
  }));
  const line = (name, amount, box) => {
    const row = element("tr");
    const head = element("th", name, { scope: "row" });
    if (box) head.prepend(box);
    row.append(head, element("td", number(amount)), element("td", share(amount, seed)));
    return row;
  };
  const rows = parts.map(({ name, amount }) => line(name, amount, coloured(name, amount, "swatch")));
  byId("ledger").replaceChildren(line("score", seed), ...rows);
  byId("of-score").textContent = ofScore(seed);
  byId("arrived").textContent = map.arrived;
  const told = parts.filter(({ name }) => name in data.sinks);
  byId("meanings").hidden = !told.length;
  byId("sinks").replaceChildren(
    ...told.flatMap(({ name }) => [element("dt", name), element("dd", data.sinks[name])]),
  );
}

function showFacts(item, map) {
  const rules = data.rules[map.rules];
  const measure = map.measure.charAt(0).toUpperCase() + map.measure.slice(1);
  const facts = [
    ["Model", data.model], ["Explained", map.target], ...item.facts, [measure, number(map.score, 6)], ["Rules", rules.name],
    ["Sum of relevance", number(map.total, 6)], ["All parts give the score", `up to ${number(map.gap, 2)} of the largest`], ["Values", item.shape.join(" × ")],
  ];
  const told = facts.filter(([, text]) => text);
  const lines = told.flatMap(([name, text]) => [element("dt", name), element("dd", text)]);
  byId("facts").replaceChildren(...lines);
  byId("about-rules").textContent = rules.about;
  byId("applied").textContent = rules.applied;
}

// Features and short sequences in numbers, a column for each explanation.
function showValues(maps, channels) {
  const places = maps.length && maps[0].columns <= MOST_ROWS ? maps[0].columns : 0;
  Object.assign(byId("every"), { hidden: !places, open: places <= FEW_ROWS });
  const head = element("tr");
  head.append(...["", ...maps.map(({ map }) => map.name || "relevance")].map((name) => element("th", name, { scope: "col" })));
  const rows = Array.from({ length: places }, (_, place) => {
    const row = element("tr");
    row.append(element("th", data.look.features[place] ?? String(place), { scope: "row" }));
    row.append(...maps.map((map) => element("td", number(map.plane(channels)[place]))));
    return row;
  });
  byId("values").replaceChildren(head, ...rows);
}
