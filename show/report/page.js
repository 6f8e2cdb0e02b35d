"use strict";
document.documentElement.classList.add("js");

function find(id) {
  return document.getElementById(id);
}

// The table of concepts: a click on a column's name sorts by it, a second one in the other direction.
const table = find("concept-table");
if (table) {
  const rows = [...table.tBodies[0].rows];
  const value = (row, column, isText) => {
    const cell = row.cells[column];
    if (isText) return cell.textContent.toLowerCase();
    return Number(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const isText = "text" in head.firstElementChild.dataset;
    const first = isText ? "ascending" : "descending";
    const other = isText ? "descending" : "ascending";
    const order = head.ariaSort === first ? other : first;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => (isText ? a.localeCompare(b) : a - b);
    rows.sort((a, b) => sign * compare(value(a, column, isText), value(b, column, isText)));
    table.tBodies[0].append(...rows);
  }));
  const search = () => {
    const wanted = find("search").value.trim().toLowerCase();
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
    const n = rows.filter((row) => !row.hidden).length;
    find("found").value = `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")} concepts`;
  };
  find("search").addEventListener("input", search);
  search();
}

// The gallery: filters, order, and heat maps laid over the images.
const list = find("cards");
if (list) {
  const STEP = 24;
  const cards = [...list.children];
  const orders = {
    worst: (a, b) => a.dataset.f1 - b.dataset.f1,
    best: (a, b) => b.dataset.f1 - a.dataset.f1,
    random: (a, b) => a.dataset.place - b.dataset.place,
  };
  let limit = STEP;
  const show = () => {
    const concept = find("by-concept").value;
    const outcome = find("by-outcome").value;
    const fits = (chip) => (!concept || chip.dataset.code === concept) && (!outcome || chip.dataset.outcome === outcome);
    const isWanted = (card) => (!concept && !outcome) || [...card.querySelectorAll("[data-code]")].some(fits);
    const wanted = cards.filter(isWanted).sort(orders[find("order").value]);
    const shown = wanted.slice(0, limit);
    list.replaceChildren(...shown);
    find("shown").value = `${shown.length} of ${wanted.length} images`;
    find("more").hidden = shown.length === wanted.length;
  };
  for (const id of ["by-concept", "by-outcome", "order"]) {
    find(id).addEventListener("change", () => { limit = STEP; show(); });
  }
  find("more").addEventListener("click", () => {
    const next = limit;
    limit += STEP;
    show();
    const card = list.children[next];
    if (card) { card.tabIndex = -1; card.focus(); }
  });

  const cover = (button, isOn) => {
    const frame = button.closest(".card").querySelector(".frame");
    frame.querySelectorAll(".heat").forEach((each) => each.remove());
    if (!isOn) return;
    const heat = new Image();
    heat.className = "heat";
    heat.alt = `heat map of ${button.textContent}`;
    heat.src = button.dataset.heat;
    frame.append(heat);
  };
  const pressed = (card) => card.querySelector("button[aria-pressed=true]");
  const leave = (button) => {
    const kept = pressed(button.closest(".card"));
    cover(kept ?? button, Boolean(kept));
  };
  for (const button of list.querySelectorAll("button[data-heat]")) {
    button.addEventListener("pointerenter", () => cover(button, true));
    button.addEventListener("pointerleave", () => leave(button));
    button.addEventListener("focus", () => cover(button, true));
    button.addEventListener("blur", () => leave(button));
    button.addEventListener("click", () => {
      const before = pressed(button.closest(".card"));
      if (before) before.ariaPressed = "false";
      if (before !== button) button.ariaPressed = "true";
      cover(button, before !== button);
    });
    button.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { button.ariaPressed = "false"; cover(button, false); }
    });
  }
  show();
}
