"use strict";
// State → view, in one direction: every action changes `at` and calls `show`. Text of the model only ever becomes a text node.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const groups = data.groups, signals = data.signals;
const steps = [...new Set(groups.map((group) => group.step))].sort((a, b) => a - b);
const at = { group: 0, rollout: 0, signal: signals[0]?.key, token: -1, strength: 1 };
const filter = { verdict: "", text: "" };

// ---------------------------------------------------------------- values

const half = new Float32Array(65536); // every float16, decoded once
for (let bits = 0; bits < 65536; bits++) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 31 ? (fraction ? NaN : Infinity)
    : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  half[bits] = bits & 32768 ? -size : size;
}
const decoded = new Map(); // of the rollouts seen last: base64 → numbers
function numbers(packed, table) {
  if (!decoded.has(packed)) {
    const raw = atob(packed), values = new (table ? Float32Array : Uint16Array)(raw.length / 2);
    for (let i = 0; i < values.length; i++) {
      const bits = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
      values[i] = table ? table[bits] : bits;
    }
    if (decoded.size > 400) decoded.clear();
    decoded.set(packed, values);
  }
  return decoded.get(packed);
}
const column = (rollout, key) => (rollout.signals[key] === undefined ? null : numbers(rollout.signals[key], half));
const signalOf = (key) => signals.find((signal) => signal.key === key);
function digits(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const text = Math.abs(value) < 1e-4 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return (value > 0 ? "+" : "") + text.replaceAll("-", "−");
}
const unsigned = (value) => digits(value).replace("+", "");
const written = (signal, value) => (signal.signed ? digits(value) : unsigned(value));
// Colours grow like a root of the value: signals have a few large values and many small ones.
const depth = (part) => Math.min(1, part ** 0.4);
const share = (value, scale) => (Number.isNaN(value) ? 0 : depth(Math.abs(value) * at.strength / scale));

// ---------------------------------------------------------------- small makers

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
const plain = (text) => (text === "" ? "▫" : visible(text).replaceAll("\n", "↵").replaceAll("\t", "⇥"));
const quoted = (text) => make("bdi", {}, plain(text)); // text of any direction within a line of ours
const mark = (rollout) => make("span", { class: rollout.correct ? "ok" : "bad" }, rollout.correct ? "✓" : "✗");

// ---------------------------------------------------------------- tokens of the response on the screen

let cut = { of: null, pieces: [], order: [] };
function pieces(rollout) {
  const lengths = numbers(rollout.lengths, null), texts = [];
  let start = 0;
  for (const length of lengths) texts.push(rollout.text.slice(start, (start += length)));
  return texts;
}
function bySize(rollout, key) {
  const values = column(rollout, key);
  if (!values) return [];
  const known = [...values.keys()].filter((i) => !Number.isNaN(values[i]) && values[i] !== 0);
  return known.sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
}
const group = () => groups[at.group];
const rollout = () => group().rollouts[at.rollout];

function showResponse() {
  const one = rollout(), box = $("response");
  if (cut.of !== one) {
    cut = { of: one, pieces: pieces(one), order: [] };
    box.replaceChildren(...cut.pieces.map((piece, i) => {
      const span = make("span", {}, visible(piece) || "▫");
      span.dataset.i = i;
      if (piece.includes("\n")) {
        span.textContent = "";
        piece.split(/(\n)/).forEach((part) => span.append(part === "\n" ? make("span", { class: "break" }, "↵") : visible(part), part === "\n" ? "\n" : ""));
      }
      return span;
    }));
    box.scrollTop = 0;
  }
  const signal = signalOf(at.signal), values = signal && column(one, at.signal);
  cut.order = signal ? bySize(one, at.signal) : [];
  [...box.children].forEach((span, i) => {
    const value = values ? values[i] : NaN;
    span.className = Number.isNaN(value) ? "" : !signal.signed ? "s" : value < 0 ? "m" : "p";
    span.style.setProperty("--a", values ? share(value, signal.scale).toFixed(3) : 0);
  });
}

// ---------------------------------------------------------------- the parts of the page

