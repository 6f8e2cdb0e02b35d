"use strict";

// How many concepts that are not marked are listed, and how many rows a table has at most before all are wanted.
const OTHERS = 5, ROWS = 60;
const RETRIES = 5;

const find = (id) => document.getElementById(id);
const make = (tag, text = "", className = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
};
const plural = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const say = (text) => { find("status").textContent = text; };
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// --- the server ---------------------------------------------------------------------------------------------------

/** Send a form, or none. A server that is busy is asked again later. */
async function ask(address, form) {
  for (let attempt = 0; ; attempt += 1) {
    let response, answer;
    try {
      response = await fetch(address, form ? { method: "POST", body: form } : undefined);
      answer = await response.json();
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.ok) return answer;
    if (response.status !== 503 || attempt === RETRIES) throw new Error(answer.error);
    await wait(Number(response.headers.get("Retry-After")) || 5);
  }
}

function makeForm(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof File) form.append(name, value, value.name || "pasted image");
    else form.append(name, value);
  }
  return form;
}

// --- what is marked -----------------------------------------------------------------------------------------------

let run = null;
let threshold = null; // null: what the decoder predicts

const isMarked = (score) => (threshold === null ? score.predicted : score.probability >= threshold);

function describeRule() {
  find("rule").textContent = threshold === null
    ? `Marked: what the decoder predicts (${run.decoder}).`
    : `Marked: every concept of probability ${threshold.toFixed(2)} or more.`;
  find("value").textContent = threshold === null ? "off" : `≥ ${threshold.toFixed(2)}`;
  find("decoder").setAttribute("aria-pressed", String(threshold === null));
}

function mark(value) {
  threshold = value;
  describeRule();
  for (const card of cards) card.fillTable();
}

// --- an image and what is predicted for it --------------------------------------------------------------------------

const cards = new Set();

