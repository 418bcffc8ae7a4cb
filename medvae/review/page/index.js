"use strict";
// The worklist of a run of detect.
(() => {
  const { STATUS, byId, cells, data, makeTable, number, read, showCard, wireFiles } = globalThis.medvae;
  const run = globalThis.medvaeRun;
  const { hasWords, scan, status, thumbnail } = cells(data("thumbnails"));

  const COLUMNS = [
    { name: "", cell: thumbnail },
    { name: "Scan", sort: (row) => row.id, cell: scan, head: true },
    { name: "Score", sort: (row) => row.score, down: true, cell: score, numeric: true },
    { name: "p", sort: (row) => row.p, cell: (row) => number(row.p), numeric: true },
    { name: "Candidates", sort: (row) => row.candidates, down: true, cell: (row) => row.candidates ?? "", numeric: true },
    { name: "Volume", sort: (row) => row.volume_ml, down: true, cell: volume, numeric: true },
    { name: "Reviewed", sort: (row) => reviewed(row).share, cell: (row) => reviewed(row).text },
    { name: "Status", sort: (row) => STATUS[row.status], cell: status },
    { name: "Warnings", sort: (row) => row.warnings.length, down: true, cell: (row) => row.warnings.join("; ") },
  ];

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

  function matches(row) {
    const which = {
      all: () => true,
      candidates: () => row.candidates > 0,
      open: () => reviewed(row).share < 1,
      warned: () => row.warnings.length > 0,
      bad: () => row.status !== "ok",
    }[byId("which").value];
    return hasWords([row.id, row.status, row.code, row.message, ...row.warnings]) && which();
  }

  const ok = run.rows.filter((row) => row.status === "ok");
  const found = ok.filter((row) => row.candidates > 0).length;
  const words = `${run.rows.length} scans, ${found} with candidates, ${run.rows.length - ok.length} without a result. `;
  byId("summary").textContent = words + (run.card.reference ? `Reference: ${run.card.reference}.` : "");
  showCard(byId("card"), run.card);
  const table = makeTable({
    rows: run.rows,
    columns: COLUMNS,
    first: COLUMNS[3], // the least usual scans first
    matches,
    then: (a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity),
    kind: (row) => (row.candidates > 0 ? "found" : row.status),
  });
  const say = (text) => {
    byId("said").textContent = text;
  };
  const rows = run.rows.filter((row) => row.key);
  wireFiles(rows, { name: "verdicts.json", notice: run.notice, onChange: table.show, say });
})();