function passes(one, problem) {
  const { verdict, text } = filter;
  if (verdict === "correct" && !one.correct) return false;
  if (verdict === "wrong" && one.correct) return false;
  if (verdict === "hinted" && !one.hints) return false;
  if (verdict === "updated" && !one.updated) return false;
  return !text || one.text.toLowerCase().includes(text) || problem.question.toLowerCase().includes(text);
}
let passing = []; // [group, rollout] of all that pass
function applyFilter() {
  passing = [];
  groups.forEach((problem, g) => problem.rollouts.forEach((one, r) => passes(one, problem) && passing.push([g, r])));
  const all = groups.reduce((sum, problem) => sum + problem.rollouts.length, 0);
  $("matches").textContent = filter.verdict || filter.text ? `${passing.length} of ${all}` : "";
}

function showTime() {
  const here = groups.map((problem, g) => [problem, g]).filter(([problem]) => problem.step === group().step);
  $("step").value = group().step;
  $("step").setAttribute("aria-valuetext", `step ${group().step}`);
  $("step-label").textContent = `Step ${group().step}`;
  $("problems").replaceChildren(...here.map(([problem, g]) => make("button", {
    type: "button", "aria-pressed": g === at.group, title: `problem ${problem.group + 1} ${problem.kind}`,
    class: passing.some(([p]) => p === g) ? "" : "faded", onclick: () => go(g, 0),
  }, `Problem ${problem.group + 1}`, make("span", { class: "dots" }, ...problem.rollouts.map((one) =>
    make("span", { class: one.correct ? "ok" : "bad" }, one.correct ? "●" : "○"))))));
}

function drawStrip(canvas, one) {
  const signal = signalOf(at.signal), values = signal && column(one, at.signal), width = 200;
  canvas.width = width; canvas.height = 1;
  if (!values || !values.length) return;
  const style = getComputedStyle(document.documentElement), context = canvas.getContext("2d");
  for (let x = 0; x < width; x++) { // the largest value among the tokens of a column
    let largest = 0;
    const end = Math.max(Math.floor((x + 1) * values.length / width), Math.floor(x * values.length / width) + 1);
    for (let i = Math.floor(x * values.length / width); i < end; i++) if (Math.abs(values[i]) > Math.abs(largest)) largest = values[i];
    const tone = style.getPropertyValue(!signal.signed ? "--size" : largest < 0 ? "--neg" : "--pos");
    context.fillStyle = `rgb(${tone} / ${share(largest, signal.scale)})`;
    context.fillRect(x, 0, 1, 1);
  }
}
function hintName(hints, i) {
  if (hints[i].kind === "feedback") return "verifier's feedback";
  const same = hints.filter((hint) => hint.correct === hints[i].correct), name = hints[i].correct ? "correct hint" : "wrong hint";
  return same.length > 1 ? `${name} ${same.indexOf(hints[i]) + 1}` : name;
}
function roleOf(index) {
  const hints = rollout().hints ?? [], i = hints.findIndex((hint) => hint.index === index);
  return i < 0 ? "" : hintName(hints, i);
}
function showGroup() {
  $("rollouts").replaceChildren(...group().rollouts.map((one, r) => {
    const canvas = make("canvas"), role = roleOf(r);
    drawStrip(canvas, one);
    return make("button", {
      type: "button", class: "rollout" + (passes(one, group()) ? "" : " faded"), "aria-pressed": r === at.rollout,
      onclick: () => go(at.group, r),
    }, make("span", { class: "line" }, make("span", {}, mark(one), ` ${r + 1}`), role ? make("span", { class: "badge" }, role) : null,
      make("span", {}, `A ${digits(one.advantage)}`)),
    make("span", { class: "small" }, `${one.tokens + one.cut} tokens · `, one.answer === null ? "no answer read" : quoted(one.answer)), canvas);
  }));
  $("question").querySelector(".text").textContent = visible(group().question);
  $("question").querySelector(".answer").replaceChildren("Answer: ", make("bdi", {}, visible(group().answer)));
}

