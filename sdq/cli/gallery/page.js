"use strict";
// Searching, the dialog and the keyboard. All text is the page's own: nothing here makes HTML of it.
const cards = [...document.querySelectorAll("article")];
const search = document.getElementById("search");
const shown = document.getElementById("shown");
const empty = document.getElementById("empty");
const dialog = document.querySelector("dialog");
const inside = document.getElementById("inside");
const fold = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
const texts = cards.map((card) => fold(card.textContent));
let open = -1;

function find() {
  const words = fold(search.value).split(/\s+/).filter(Boolean);
  let count = 0;
  cards.forEach((card, number) => {
    card.hidden = !words.every((word) => texts[number].includes(word));
    count += card.hidden ? 0 : 1;
  });
  shown.textContent = count === cards.length ? `${count} pictures` : `${count} of ${cards.length}`;
  empty.hidden = count > 0;
}

function visible() {
  return cards.filter((card) => !card.hidden);
}

function show(card) {
  open = cards.indexOf(card);
  inside.replaceChildren(
    card.querySelector("img").cloneNode(),
    card.querySelector("dl").cloneNode(true),
  );
  if (!dialog.open) dialog.showModal();
}

function columns(list) {
  const top = list[0].offsetTop;
  const next = list.findIndex((card) => card.offsetTop !== top);
  return next < 0 ? list.length : next;
}

function move(from, key) {
  const list = visible();
  const place = list.indexOf(from);
  if (!list.length) return null;
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -place, End: list.length - 1 - place };
  if (key === "ArrowUp" || key === "ArrowDown") {
    steps[key] = (key === "ArrowUp" ? -1 : 1) * columns(list);
  }
  if (!(key in steps)) return null;
  return list[Math.max(0, Math.min(list.length - 1, place < 0 ? 0 : place + steps[key]))];
}

search.addEventListener("input", find);
document.querySelector("main").addEventListener("click", (event) => {
  const card = event.target.closest("article");
  if (card) show(card);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (dialog.open) {
    const turns = event.key === "ArrowLeft" || event.key === "ArrowRight";
    const next = turns ? move(cards[open], event.key) : null;
    if (next) { event.preventDefault(); show(next); }
    return;
  }
  if (event.target === search) {
    if (event.key === "Escape") { search.value = ""; find(); }
    if (event.key === "ArrowDown" && visible().length) { event.preventDefault(); visible()[0].focus(); }
    return;
  }
  if (event.key === "/") { event.preventDefault(); search.focus(); return; }
  const card = event.target.closest("article");
  if (card && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); show(card); return; }
  if (!card && event.target !== document.body) return;
  const next = move(card, event.key);
  if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "nearest" }); }
});
dialog.addEventListener("close", () => { if (open >= 0) cards[open].focus(); });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
find();
