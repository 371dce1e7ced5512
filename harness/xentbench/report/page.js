"use strict";
document.documentElement.classList.add("scripted");

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort ?? cell.textContent.trim();
}

const PREFIXES = { G: 1e9, M: 1e6, k: 1e3, m: 1e-3, "µ": 1e-6, n: 1e-9 };

// The first number of a text such as "▲ 1.32x", "4.20 µs" or "(5e+04)" in SI units; NaN where there is none.
function numberOf(text) {
  const [, digits, prefix] = text.match(/(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: ([GMkmµn])?(?:s|B)\b)?/) ?? [];
  return digits === undefined ? NaN : Number(digits) * (PREFIXES[prefix] ?? 1);
}

function compare(a, b, numeric) {
  if (!numeric) return a.localeCompare(b, undefined, { numeric: true });
  return numberOf(a) - numberOf(b);
}

// Rows without a value stay last, whichever way the others are sorted.
function sorted(rows, column, direction, numeric) {
  const keyed = rows.map((row) => [row, value(row, column)]);
  const hasValue = ([, text]) => (numeric ? !Number.isNaN(numberOf(text)) : text !== "");
  const filled = keyed.filter(hasValue);
  const empty = keyed.filter((pair) => !hasValue(pair));
  filled.sort((a, b) => direction * compare(a[1], b[1], numeric));
  return filled.concat(empty).map(([row]) => row);
}

// One listener a table, so that a head that is made anew sorts as the one before it did.
function makeSortable(table) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button") && event.target.closest("th");
    if (!head) return;
    const descending = head.getAttribute("aria-sort") === "ascending";
    Array.from(head.parentNode.cells).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const numeric = head.classList.contains("n");
    body.append(...sorted(Array.from(body.rows), head.cellIndex, descending ? -1 : 1, numeric));
  });
}