function showShades() {
  $("shades").replaceChildren(...signals.map((signal, i) => make("button", {
    type: "button", role: "radio", "aria-checked": signal.key === at.signal, title: `${signal.about} (${i + 1})`,
    class: rollout().signals[signal.key] === undefined ? "faded" : "", onclick: () => { at.signal = signal.key; show(); },
  }, signal.label)));
  const signal = signalOf(at.signal);
  if (!signal) return;
  const missing = rollout().signals[at.signal] === undefined;
  $("about").textContent = missing ? `${signal.label}: ${why()}` : `${signal.label}: ${signal.about}`;
  const end = signal.scale / at.strength, stops = [];
  for (let i = 0; i <= 16; i++) { // the same root as the tokens
    const x = signal.signed ? i / 8 - 1 : i / 16;
    const tone = !signal.signed ? "--size" : x < 0 ? "--neg" : "--pos";
    stops.push(`rgb(var(${tone}) / calc(var(--depth) * ${depth(Math.abs(x)).toFixed(3)}))`);
  }
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  $("legend").replaceChildren(signal.signed ? `${digits(-end)} or less` : "0", bar, `${unsigned(end)} or more`);
}
function why() {
  return `not recorded for this rollout${rollout().updated ? "" : ", which is not in the update"}.`;
}

function showVerdict() {
  const one = rollout(), cutOff = one.finished === false ? ", cut off by the token limit" : "";
  const more = one.cut ? `, of which the last ${one.cut} are not recorded` : "";
  $("verdict-line").replaceChildren(mark(one), ` Rollout ${at.rollout + 1} is ${one.correct ? "correct" : "wrong"}`,
    `${cutOff}: reward ${unsigned(one.reward)}, advantage ${digits(one.advantage)}, ${one.tokens + one.cut} tokens${more}`,
    one.updated ? "" : "; not in the update");
}

function showHints() {
  const hints = rollout().hints;
  if (!hints) {
    $("hints").replaceChildren(make("p", { class: "muted" }, "No hint is recorded for this rollout."));
    return;
  }
  $("hints").replaceChildren(...hints.map((hint, i) => {
    const name = hintName(hints, i).replace(/^./, (letter) => letter.toUpperCase());
    const from = hint.index < 0 ? "data set" : `rollout ${hint.index + 1}`, feedback = hint.kind === "feedback";
    const text = hint.kind === "answer" ? "(the bare answer, between prompt and response)" : hint.text === null ? "(the answer alone)" : visible(data.texts[hint.text]);
    return make("details", { open: i < 2 }, make("summary", {}, feedback ? null : make("span", { class: hint.correct ? "ok" : "bad" }, hint.correct ? "✓ " : "✗ "), `${name}: ${from}`),
      hint.answer !== "" ? make("p", { class: "answer" }, "Final answer: ", make("bdi", {}, visible(hint.answer))) : hint.text === null ? make("p", { class: "answer" }, "no hint at all") : null,
      make("div", { class: "text" }, text),
      hint.index < 0 || !group().rollouts[hint.index] ? null : make("button", { type: "button", class: "go", onclick: () => go(at.group, hint.index) }, `Go to rollout ${hint.index + 1}`));
  }));
}

function showLargest() {
  const signal = signalOf(at.signal);
  $("largest").hidden = !signal;
  if (!signal) return;
  $("largest").querySelector(".signal-name").textContent = `|${signal.label.toLowerCase()}| in this response`;
  const values = column(rollout(), at.signal);
  $("here").replaceChildren(...(cut.order.length ? cut.order.slice(0, 10).map((i) => make("button", { type: "button", onclick: () => pick(i) },
    quoted(cut.pieces[i]), " ", make("b", { class: "value" }, written(signal, values[i]))))
    : [make("span", { class: "muted" }, "Nothing is recorded here.")]));
  const top = passing.filter(([g, r]) => groups[g].rollouts[r].largest[at.signal])
    .map(([g, r]) => [g, r, ...groups[g].rollouts[r].largest[at.signal]]).sort((a, b) => b[3] - a[3]).slice(0, 9);
  $("everywhere").replaceChildren(...top.map(([g, r, i]) => {
    const one = groups[g].rollouts[r];
    return make("li", {}, make("button", { type: "button", onclick: () => { go(g, r); pick(i); } }, mark(one),
      ` step ${groups[g].step}: `, quoted(pieces(one)[i]), " ", make("b", { class: "value" }, written(signal, column(one, at.signal)[i]))));
  }));
}

