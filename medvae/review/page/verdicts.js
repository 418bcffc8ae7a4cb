"use strict";
// What all pages share: elements made without markup, and a reader's verdicts, kept in the browser and as JSON files.
globalThis.medvae = (() => {
  const PREFIX = "medvae-review:";
  const FORMAT = "medvae-verdicts";
  const CHOICES = ["lesion", "normal variant", "artefact", "unsure"];
  const WHOLE = ["accept", "reject"]; // verdicts on a synthetic scan
  const LONGEST_NOTE = 10000;
  const CLOSE = "export the verdicts before you close the page.";
  const memory = new Map(); // what the browser did not keep: its space is used up, or pages from files get none
  const kept = keeps();
  let unsaved = false; // whether some of it is in no file yet
  let warn = () => {};

  function keeps() {
    try {
      localStorage.setItem(`${PREFIX}probe`, "1");
      localStorage.removeItem(`${PREFIX}probe`);
      return true;
    } catch {
      return false;
    }
  }

  function read(key) {
    try {
      return cleaned(JSON.parse(memory.get(key) ?? localStorage.getItem(PREFIX + key) ?? "{}"));
    } catch {
      return cleaned({});
    }
  }

  function write(key, review) {
    const text = JSON.stringify(cleaned(review));
    try {
      localStorage.setItem(PREFIX + key, text);
      memory.delete(key);
      if (memory.size === 0) unsaved = false;
    } catch {
      memory.set(key, text);
      unsaved = true;
      warn(`The browser has no space left for verdicts: ${CLOSE}`);
    }
  }

  // In which order the worklist was shown last, so that "next" on a page is its next row: names of rows.
  function keepOrder(rows) {
    try {
      localStorage.setItem(`${PREFIX}order`, JSON.stringify(rows.map(nameOf)));
    } catch {
      // then pages follow in the order of the run
    }
  }

  function inOrder(rows, here) {
    try {
      const order = JSON.parse(localStorage.getItem(`${PREFIX}order`));
      const named = new Map(rows.map((row) => [nameOf(row), row]));
      return order.includes(nameOf(here)) ? order.map((name) => named.get(name)).filter(Boolean) : rows;
    } catch {
      return rows;
    }
  }

  function nameOf({ id, key }) {
    return `${key} ${id}`;
  }

  // Only what is known, of the right type: a file may come from anywhere.
  function cleaned(tree) {
    const note = typeof tree?.note === "string" ? tree.note.slice(0, LONGEST_NOTE) : "";
    const candidates = {};
    for (const [number, verdict] of Object.entries(tree?.candidates ?? {})) {
      if (/^[1-9]\d{0,4}$/.test(number) && CHOICES.includes(verdict)) candidates[number] = verdict;
    }
    return { note, candidates, ...(WHOLE.includes(tree?.verdict) ? { verdict: tree.verdict } : {}) };
  }

  function isEmpty(review) {
    return review.note === "" && !review.verdict && Object.keys(review.candidates).length === 0;
  }

  // The JSON of scans: rows with id and key; those of detect also with the scan's hash and their number of candidates.
  function exported(rows, notice) {
    const told = ({ id, key, scan_hash, candidates: found }) => ({ id, key, scan_hash, found, ...read(key) });
    const scans = rows.map(told).filter((one) => !isEmpty(one));
    const head = { format: FORMAT, version: 1, exported: new Date().toISOString(), notice };
    unsaved = false;
    return `${JSON.stringify({ ...head, scans }, null, 2)}\n`;
  }

  // Takes verdicts of the scans among rows; says how many, and how many belong to another result.
  function imported(text, rows) {
    const tree = JSON.parse(text);
    if (tree?.format !== FORMAT || !Array.isArray(tree.scans)) throw new Error("not a file of verdicts");
    const keys = new Set(rows.map((row) => row.key));
    const known = tree.scans.filter((one) => keys.has(one?.key));
    for (const one of known) write(one.key, one);
    return { taken: known.length, others: tree.scans.length - known.length };
  }

  function download(name, text) {
    const link = make("a", { download: name });
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // An element; text never becomes markup.
  function make(tag, attributes = {}, children = []) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function byId(id) {
    return document.getElementById(id);
  }

  function data(id) {
    return JSON.parse(byId(id).textContent);
  }

  // Numbers to three digits, without exponents where they can be read.
  function number(value, digits = 3) {
    if (value === null || value === undefined) return "";
    const size = Math.abs(value);
    return size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(digits)));
  }

  function pInWords(p, n) {
    if (p === null || p === undefined) return "no p: there are no healthy scans to compare with";
    const asHigh = Math.round(p * (n + 1)) - 1; // p = (1 + as high) / (1 + n), as the montage says it
    if (asHigh < 0 || Math.abs(p - (asHigh + 1) / (n + 1)) > 1e-5) return `p = ${p.toFixed(3)}`;
    const least = asHigh ? "" : ", the smallest p possible";
    return `p = ${p.toFixed(3)}: ${asHigh || "none"} of ${n} healthy scans scored as high${least}`;
  }

  function many(count, what) {
    return `${count} ${what}${count === 1 ? "" : "s"}`;
  }

  function pageOf(id) {
    return `scans/${encodeURIComponent(id)}.html`;
  }

  // Buttons that write and read a file of verdicts.
  function wireFiles(rows, { name, notice, onChange, say }) {
    byId("export").addEventListener("click", () => {
      const text = exported(rows, notice);
      download(name, text);
      say(`${many(JSON.parse(text).scans.length, "reviewed scan")} exported to ${name}`);
    });
    byId("import").addEventListener("change", async (event) => {
      for (const file of event.target.files) {
        try {
          const { taken, others } = imported(await file.text(), rows);
          say(`${many(taken, "scan")} imported${others ? `; ${others} left out: of other scans or another run` : ""}`);
        } catch (problem) {
          say(`not imported: ${problem.message}`);
        }
      }
      event.target.value = "";
      onChange();
    });
    if (kept) warn = say;
    else say(`This browser keeps nothing for pages from files, or has no space left: ${CLOSE}`);
    addEventListener("beforeunload", (event) => {
      if (unsaved) event.preventDefault();
    });
  }

  // What is to be known of a run, as terms and words; what is not known is left out.
  function showFacts(place, facts) {
    for (const [name, value] of facts) {
      if (value) place.append(make("dt", { text: name }), make("dd", { text: String(value) }));
    }
  }

  // The run's facts below every page.
  function showCard(place, card) {
    const model = card?.model ?? {};
    const grid = model.shape ? `${model.shape.join(" × ")} voxels of ${model.spacing.join(" × ")} mm` : "";
    const error = model.validation_error
      ? `${number(model.validation_error)} (mean of the training scans: ${number(model.mean_image_error)})`
      : "";
    const facts = [
      ["Reference", card?.reference],
      ["Model", card?.hash?.slice(0, 12)],
      ["Trained on", model.training ? `${model.training} scans` : ""],
      ["For", [model.modality, model.align].filter(Boolean).join(", ")],
      ["Grid", grid],
      ["Validation error", error],
      ["Candidates per healthy scan", card?.detect?.healthy_fpr],
      ["medvae", card?.medvae],
      ["Warnings", (card?.warnings ?? []).join("; ")],
    ];
    showFacts(place, facts);
  }

  // The facts of a synthetic set below every page of it.
  function showSet(place, card) {
    const real = card.copies_among_real;
    const below = `distance ${number(card.copy_threshold)} and ratio ${number(card.copy_ratio_threshold)} (from ${card.copy_thresholds_from})`;
    showFacts(place, [
      ["Sampler", card.sampler],
      ["Model", card.model?.slice(0, 12)],
      ["Seed", Number.isInteger(card.seed) ? String(card.seed) : ""],
      ["Near-copies", real ? `${card.copies}; of real scans, by the same rule: ${real}` : ""],
      ["Copies lie below", card.copy_threshold ? below : ""],
      ["Median distance", card.distance ? `${number(card.distance)}; between real scans of different people ${number(card.distance_among_real)}` : ""],
      ["From one patient", card.derived_from_one_subject ? `${card.derived_from_one_subject} scans, each from one: treat it as that person's data` : ""],
      ["medvae", card.medvae],
    ]);
  }

  return { CHOICES, WHOLE, byId, data, inOrder, keepOrder, make, number, pInWords, pageOf, read, showCard, showFacts, showSet, wireFiles, write };
})();
