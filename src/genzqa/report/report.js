"use strict";
(function () {
  const names = new Intl.Collator("en", { numeric: true });
  const score = (item) => Number(item.dataset.score);
  const orders = {
    worst: (a, b) => score(a) - score(b),
    best: (a, b) => score(b) - score(a),
    name: (a, b) => names.compare(a.dataset.name, b.dataset.name),
  };
  const bar = document.getElementById("order");
  if (!bar) return;
  const buttons = bar.querySelectorAll("button");
  bar.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen) return;
    for (const list of document.querySelectorAll("[data-sorted]")) {
      list.append(...Array.from(list.children).sort(orders[chosen.value]));
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
  });
  bar.hidden = false;
})();
