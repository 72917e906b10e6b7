// All samples: thumbnails that can be searched and sorted. The address keeps which one is chosen, as in "#3".

const cards = [...byId("cards").children].map((card, place) => ({ card, item: data.items[place] }));
const several = cards.length > 1;
const isDoubtful = (item) => notesOf(item).length > 0 || item.differs || Boolean(item.error);

const VALUES = {
  number: (item) => item.number,
  score: (item) => -item.maps[0].score,
  total: (item) => -item.maps[0].total,
  gap: (item) => -item.maps[0].gap,
  absorbed: (item) => {
    const amounts = Object.fromEntries(item.maps[0].ledger);
    return -Math.abs(1 - amounts.inputs / amounts.seed);
  },
};

const notesOf = (item) => item.maps.flatMap((map) => map.notes);

function texts(item) {
  const said = [item.label, item.caption, item.error, ...notesOf(item), ...item.facts.map(([, text]) => text)];
  return [...said, ...item.maps.flatMap((map) => [map.name, map.target])].join("\n").toLowerCase();
}

// The cards that are shown, in their order. Samples that could not be explained are last.
function listed() {
  const wanted = byId("search").value.trim().toLowerCase();
  const doubtful = byId("doubtful").checked;
  const value = VALUES[byId("sort").value];
  const found = cards.filter(({ item }) =>
    texts(item).includes(wanted) && (!doubtful || isDoubtful(item)));
  const key = ({ item }) => {
    const known = item.error && value !== VALUES.number ? NaN : value(item);
    return Number.isFinite(known) ? known : Infinity;
  };
  const direction = byId("reverse").checked ? -1 : 1;
  return found.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === b) return one.item.number - other.item.number;
    return Number.isFinite(a) && Number.isFinite(b) ? direction * (a - b) : a - b;
  });
}

function arrangeCards() {
  const shown = listed();
  for (const { card } of cards) card.hidden = true;
  for (const { card } of shown) {
    card.hidden = false;
    byId("cards").append(card);
  }
  byId("count").textContent = shown.length ? `${shown.length} of ${cards.length}` : "No sample has what is searched for.";
}

function choose(number) {
  // Not by a link: within a frame, its address would be that of the page around it.
  location.hash = number === null ? "" : `#${number}`;
}

function neighbour(step) {
  const shown = listed().filter(({ item }) => !item.error);
  const place = shown.findIndex(({ item }) => item === state.item);
  return shown[place + step]?.item ?? null;
}

function follow() {
  const chosen = cards.find(({ item }) => !item.error && `#${item.number}` === location.hash)
    ?? (several ? null : cards.find(({ item }) => !item.error));
  const before = state.item;
  byId("viewer").hidden = !chosen;
  byId("gallery").hidden = Boolean(chosen);
  byId("back").hidden = byId("previous").hidden = byId("next").hidden = !several;
  if (!chosen) {
    state.item = null;
    cards.find(({ item }) => item === before)?.card.firstElementChild.focus();
    return;
  }
  show(chosen.item);
  byId("previous").disabled = !neighbour(-1);
  byId("next").disabled = !neighbour(1);
  if (!several) return;
  if (before === null) byId("label").focus();
  scrollTo(0, 0);
}

for (const { card, item } of cards) {
  card.querySelector("a")?.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(item.number);
  });
}
byId("back").addEventListener("click", () => choose(null));
byId("previous").addEventListener("click", () => choose(neighbour(-1).number));
byId("next").addEventListener("click", () => choose(neighbour(1).number));
for (const id of ["search", "sort", "reverse", "doubtful"]) byId(id).addEventListener("input", arrangeCards);
addEventListener("hashchange", follow);
byId("tools").hidden = !several;
byId("doubtful-control").hidden = !cards.some(({ item }) => isDoubtful(item));
arrangeCards();
follow();
