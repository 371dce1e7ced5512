"use strict";
document.documentElement.classList.add("scripted");

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort ?? cell.textContent.trim();
}

function compare(a, b, numeric) {
  if (!numeric) return a.localeCompare(b, undefined, { numeric: true });
  return Number(a) - Number(b);
}

// Rows without a value stay last, whichever way the others are sorted.
function sorted(rows, column, direction, numeric) {
  const filled = rows.filter((row) => value(row, column) !== "");
  const empty = rows.filter((row) => value(row, column) === "");
  filled.sort((a, b) => direction * compare(value(a, column), value(b, column), numeric));
  return filled.concat(empty);
}

function makeSortable(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const numeric = head.classList.contains("number");
      body.append(...sorted(Array.from(body.rows), column, descending ? -1 : 1, numeric));
    });
  });
}

function makeFilter(box) {
  const table = document.getElementById(box.dataset.table);
  const count = box.querySelector("output");
  const input = box.querySelector("input");
  const rows = Array.from(table.tBodies[0].rows);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}

// A link to a row that the filter hides would lead nowhere.
function showTarget() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (row && row.hidden) {
    row.hidden = false;
    row.scrollIntoView();
  }
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".filter").forEach(makeFilter);
window.addEventListener("hashchange", showTarget);
