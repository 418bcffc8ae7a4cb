"use strict";
// A table of scans: sorted by a click on a column, filtered, and walked through by keyboard.
medvae.makeTable = ({ rows, columns, first, matches, then, kind }) => {
  const { byId, make } = medvae;
  const table = byId("worklist");
  let sorted = { column: first, down: Boolean(first.down) };

  // What has no value comes last, whichever way.
  function compare(a, b) {
    const [x, y] = [sorted.column.sort(a), sorted.column.sort(b)];
    const missing = (x ?? null) === null ? ((y ?? null) === null ? 0 : 1) : (y ?? null) === null ? -1 : 0;
    if (missing) return missing;
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return (sorted.down ? -order : order) || then(a, b) || a.id.localeCompare(b.id);
  }

  function shown() {
    return rows.filter(matches).sort(compare);
  }

  function show() {
    const rows = shown();
    medvae.keepOrder(rows);
    const lines = rows.map(line);
    table.tBodies[0].replaceChildren(...lines);
    byId("none").hidden = lines.length > 0;
    for (const [index, cell] of [...table.tHead.rows[0].cells].entries()) {
      const by = columns[index] === sorted.column;
      if (by) cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  function line(row) {
    const cells = columns.map((column) => {
      const content = column.cell(row);
      return make(column.head ? "th" : "td", { class: column.numeric ? "numeric" : column.wide ? "wide" : null }, [content]);
    });
    return make("tr", { tabindex: "-1", class: kind(row) }, cells);
  }

  function heads() {
    return columns.map((column) => {
      const cell = make("th", { scope: "col", class: column.numeric ? "numeric" : null });
      if (!column.sort) return cell;
      const button = make("button", { type: "button", text: column.name });
      button.addEventListener("click", () => {
        const again = sorted.column === column;
        sorted = { column, down: again ? !sorted.down : Boolean(column.down) };
        show();
      });
      cell.append(button);
      return cell;
    });
  }

  function walk(event) {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !typing) {
      byId("filter").focus();
      event.preventDefault();
      return;
    }
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step && document.activeElement?.tagName !== "SELECT" && !(typing && event.key.length === 1)) {
      const lines = [...table.tBodies[0].rows];
      const at = lines.indexOf(document.activeElement?.closest("tr"));
      lines[Math.min(lines.length - 1, Math.max(0, at + step))]?.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && document.activeElement?.tagName === "TR") {
      document.activeElement.querySelector("a")?.click();
    }
  }

  table.tHead.rows[0].replaceChildren(...heads());
  byId("filter").addEventListener("input", show);
  byId("which").addEventListener("change", show);
  addEventListener("keydown", walk);
  addEventListener("storage", show);
  addEventListener("pageshow", (event) => event.persisted && show());
  show();
  return { show, shown };
};

// Cells that all worklists have.
medvae.cells = (thumbnails) => {
  const { byId, make, pageOf } = medvae;

  function thumbnail(row) {
    const png = thumbnails[row.id];
    return png ? make("img", { src: `data:image/png;base64,${png}`, alt: "", loading: "lazy", decoding: "async" }) : "";
  }

  function scan(row) {
    return row.page ? make("a", { href: pageOf(row.id), text: row.id }) : row.id;
  }

  function status(row) {
    if (row.status === "ok") return "ok";
    return make("span", {}, [
      make("strong", { text: `${row.status} (${row.code})` }),
      make("span", { class: "reason", text: row.message }),
      make("span", { class: "hint", text: row.hint ? `What to do: ${row.hint}` : "" }),
    ]);
  }

  // Whether all words of the filter occur in a row's texts.
  function hasWords(texts) {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = texts.join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  return { hasWords, scan, status, thumbnail };
};

medvae.STATUS = { ok: 0, rejected: 1, failed: 2, skipped: 3 }; // their order