// ---------------------------------------------------------------- the token under the pointer or the cursor

function showTip(i) {
  const span = $("response").children[i], tip = $("tip");
  if (!span) { tip.hidden = true; return; }
  const one = rollout();
  tip.replaceChildren(make("code", {}, quoted(cut.pieces[i])), make("span", { class: "muted" }, `  token ${i + 1} of ${one.tokens}`),
    make("table", {}, make("tbody", {}, ...signals.filter((signal) => one.signals[signal.key] !== undefined).map((signal) =>
      make("tr", { class: signal.key === at.signal ? "now" : "" }, make("td", {}, signal.label), make("td", {}, written(signal, column(one, signal.key)[i])))),
    make("tr", {}, make("td", {}, "Group advantage"), make("td", {}, digits(one.advantage))))));
  tip.hidden = false;
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const below = box.bottom + 8 + size.height < innerHeight;
  tip.style.top = `${Math.max(4, below ? box.bottom + 8 : box.top - size.height - 8)}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - size.width - 8))}px`;
}
function pick(i) {
  const box = $("response");
  box.querySelector(".now")?.classList.remove("now");
  at.token = i;
  if (i >= 0 && box.children[i]) {
    box.children[i].classList.add("now");
    box.children[i].scrollIntoView({ block: "nearest" });
    showTip(i);
  } else showTip(-1);
  remember();
}
const tokenOf = (node) => { const span = node.closest?.("[data-i]"); return span ? Number(span.dataset.i) : -1; };
$("response").addEventListener("mouseover", (event) => showTip(tokenOf(event.target)));
$("response").addEventListener("mouseleave", () => showTip(at.token));
$("response").addEventListener("click", (event) => pick(tokenOf(event.target)));
addEventListener("scroll", () => { if (!$("tip").hidden) showTip(at.token); }, { passive: true });

// ---------------------------------------------------------------- moving

function show() {
  showTime(); showGroup(); showShades(); showVerdict(); showResponse(); showHints(); showLargest();
  pick(at.token);
}
function go(g, r) {
  at.group = Math.max(0, Math.min(g, groups.length - 1));
  at.rollout = Math.max(0, Math.min(r, group().rollouts.length - 1));
  at.token = -1;
  show();
}
function goStep(index) {
  const step = steps[Math.max(0, Math.min(index, steps.length - 1))];
  const there = passing.find(([g]) => groups[g].step === step);
  if (there) go(...there); else go(groups.findIndex((problem) => problem.step === step), 0);
}
const nearest = (step) => steps.reduce((best, one, i) => (Math.abs(one - step) < Math.abs(steps[best] - step) ? i : best), 0);
function goRollout(way) { // among those that pass the filter
  const now = passing.findIndex(([g, r]) => g > at.group || (g === at.group && r >= at.rollout));
  const found = now >= 0 && passing[now][0] === at.group && passing[now][1] === at.rollout;
  const next = way > 0 ? (now < 0 ? -1 : found ? now + 1 : now) : now < 0 ? passing.length - 1 : now - 1;
  if (passing[next]) go(...passing[next]);
}
function goLargest(way) {
  const now = cut.order.indexOf(at.token);
  const next = now < 0 ? 0 : now + way;
  if (cut.order[next] !== undefined) pick(cut.order[next]);
}
function remember() {
  const text = new URLSearchParams({ step: group().step, problem: group().group + 1, rollout: at.rollout + 1, shade: at.signal ?? "", ...(at.token >= 0 ? { token: at.token + 1 } : {}) });
  try { history.replaceState(null, "", `#${text}`); } catch { /* a page inside another one has no address of its own */ }
}
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const found = groups.findIndex((problem) => String(problem.step) === asked.get("step") && String(problem.group + 1) === asked.get("problem"));
  if (signalOf(asked.get("shade"))) at.signal = asked.get("shade");
  if (found >= 0) at.group = found;
  else at.group = Math.max(0, groups.findIndex((problem) => problem.rollouts.some((one) => one.signals[at.signal] !== undefined)));
  const best = group().rollouts.findIndex((one) => one.signals[at.signal] !== undefined);
  at.rollout = Math.max(0, Math.min(asked.has("rollout") ? Number(asked.get("rollout")) - 1 || 0 : best, group().rollouts.length - 1));
  if (asked.has("token")) at.token = Number(asked.get("token")) - 1;
}