class Card {
  constructor(file) {
    this.file = file;
    this.rows = new Map();
    this.selected = null;
    this.isWhole = false;
    this.root = find("card").content.firstElementChild.cloneNode(true);
    this.find("h2").textContent = file.name || "pasted image";
    this.find(".message").textContent = "Waiting…";
    this.find(".remove").addEventListener("click", () => this.remove());
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".all").addEventListener("click", () => {
      this.isWhole = !this.isWhole;
      this.fillTable();
    });
    cards.add(this);
    find("results").append(this.root);
  }

  find(selector) { return this.root.querySelector(selector); }

  remove() {
    cards.delete(this);
    const next = this.root.nextElementSibling || this.root.previousElementSibling;
    this.root.remove();
    (next ? next.querySelector(".remove") : find("files")).focus();
    find("controls").hidden = !document.querySelector(".body:not([hidden])");
    say(`${this.file.name} is removed.`);
  }

  async predict() {
    this.find(".message").textContent = "Predicting…";
    try {
      const limit = run.limits.file_bytes;
      if (this.file.size > limit) throw new Error(`It is larger than ${Math.floor(limit / 2 ** 20)} MB.`);
      const answer = await ask("api/predict", makeForm({ images: this.file, preview: "1" }));
      this.show(answer.images[0]);
    } catch (error) {
      this.find(".message").textContent = error.message;
      say(`${this.file.name}: ${error.message}`);
    }
  }

  show(image) {
    const name = image.image;
    if (image.unreadable) {
      this.find(".message").textContent = `This image cannot be read: ${image.unreadable}`;
      say(`${name} cannot be read: ${image.unreadable}`);
      return;
    }
    this.scores = image.scores;
    this.find(".message").textContent = "";
    this.find(".preview").src = image.preview;
    this.find(".preview").alt = name;
    this.find("table").setAttribute("aria-label", `Concepts of ${name}`);
    if (!run.explains) this.find(".where").textContent = run.explains_not;
    this.find(".body").hidden = false;
    find("controls").hidden = false;
    this.fillTable();
    say(`${name}: ${plural(image.concepts.length, "concept")} predicted.`);
  }

  fillTable() {
    if (!this.scores) return;
    let others = 0;
    const listed = this.scores.filter((score) => isMarked(score) || this.isWhole || (others += 1) <= OTHERS);
    const rows = listed.slice(0, this.isWhole ? undefined : ROWS).map((score) => this.findRow(score));
    this.find("tbody").replaceChildren(...rows);
    const all = this.find(".all");
    all.hidden = !this.isWhole && rows.length === this.scores.length;
    all.textContent = this.isWhole ? "Show fewer" : `Show all ${plural(this.scores.length, "concept")}`;
    all.setAttribute("aria-pressed", String(this.isWhole));
  }

  findRow(score) {
    const row = this.rows.get(score.concept) || this.makeRow(score);
    this.rows.set(score.concept, row);
    row.classList.toggle("marked", isMarked(score));
    row.cells[2].textContent = !isMarked(score) ? "" : threshold === null ? "✓ predicted" : "✓ above";
    return row;
  }

  makeRow(score) {
    const row = document.createElement("tr");
    const concept = row.insertCell(), level = row.insertCell();
    row.insertCell();
    if (run.explains) {
      const button = make("button", score.name || score.concept);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => this.select(score, button));
      concept.append(button);
    } else concept.append(make("span", score.name || score.concept));
    if (score.name) concept.append(make("small", score.concept));
    const box = make("div", "", "level"), bar = make("div", "", "bar"), fill = make("i");
    fill.style.width = `${100 * Math.min(1, Math.max(0, score.probability))}%`;
    bar.append(fill);
    bar.setAttribute("aria-hidden", "true");
    box.append(bar, make("span", score.probability.toFixed(3)));
    level.append(box);
    return row;
  }

  /** Show where the run sees a concept, or hide it if it is shown. */
  async select(score, button) {
    const name = score.name || score.concept;
    if (this.selected === score.concept) return this.hideMap();
    this.hideMap();
    this.selected = score.concept;
    button.setAttribute("aria-pressed", "true");
    this.find(".where").textContent = `${name}: looking…`;
    try {
      const answer = await ask("api/explain", makeForm({ image: this.file, concept: score.concept }));
      if (this.selected === score.concept) this.showMap(name, answer);
    } catch (error) {
      if (this.selected === score.concept) this.find(".where").textContent = error.message;
      say(error.message);
    }
  }

  showMap(name, answer) {
    this.find(".where").textContent = `${name} (${answer.probability.toFixed(3)}): ${answer.method}.`;
    if (answer.map) {
      this.find(".overlay").src = answer.map.overlay;
      this.find(".overlay").alt = `Where the run sees ${name}`;
      this.find(".overlay").hidden = this.find(".scale").hidden = false;
      say(`The heat map of ${name} is shown. Escape hides it.`);
    } else {
      this.find(".neighbours").replaceChildren(...answer.neighbours.map((each) => {
        const concepts = each.concepts.map((code) => run.names[code] || code).join(", ");
        return make("li", `${each.id} (distance ${each.distance.toFixed(4)}): ${concepts}`);
      }));
      this.find(".neighbours").hidden = false;
      say(`The training images that decide are listed.`);
    }
  }

  hideMap() {
    this.selected = null;
    for (const row of this.rows.values()) row.querySelector("button")?.setAttribute("aria-pressed", "false");
    for (const each of [".overlay", ".scale", ".neighbours"]) this.find(each).hidden = true;
    this.find(".where").textContent = "Select a concept to see where the run sees it.";
  }
}

// --- images come one after another ----------------------------------------------------------------------------------

let last = Promise.resolve();

function add(files) {
  const added = [...files].map((file) => new Card(file));
  if (!added.length) return;
  say(`${plural(added.length, "image")} sent…`);
  last = added.reduce((before, card) => before.then(() => cards.has(card) && card.predict()), last);
  last = last.then(() => { if (added.length > 1) say(`${plural(added.length, "image")} finished.`); });
}

// --- the page ---------------------------------------------------------------------------------------------------------

function describeRun() {
  const parts = [`Run ${run.run}`, run.head, run.decoder, plural(run.n_concepts, "concept")];
  for (const name of ["primary", "secondary"]) {
    const score = run[name];
    if (!score) continue;
    const interval = score.interval.map((value) => value.toFixed(4)).join(", ");
    parts.push(`${name} F1 ${score.f1.toFixed(4)} [${interval}]`);
  }
  if (run.primary) parts.push(`on ${plural(run.n_valid, "image")} of valid`);
  find("run").textContent = parts.join(" · ");
}

function hasFiles(event) {
  return [...(event.dataTransfer?.types || [])].includes("Files");
}

async function start() {
  try {
    run = await ask("api/run");
  } catch (error) {
    find("run").textContent = error.message;
    return;
  }
  describeRun();
  describeRule();
  const files = find("files"), drop = find("drop"), slider = find("threshold");
  files.addEventListener("change", () => {
    add(files.files);
    files.value = "";
  });
  let depth = 0;
  const light = (change) => {
    depth = Math.max(0, depth + change);
    drop.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && light(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && light(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    light(-depth);
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const card of cards) card.hideMap();
  });
  slider.addEventListener("input", () => mark(Number(slider.value)));
  find("decoder").addEventListener("click", () => mark(null));
}

start();
