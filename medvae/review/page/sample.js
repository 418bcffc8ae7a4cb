"use strict";
// The page of one synthetic scan: where it comes from, its labels as outlines, the nearest real scan where it was kept.
(async () => {
  const { WHOLE, byId, data, number, read, showFacts, showSet, write } = globalThis.medvae;
  const facts = data("facts");
  const run = globalThis.medvaeRun ?? { rows: [], card: {} }; // a page may be passed on alone
  const PALETTE = ["#ff5a5f", "#3fa7ff", "#ffd23f", "#40c060", "#c77dff", "#ff9f40", "#2ee6d6", "#ff7ac6"];
  const known = run.card.label_names ?? {};
  const labels = Object.keys(facts.marks);
  const stage = medvae.makeStage({
    facts,
    names: Object.fromEntries(labels.map((value) => [value, known[value] ?? `label ${value}`])),
    colours: Object.fromEntries(labels.map((value) => [value, PALETTE[Math.log2(facts.marks[value])]])),
    points: () => [],
  });
  let review = read(facts.key);
  let viewer = null;
  let real = false; // whether the nearest real scan is shown

  // ---------------------------------------------------------------------------------------------------- words

  function head() {
    const { scores, facts: words } = facts;
    document.title = `${facts.id} - medvae review`;
    byId("title").textContent = facts.id;
    const near = `Synthetic. Nearest training scan ${words.nearest}, distance ${number(scores.distance)}`;
    const copy = { yes: ": near-copy", no: ": no near-copy" }[words.copy] ?? "";
    byId("summary").textContent = words.nearest ? `${near}${copy}.` : "Synthetic. Not compared with training scans.";
    stage.warnings();
    stage.neighbours(run.rows);
    showFacts(byId("origin"), [...origin(), ...distances()]);
    showSet(byId("card"), run.card);
  }

  function split(text) {
    return (text ?? "").split(";").filter(Boolean);
  }

  function origin() {
    const { scores, facts: words } = facts;
    const before = "condition ";
    const conditions = Object.entries({ ...scores, ...words }).filter(([name]) => name.startsWith(before));
    const shares = split(words.shares);
    const share = (n) => (shares.length > 1 ? ` (${number(100 * shares[n], 2)}%)` : "");
    const donors = split(words.sources).map((name, n) => name + share(n));
    const rejected = split(words.rejected).map((word) => word.replaceAll("_", " "));
    const subject = words.source_subject;
    return [
      ["Sampler", words.sampler ?? run.card.sampler],
      ["Class", words.class],
      ...conditions.map(([name, value]) => [name.slice(before.length), typeof value === "number" ? number(value) : value]),
      ["Donors", donors.join(", ") || "none in particular"],
      ["A patient's data", subject && `derived from ${subject} alone: treat it as that person's data`],
      ["Draws", `${scores.draws}${rejected.length ? `; rejected: ${rejected.join(", ")}` : ""}`],
    ];
  }

  function distances() {
    const { scores, facts: words } = facts;
    const { copy_threshold: limit, copy_ratio_threshold: ratio } = run.card;
    const both = limit && ratio ? `; a copy of the image has a distance below ${number(limit)} and a ratio below ${number(ratio)}` : "";
    return [
      ["Nearest scan", words.nearest && `${words.nearest}, distance ${number(scores.distance)}`],
      ["Next person", scores.second_distance && `distance ${number(scores.second_distance)}, ratio ${number(scores.ratio)}${both}`],
      ["After registration", words.registered_nearest && `${words.registered_nearest}, ratio ${number(scores.registered_ratio)}`],
      ["By region", words.region_nearest && `${words.region_nearest}, ${number(100 * scores.region_share, 2)}% of the blocks`],
      ["Nearest code", words.code_nearest && `${words.code_nearest}, distance ${number(scores.code_distance)}`],
      ["Near-copy", `${words.copy ?? "unknown"}${words.copy_by ? `; found by ${split(words.copy_by).join(", ")}` : ""}`],
    ];
  }

  // -------------------------------------------------------------------------------------------------- verdict

  const buttons = WHOLE.map((verdict) => stage.button("verdict", verdict, () => judge(review.verdict === verdict ? "" : verdict)));

  function judge(verdict) {
    review = { ...review, verdict };
    write(facts.key, review);
    verdicts();
  }

  function verdicts() {
    review = read(facts.key);
    byId("note").value = review.note;
    buttons.forEach((one, n) => one.setAttribute("aria-pressed", String(review.verdict === WHOLE[n])));
  }

  // --------------------------------------------------------------------------------------------------- images

  function readout() {
    if (!viewer) return;
    const value = real ? `real scan ${facts.facts.nearest}` : `synthetic scan ${number(viewer.here().scan)} ${facts.units}`;
    byId("readout").textContent = [value, ...stage.places()].join("  ·  ");
  }

  async function showReal(wanted) {
    real = wanted;
    const { window } = real ? facts.nearest : facts.scan;
    await viewer.showScan(real ? "volume_nearest" : "volume_scan", window);
    stage.showWindow(...window);
    [...byId("which").children].forEach((one, n) => one.setAttribute("aria-pressed", String(Boolean(n) === real)));
    readout();
  }

  function act(key) {
    if (/^[0-2]$/.test(key)) judge(key === "0" ? "" : WHOLE[Number(key) - 1]);
    else if (key === "r" && viewer && facts.nearest) showReal(!real);
    else if (key === "n" || key === "p") {
      const to = byId(key === "n" ? "next" : "previous");
      if (!to.hidden) to.click();
    } else return false;
    return true;
  }

  async function start() {
    viewer = await stage.begin(readout);
    viewer.goToVoxel(facts.grid.shape.map((n) => Math.floor(n / 2)));
    if (!facts.nearest) return;
    byId("which").hidden = false;
    byId("patient").hidden = false;
    stage.button("which", "synthetic", () => showReal(false));
    stage.button("which", `nearest real scan, ${facts.facts.nearest}`, () => showReal(true));
    await showReal(false);
  }

  head();
  verdicts();
  const note = (text) => {
    review.note = text;
    write(facts.key, review);
  };
  await stage.run({ start, act, note, verdicts, picture: "The picture shows the middle of the scan." });
  medvae.viewer = viewer;
})();
