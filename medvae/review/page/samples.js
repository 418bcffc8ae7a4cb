"use strict";
// The worklist of a synthetic set.
(() => {
  const { STATUS, byId, cells, data, make, makeTable, number, read, showSet, wireFiles, write } = globalThis.medvae;
  const run = globalThis.medvaeRun;
  const { hasWords, scan, status, thumbnail } = cells(data("thumbnails"));
  const has = (name) => run.rows.some((row) => row[name]?.length);

  const COLUMNS = [
    { name: "", cell: thumbnail },
    { name: "Scan", sort: (row) => row.id, cell: scan, head: true },
    has("class") && { name: "Class", sort: (row) => row.class, cell: (row) => row.class ?? "" },
    { name: "Nearest training scan", sort: (row) => row.nearest, cell: nearest, wide: true },
    { name: "Distance", sort: (row) => row.distance, cell: (row) => number(row.distance), numeric: true },
    { name: "Ratio", sort: (row) => row.ratio, cell: (row) => number(row.ratio), numeric: true },
    has("sources") && { name: "Donors", sort: (row) => row.sources, cell: donors, wide: true },
    { name: "Draws", sort: (row) => row.draws, down: true, cell: draws, wide: has("rejected") },
    { name: "Verdict", sort: (row) => judged(row).order, cell: (row) => judged(row).text },
    { name: "Status", sort: (row) => STATUS[row.status], cell: status },
    has("warnings") && { name: "Warnings", sort: (row) => row.warnings.length, down: true, cell: (row) => row.warnings.join("; ") },
  ].filter(Boolean);

  function words(text) {
    return (text ?? "").split(";").filter(Boolean);
  }

  function nearest(row) {
    const copy = row.copy === "yes" ? [" ", make("strong", { text: "near-copy" })] : [];
    return make("span", {}, [row.nearest ?? "", ...copy]);
  }

  function donors(row) {
    const names = words(row.sources);
    return names.length > 3 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(", ");
  }

  function draws(row) {
    const reasons = words(row.rejected).map((word) => word.replaceAll("_", " "));
    return reasons.length ? `${row.draws} (rejected: ${reasons.join(", ")})` : `${row.draws ?? ""}`;
  }

  function judged(row) {
    if (!row.key) return { order: 3, text: "" };
    const { verdict, note } = read(row.key);
    const text = { accept: "accepted", reject: "rejected" }[verdict] ?? "";
    return { verdict, order: { reject: 1, accept: 2 }[verdict] ?? 0, text: note ? `${text} note`.trim() : text };
  }

  function matches(row) {
    const which = {
      all: () => true,
      open: () => row.key && !judged(row).verdict,
      accept: () => judged(row).verdict === "accept",
      reject: () => judged(row).verdict === "reject",
      copy: () => row.copy === "yes",
      redrawn: () => row.draws > 1,
      warned: () => row.warnings.length > 0,
      bad: () => row.status !== "ok",
    }[byId("which").value];
    const texts = [row.id, row.class, row.nearest, row.sources, row.status, row.code, row.message, ...row.warnings];
    return hasWords(texts) && which();
  }

  function say(text) {
    byId("said").textContent = text;
  }

  function acceptRest() {
    const open = table.shown().filter((row) => row.key && !judged(row).verdict);
    for (const row of open) write(row.key, { ...read(row.key), verdict: "accept" });
    table.show();
    say(`${open.length} ${open.length === 1 ? "scan" : "scans"} accepted`);
  }

  function summary() {
    const done = run.rows.filter((row) => row.status === "ok");
    const screened = done.some((row) => row.copy);
    const copies = screened ? `near-copies: ${done.filter((row) => row.copy === "yes").length}` : "not screened for near-copies";
    const failed = run.rows.length - done.length;
    return `${done.length} from the sampler ${run.card.sampler}; ${copies}${failed ? `; not generated: ${failed}` : ""}.`;
  }

  byId("summary").textContent = summary();
  showSet(byId("card"), run.card);
  const table = makeTable({
    rows: run.rows,
    columns: COLUMNS,
    first: COLUMNS.find((column) => column.name === "Ratio"), // the likeliest copies first
    matches,
    then: () => 0,
    kind: (row) => (row.copy === "yes" ? "copy" : row.status),
  });
  byId("rest").addEventListener("click", acceptRest);
  const rows = run.rows.filter((row) => row.key);
  wireFiles(rows, { name: "verdicts.json", notice: run.notice, onChange: table.show, say });
})();