function makeFilter(box) {
  const table = document.getElementById(box.dataset.table);
  const count = box.querySelector("output");
  const input = box.querySelector("input");
  const texts = new WeakMap();
  function text(row) {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  }
  function apply() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = Array.from(table.tBodies[0].rows);
    let shown = 0;
    rows.forEach((row) => {
      row.hidden = !words.every((word) => text(row).includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  }
  input.addEventListener("input", apply);
  table.addEventListener("rows", apply);
}

// A link to a row that the filter hides would lead nowhere.
function showTarget() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (row && row.hidden) {
    row.hidden = false;
    row.scrollIntoView();
  }
}

function element(name, settings, ...children) {
  const made = Object.assign(document.createElement(name), settings);
  made.append(...children);
  return made;
}

// The first table for whatever is picked. Its texts were all made with the page: here they are only chosen.
function makePicker(box, store) {
  const table = document.getElementById("answer-table");
  const boxes = Array.from(box.querySelectorAll("input[name=size]"));
  const phaseBox = box.querySelector("select[name=phase]");
  const regimeBox = box.querySelector("select[name=regime]");
  let sizes = store.first;

  function entryOf(regime, phase, implementation, size) {
    const places = store.entries[regime][phase][implementation][size];
    return Object.fromEntries(store.fields.map((name, place) => [name, store.texts[places[place]]]));
  }

  function largest(among) {
    return store.bySize.filter((size) => among.includes(size)).at(-1);
  }

  function head(text, kind, hint) {
    const button = element("button", { type: "button" }, text);
    return element("th", { scope: "col", className: kind, title: hint || "" }, button);
  }

  function heads() {
    const kept = Array.from(table.tHead.rows[0].cells);
    const alone = sizes.length === 1 ? [head("latency", "n"), head("peak", "n")] : [];
    const named = sizes.map((size) => head(store.sizes[size], "n narrow"));
    kept.forEach((cell) => cell.removeAttribute("aria-sort"));
    return [...kept.slice(0, 3), ...named, ...alone, ...kept.slice(-2)];
  }

  function cell(text, kind, below) {
    const made = element("td", { className: kind }, text);
    if (below) made.append(" ", element("small", {}, below));
    return made;
  }

  function speed(entry, anchor) {
    const made = cell(element("a", { href: `#${anchor}` }, entry.text), `n ${entry.kind}`, entry.below);
    if (entry.reason) made.title = entry.reason;
    return made;
  }

  function worst(entries) {
    return store.grades[Math.max(...entries.map((entry) => store.grades.indexOf(entry.grade)))] ?? "";
  }

  // Factors before bytes: these stand only where no factor would mean anything.
  function heaviest(entries) {
    const texts = entries.map((entry) => entry.memory).filter(Boolean);
    const factors = texts.filter((text) => text.endsWith("x"));
    const among = factors.length ? factors : texts;
    return among.reduce((most, text) => (numberOf(text) > numberOf(most) ? text : most), among[0] ?? "");
  }

  function labels(entries) {
    return Array.from(new Set(entries.flatMap((entry) => entry.labels.split(", ")).filter(Boolean))).join(", ");
  }

  function line(implementation, regime, phase) {
    const entries = sizes.map((size) => entryOf(regime, phase, implementation, size));
    const anchors = sizes.map(
      (size) => `cell-${(implementation * store.sizes.length + size) * store.phases.length + phase}`,
    );
    const [only] = entries;
    const alone = sizes.length === 1 ? [cell(only.latency, "n", only.spread), cell(only.peak, "n")] : [];
    const name = store.implementations[implementation];
    return element(
      "tr",
      {},
      element("th", { scope: "row", className: `i${implementation}` }, name),
      cell(worst(entries), ""),
      cell(store.right[implementation], "n"),
      ...entries.map((entry, place) => speed(entry, anchors[place])),
      ...alone,
      cell(heaviest(entries), "n"),
      cell(labels(entries), "text"),
    );
  }

  function show() {
    const phase = Number(phaseBox.value);
    const regime = Number(regimeBox.value);
    table.tHead.rows[0].replaceChildren(...heads());
    table.tBodies[0].replaceChildren(...store.implementations.map((_, place) => line(place, regime, phase)));
    table.dispatchEvent(new Event("rows"));
    const timed = sizes.filter((size) => store.fastest[regime][phase][size]);
    document.getElementById("fastest").textContent = timed.length
      ? store.fastest[regime][phase][largest(timed)]
      : "";
    const where = store.regimes.length > 1 ? `, ${store.regimes[regime]}` : "";
    const named = store.phases[phase] ? `${store.phases[phase]}, ` : "";
    document.getElementById("shown").textContent = `${named}${sizes.length} of ${store.sizes.length} sizes${where}.`;
  }

  function choose(wanted) {
    sizes = wanted;
    boxes.forEach((input, size) => {
      input.checked = sizes.includes(size);
      // One size stays picked: a table of none would show nothing and say nothing.
      input.disabled = sizes.length === 1 && input.checked;
    });
    show();
  }

  const all = store.sizes.map((_, size) => size);
  const wanted = { all, largest: [largest(all)], first: store.first };
  box.addEventListener("change", (event) => {
    if (event.target.name === "size") choose(all.filter((size) => boxes[size].checked));
    else show();
  });
  box.addEventListener("click", (event) => {
    if (wanted[event.target.dataset.sizes]) choose(wanted[event.target.dataset.sizes]);
  });
  // A browser that comes back to the page keeps what was ticked: what is shown shall say the same.
  choose(all.filter((size) => boxes[size].checked));
}

// Works from a file too, where there is no clipboard that a page may write.
function copy(button) {
  const code = button.parentNode.querySelector("code");
  const done = () => {
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 2000);
  };
  const selected = () => {
    getSelection().selectAllChildren(code);
    if (document.execCommand("copy")) done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, selected);
  else selected();
}

// A table that is wider than its frame says so: what is hidden to the right looks like nothing at all.
function hintSideways(frame) {
  const hint = element("p", { className: "soft sideways", hidden: true }, "Scroll the table sideways for more columns →");
  frame.before(hint);
  const measure = () => (hint.hidden = frame.scrollWidth <= frame.clientWidth + 1);
  const watch = new ResizeObserver(measure);
  watch.observe(frame);
  watch.observe(frame.querySelector("table"));
  // What is not laid out until it comes near has no width before.
  frame.addEventListener("contentvisibilityautostatechange", measure);
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".scroll").forEach(hintSideways);
document.querySelectorAll(".filter").forEach(makeFilter);
const picker = document.getElementById("picker");
if (picker) makePicker(picker, JSON.parse(document.getElementById("data").textContent));
document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", () => copy(button)));
window.addEventListener("hashchange", showTarget);
window.addEventListener("beforeprint", () => document.querySelectorAll("details.snippet").forEach((one) => (one.open = true)));
