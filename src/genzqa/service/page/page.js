"use strict";
(function () {
  const at = (id) => document.getElementById(id);
  const form = at("form"), input = at("files"), drop = at("drop"), state = at("state"), trouble = at("trouble");
  const results = at("results"), tokenRow = at("token-row"), token = at("token");
  const GRADES = ["bad", "poor", "fair", "good", "excellent"];
  let waiting = [], busy = false, maps = null;

  const points = (value) => value.toFixed(1);
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

  function drawn(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function headers() {
    return token.value ? { Authorization: `Bearer ${token.value}` } : {};
  }

  // Some models draw no maps, and refuse to be asked for one. Without a token nothing is told, and nothing is scored either.
  async function drawsMaps() {
    if (maps === null) {
      const answer = await fetch("v1/models", { headers: headers() });
      if (answer.ok) maps = (await answer.json()).models[0].maps;
    }
    return maps !== false;
  }

  // One request a file: the first scores appear while the others are still on their way, and one that is refused
  // leaves the others alone.
  async function send(file) {
    const body = new FormData();
    body.append("file", file);
    const answer = await fetch(`v1/score?map=${await drawsMaps()}&timeline=true`, { method: "POST", body, headers: headers() });
    const content = await answer.json();
    if (content.results) return { record: content.results[0], map: content.maps && content.maps[0] };
    const wait = answer.status === 429 ? Number(answer.headers.get("Retry-After")) || 1 : 0;
    return { refusal: content.error, status: answer.status, wait };
  }

  async function work() {
    if (busy) return;
    busy = true;
    trouble.textContent = "";
    let failed = 0, scored = 0;
    while (waiting.length) {
      const file = waiting[0];
      state.textContent = `Scoring ${file.name}` + (waiting.length > 1 ? `, ${waiting.length - 1} more after it` : "");
      let answer;
      try {
        answer = await send(file);
      } catch {
        trouble.textContent = "The service does not answer. Is it still running? Choose the file again when it is.";
        waiting = [];
        break;
      }
      if (answer.status === 401) {
        tokenRow.hidden = false;
        trouble.textContent = token.value ? "This is not the token." : "";
        state.textContent = `${file.name} waits for the token`;
        token.focus();
        busy = false;
        return;
      }
      if (answer.wait) {
        state.textContent = `Many files are waiting; ${file.name} is sent again in ${answer.wait} seconds`;
        await new Promise((resolve) => setTimeout(resolve, 1000 * answer.wait));
        continue;
      }
      waiting.shift();
      tokenRow.hidden = true;
      if (answer.record && answer.record.status === "ok") {
        scored += 1;
        results.prepend(scoredItem(file, answer.record, answer.map));
      } else {
        failed += 1;
        results.prepend(failedItem(file, answer.record ? answer.record.error : answer.refusal));
      }
    }
    busy = false;
    if (scored + failed) state.textContent = `${scored} scored` + (failed ? `, ${failed} could not be` : "");
    else state.textContent = "";
  }

  function failedItem(file, error) {
    const item = at("result-failed").content.firstElementChild.cloneNode(true);
    item.querySelector("h2").textContent = file.name;
    item.querySelector(".reason").textContent = `Not scored: ${error.reason}`;
    item.querySelector(".fix").textContent = error.hint;
    return item;
  }

  function scoredItem(file, record, map) {
    const item = at("result-scored").content.firstElementChild.cloneNode(true);
    item.querySelector("h2").textContent = file.name;
    item.querySelector(".score").textContent = points(record.score);
    item.querySelector(".grade").textContent = record.grade;
    const [low, high] = record.interval;
    item.querySelector(".interval").textContent =
      `95 % interval ${points(low)} to ${points(high)}; better than ${Math.round(record.percentile)} % of the reference photos`;
    drawScale(item.querySelector(".scale"), record);
    for (const note of record.notes) {
      const line = document.createElement("li");
      line.textContent = note.text;
      item.querySelector(".notes").append(line);
    }
    showPicture(item, file, record, map);
    if (record.kind === "video") drawTimeline(item, record);
    return item;
  }

  function drawScale(svg, record) {
    const [low, high] = record.interval;
    svg.setAttribute("aria-label", `Score ${points(record.score)} on the scale of 0 to 100, interval ${points(low)} to ${points(high)}`);
    GRADES.forEach((grade, number) => {
      const kind = grade === record.grade ? "step here" : "step";
      svg.append(drawn("rect", { class: kind, x: `${20 * number}%`, y: 7, width: "19.6%", height: 6 }));
    });
    svg.append(drawn("rect", { class: "span", x: `${low}%`, y: 9, width: `${high - low}%`, height: 2 }));
    svg.append(drawn("rect", { class: "mark", x: `${record.score}%`, y: 2, width: 3, height: 16 }));
  }

  function showPicture(item, file, record, map) {
    const figure = item.querySelector(".picture");
    const address = URL.createObjectURL(file);
    const shown = document.createElement(record.kind === "video" ? "video" : "img");
    if (record.kind === "video") {
      shown.controls = shown.muted = shown.playsInline = true;
      shown.setAttribute("aria-label", file.name);
    } else {
      shown.alt = file.name;
    }
    // Not every browser shows every format that can be scored.
    shown.addEventListener("error", () => shown.replaceWith("This browser cannot show it."));
    shown.src = address;
    figure.append(shown);
    if (!map) return;
    const overlay = document.createElement("img");
    overlay.alt = `Quality map of ${file.name}: strong colour marks its worst places`;
    overlay.src = map;
    overlay.hidden = true;
    figure.append(overlay);
    const [photo, mapped] = item.querySelectorAll(".views button");
    item.querySelector(".views").hidden = false;
    const show = (asMap) => {
      overlay.hidden = !asMap;
      figure.firstElementChild.hidden = asMap;
      photo.setAttribute("aria-pressed", String(!asMap));
      mapped.setAttribute("aria-pressed", String(asMap));
    };
    photo.addEventListener("click", () => show(false));
    mapped.addEventListener("click", () => show(true));
  }

  function drawTimeline(item, record) {
    const frames = record.timeline && record.timeline.length > 1 ? record.timeline : record.frames;
    const figure = item.querySelector(".timeline");
    const worst = record.worst;
    figure.hidden = false;
    figure.querySelector("figcaption").textContent =
      `Score over time, ${frames.length} frames; the worst moment is at ${clock(worst.time)} with ${points(worst.score)}.`;
    const last = Math.max(frames[frames.length - 1].time, worst.time);
    const x = (time) => `${4 + 92 * (last ? time / last : 0.5)}%`;
    const y = (score) => 130 - 1.2 * score;
    const svg = drawn("svg", { role: "img", "aria-label": figure.querySelector("figcaption").textContent });
    for (const level of [0, 20, 40, 60, 80, 100]) {
      svg.append(drawn("line", { class: "grid", x1: "4%", x2: "96%", y1: y(level), y2: y(level) }));
      if (level % 40 === 20) svg.append(drawn("text", { x: "0", y: y(level) + 4 }, level));
    }
    for (let n = 1; n < frames.length; n += 1) {
      const [a, b] = [frames[n - 1], frames[n]];
      svg.append(drawn("line", { class: "line", x1: x(a.time), y1: y(a.score), x2: x(b.time), y2: y(b.score) }));
    }
    if (frames.length < 100) {
      for (const frame of frames) svg.append(drawn("circle", { class: "dot", cx: x(frame.time), cy: y(frame.score), r: 3 }));
    }
    svg.append(drawn("circle", { class: "low", cx: x(worst.time), cy: y(worst.score), r: 6 }));
    figure.prepend(svg);
  }

  function take(files) {
    waiting.push(...files);
    if (waiting.length) work();
  }

  input.addEventListener("change", () => {
    take(Array.from(input.files));
    input.value = ""; // so that the same file can be chosen again
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (waiting.length) work();
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(Array.from(event.dataTransfer.files));
  });
})();