const keys = {
  j: () => goRollout(1), k: () => goRollout(-1), n: () => go(at.group + 1, 0), p: () => go(at.group - 1, 0),
  "]": () => goStep(steps.indexOf(group().step) + 1), "[": () => goStep(steps.indexOf(group().step) - 1),
  l: () => goLargest(1), L: () => goLargest(-1), Escape: () => pick(-1), d: () => theme(),
  ArrowRight: () => pick(Math.min(at.token + 1, rollout().tokens - 1)), ArrowLeft: () => pick(Math.max(at.token - 1, 0)),
  "+": () => { at.strength *= 2; show(); }, "-": () => { at.strength /= 2; show(); },
  "/": () => $("search").focus(), "?": () => $("keys").showModal(),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (event.target.matches?.("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  const shade = signals[Number(event.key) - 1];
  const action = shade ? () => { at.signal = shade.key; show(); } : Object.hasOwn(keys, event.key) ? keys[event.key] : null;
  if (action) { event.preventDefault(); action(); }
});

function theme(name) {
  const root = document.documentElement;
  root.dataset.theme = name ?? (root.dataset.theme === "dark" ? "light" : "dark");
  $("theme").textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
  if (!name) showGroup(); // its strips are drawn in the theme's colours
}

function drawReward() {
  const points = data.reward;
  if (points.length < 2) return;
  const first = steps[0], span = steps.at(-1) - first || 1, heights = points.map(([, y]) => y);
  const low = Math.min(...heights), tall = Math.max(...heights) - low || 1;
  $("reward-label").textContent = `training reward, ${unsigned(low)} to ${unsigned(low + tall)}`;
  const line = (list, name) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    node.setAttribute("points", list.map(([x, y]) => `${((x - first) / span * 1000).toFixed(1)},${(100 - (y - low) / tall * 100).toFixed(1)}`).join(" "));
    node.setAttribute("class", name);
    return node;
  };
  let mean = points[0][1];
  const smooth = points.map(([x, y]) => [x, (mean += 0.2 * (y - mean))]);
  $("reward").setAttribute("viewBox", "0 0 1000 100");
  $("reward").append(line(points, "raw"), line(smooth, "smooth"));
}

function begin() {
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("facts").textContent = data.facts.map(([name, value]) => `${name} ${value}`).join(" · ");
  $("step").min = steps[0];
  $("step").max = steps.at(-1);
  $("step").addEventListener("input", () => goStep(nearest(Number($("step").value))));
  $("step").addEventListener("keydown", (event) => { // to the next step that is shown, however far away it is
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (way) { event.preventDefault(); goStep(steps.indexOf(group().step) + way); }
  });
  $("theme").addEventListener("click", () => theme());
  $("help").addEventListener("click", () => $("keys").showModal());
  $("verdict").addEventListener("change", () => { filter.verdict = $("verdict").value; refilter(); });
  $("search").addEventListener("input", () => { filter.text = $("search").value.trim().toLowerCase(); refilter(); });
  drawReward();
  applyFilter();
  recall();
  show();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}
function refilter() {
  applyFilter();
  const here = passing.some(([g, r]) => g === at.group && r === at.rollout);
  if (!here && passing.length) go(...passing[0]); else show();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
addEventListener("hashchange", () => { recall(); show(); });
begin();
