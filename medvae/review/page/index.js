"use strict";
// The worklist: sorted, filtered, and walked through by keyboard.
(() => {
  const { byId, data, make, number, pageOf, read, showCard, wireFiles } = globalThis.medvae;
  const run = globalThis.medvaeRun;
  const thumbnails = data("thumbnails");
  const BAD = ["rejected", "failed", "skipped"];
  const ORDER = { ok: 0, rejected: 1, failed: 2, skipped: 3 };

  const COLUMNS = [
    { name: "", cell: thumbnail },
    { name: "Scan", sort: (row) => row.id, cell: scan, head: true },
    { name: "Score", sort: (row) => row.score, down: true, cell: score, numeric: true },
    { name: "p", sort: (row) => row.p, cell: (row) => number(row.p), numeric: true },
    { name: "Candidates", sort: (row) => row.candidates, down: true, cell: (row) => row.candidates ?? "", numeric: true },
    { name: "Volume", sort: (row) => row.volume_ml, down: true, cell: volume, numeric: true },
    { name: "Reviewed", sort: (row) => reviewed(row).share, cell: (row) => reviewed(row).text },
    { name: "Status", sort: (row) => ORDER[row.status], cell: status },
    { name: "Warnings", sort: (row) => row.warnings.length, down: true, cell: (row) => row.warnings.join("; ") },
  ];
  let sorted = { column: COLUMNS[3], down: false }; // the least usual scans first

  function thumbnail(row) {
    const png = thumbnails[row.id];
    return png ? make("img", { src: `data:image/png;base64,${png}`, alt: "", loading: "lazy", decoding: "async" }) : "";
  }

  function scan(row) {
    return row.page ? make("a", { href: pageOf(row.id), text: row.id }) : row.id;
  }

  function score(row) {
    return row.score === undefined ? "" : `${number(row.score)} ${row.unit}`;
  }

  function volume(row) {
    return row.candidates ? `${number(row.volume_ml)} mL` : "";
  }

  function reviewed(row) {
    if (!row.key) return { share: 2, text: "" };
    const { candidates, note } = read(row.key);
    const done = Object.keys(candidates).length;
    const text = row.candidates ? `${done} of ${row.candidates}` : "";
    return { share: row.candidates ? done / row.candidates : 1, text: note ? `${text} note`.trim() : text };
  }

  function status(row) {
    if (row.status === "ok") return "ok";
    return make("span", {}, [
      make("strong", { text: `${row.status} (${row.code})` }),
      make("span", { class: "reason", text: row.message }),
      make("span", { class: "hint", text: row.hint ? `What to do: ${row.hint}` : "" }),
    ]);
  }

  function matches(row) {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = [row.id, row.status, row.code, row.message, ...row.warnings].join(" ").toLowerCase();
    const which = {
      all: () => true,
      candidates: () => row.candidates > 0,
      open: () => reviewed(row).share < 1,
      warned: () => row.warnings.length > 0,
      bad: () => BAD.includes(row.status),
    }[byId("which").value];
    return words.every((word) => text.includes(word)) && which();
  }

  // What has no value comes last, whichever way.
  function compare(a, b) {
    const [x, y] = [sorted.column.sort(a), sorted.column.sort(b)];
    const missing = (x ?? null) === null ? ((y ?? null) === null ? 0 : 1) : (y ?? null) === null ? -1 : 0;
    if (missing) return missing;
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return (sorted.down ? -order : order) || (b.score ?? -Infinity) - (a.score ?? -Infinity) || a.id.localeCompare(b.id);
  }

  function show() {
    const rows = run.rows.filter(matches).sort(compare);
    byId("worklist").tBodies[0].replaceChildren(...rows.map(line));
    byId("none").hidden = rows.length > 0;
    for (const [index, cell] of [...byId("worklist").tHead.rows[0].cells].entries()) {
      const by = COLUMNS[index] === sorted.column;
      if (by) cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  function line(row) {
    const cells = COLUMNS.map((column) => {
      const content = column.cell(row);
      return make(column.head ? "th" : "td", { class: column.numeric ? "numeric" : null }, [content]);
    });
    const kind = row.candidates > 0 ? "found" : row.status;
    return make("tr", { tabindex: "-1", class: kind }, cells);
  }

  function heads() {
    return COLUMNS.map((column) => {
      const cell = make("th", { scope: "col" });
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
      const rows = [...byId("worklist").tBodies[0].rows];
      const at = rows.indexOf(document.activeElement?.closest("tr"));
      rows[Math.min(rows.length - 1, Math.max(0, at + step))]?.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && document.activeElement?.tagName === "TR") {
      document.activeElement.querySelector("a")?.click();
    }
  }

  function say(text) {
    byId("said").textContent = text;
  }

  const ok = run.rows.filter((row) => row.status === "ok");
  const found = ok.filter((row) => row.candidates > 0).length;
  const words = `${run.rows.length} scans, ${found} with candidates, ${run.rows.length - ok.length} without a result. `;
  byId("summary").textContent = words + (run.card.reference ? `Reference: ${run.card.reference}.` : "");
  byId("worklist").tHead.rows[0].replaceChildren(...heads());
  showCard(byId("card"), run.card);
  const rows = run.rows.filter((row) => row.key);
  wireFiles(rows, { name: "verdicts.json", notice: run.notice, onChange: show, say });
  byId("filter").addEventListener("input", show);
  byId("which").addEventListener("change", show);
  addEventListener("keydown", walk);
  addEventListener("storage", show);
  addEventListener("pageshow", (event) => event.persisted && show());
  show();
})();
