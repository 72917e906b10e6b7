"use strict";
// If a generated token is pointed at or chosen, the tokens before it get the colours of its row in the matrix.
(() => {
  const matrix = document.getElementById("matrix");
  if (!matrix) return;
  const rows = [...matrix.querySelectorAll("tbody tr")];
  const tokens = [...document.querySelectorAll("#text .token")];
  const buttons = [...document.querySelectorAll("#text [role=button]")];
  const line = document.getElementById("line");
  let chosen = 0;

  function show(index) {
    const cells = rows[index].querySelectorAll("td");
    tokens.forEach((token, place) => {
      const cell = cells[place];
      token.style.backgroundColor = cell ? cell.style.backgroundColor : "";
      token.style.color = cell ? cell.style.color : "";
      token.title = cell ? cell.title : "";
    });
    rows.forEach((row, other) => row.classList.toggle("shown", other === index));
    buttons.forEach((button, other) => button.classList.toggle("shown", other === index));
    line.textContent = rows[index].dataset.line;
  }

  function choose(index) {
    chosen = index;
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
    show(index);
  }

  for (const part of [...rows, ...buttons]) {
    const index = Number(part.dataset.row);
    part.addEventListener("mouseenter", () => show(index));
    part.addEventListener("mouseleave", () => show(chosen));
    part.addEventListener("focus", () => show(index));
    part.addEventListener("blur", () => show(chosen));
    part.addEventListener("click", () => choose(index));
    part.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(index);
    });
  }
  choose(0);
})();
