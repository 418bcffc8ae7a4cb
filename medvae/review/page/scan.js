"use strict";
// The page of one scan: controls, candidates, verdicts; without WebGL2 a picture in the place of the images.
(async () => {
  const { CHOICES, byId, data, make, number, pInWords, read, showCard, write } = globalThis.medvae;
  const facts = data("facts");
  const run = globalThis.medvaeRun ?? { rows: [], q: {}, card: {} }; // a page may be passed on alone
  const BELOW = ["scan", "pseudo-healthy", "difference"];
  const first = facts.maps.find((map) => map.name === facts.map);
  const stage = medvae.makeStage({
    facts,
    names: { brain: "template's brain", truth: "known lesion", candidates: `candidates${facts.level === null ? "" : `, above ${number(facts.level)} ${facts.unit}`}` },
    colours: { brain: "#40c060", truth: "#ff60ff", candidates: "#00d0ff" },
    points: (shown) => facts.candidates.map((one) => [String(one.number), shown.toVoxel(one.ras)]),
  });
  let review = read(facts.key);
  let chosen = 0; // index of the candidate that keys act on
  let viewer = null;
  let below = "scan"; // the image below the map

  // ---------------------------------------------------------------------------------------------------- words

  function head() {
    document.title = `${facts.id} - medvae review`;
    byId("title").textContent = facts.id;
    const basis = first.p === null ? facts.reference : facts.reference.split(",")[0];
    const score = `Score ${number(first.score)} ${first.unit} (map ${first.name}), ${pInWords(first.p, facts.n)} (${basis}).`;
    byId("summary").textContent = score;
    stage.warnings();
    stage.neighbours(run.rows);
    const card = { reference: facts.reference, ...run.card };
    showCard(byId("card"), card);
    for (const map of facts.maps) {
      const cells = [map.name, `${number(map.score)} ${map.unit}`, number(map.p), number(map.limit), `${number(100 * map.above, 2)}%`, number(map.step)];
      byId("scores").tBodies[0].append(make("tr", {}, cells.map((text) => make("td", { text }))));
    }
  }

  // The words of the picture (`Candidates.in_words`): how many, and in `basis` what a candidate exceeds.
  function finding() {
    if (facts.threshold === null) return "Candidates unknown: no healthy scans to compare with.";
    const many = facts.candidates.length;
    if (!many) return "No candidate. This does not exclude disease.";
    return `${many} ${many > 1 ? "candidates" : "candidate"}.`;
  }

  // The limit in numbers, and how much is coloured at first: much of it without a candidate is no usual scan.
  function basis() {
    const mass = `${number(facts.threshold)} ${facts.unit}·mL above ${number(facts.level)} ${facts.unit}`;
    const limit = facts.threshold === null ? "" : `A candidate exceeds the limit of healthy scans, ${mass}. `;
    const mark = `${number(first.limit)} ${first.unit}`;
    return `${limit}${number(100 * first.above, 2)}% of the evaluated region lies above ${mark}; in healthy scans 0.1% on average.${evaluated()}`;
  }

  function evaluated() {
    if (facts.evaluated_ml === undefined) return ""; // a run of an older version
    const whole = facts.to_mni ? "template's brain" : "scan's foreground";
    const share = facts.coverage === null ? "" : `, ${number(100 * facts.coverage)}% of the ${whole}`;
    return ` Evaluated: ${number(facts.evaluated_ml, 4)} mL${share}.`;
  }

  function place(one) {
    const where = (one.mni ?? one.ras).map((value) => Math.round(value)).join(", ");
    return one.side ? `${one.side} ${where}` : where;
  }

  // ----------------------------------------------------------------------------------------------- candidates

  function candidates() {
    byId("finding").textContent = finding();
    byId("basis").textContent = basis();
    byId("list").hidden = facts.candidates.length === 0;
    byId("place").textContent = facts.to_mni ? "Place (MNI)" : "Place (RAS)";
    const lines = facts.candidates.map((one, index) => {
      const button = make("button", { type: "button", text: String(one.number), "aria-label": `Candidate ${one.number}: show` });
      button.addEventListener("click", () => choose(index));
      const options = ["", ...CHOICES].map((text) => make("option", { value: text, text: text || "–" }));
      const select = make("select", { "aria-label": `Verdict on candidate ${one.number}` }, options);
      select.value = review.candidates[one.number] ?? "";
      select.addEventListener("change", () => judge(index, select.value));
      const q = run.q[facts.id]?.[one.number];
      const texts = [place(one), number(one.volume_ml), number(one.peak), number(one.p, 2), number(q, 2)];
      const cells = [make("td", {}, [button]), ...texts.map((text) => make("td", { text })), make("td", {}, [select])];
      const line = make("tr", { title: `Strongest map at the peak: ${one.witness}` }, cells);
      line.addEventListener("click", (event) => event.target.tagName === "TD" && choose(index));
      return line;
    });
    byId("candidates").tBodies[0].replaceChildren(...lines);
    mark();
  }

  function mark() {
    [...byId("candidates").tBodies[0].rows].forEach((line, index) => {
      if (index === chosen) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    });
  }

  function choose(index) {
    const one = facts.candidates[index];
    if (!one) return;
    chosen = index;
    mark();
    viewer?.goTo(one.ras);
  }

  function judge(index, verdict) {
    const one = facts.candidates[index];
    if (!one) return;
    if (verdict) review.candidates[one.number] = verdict;
    else delete review.candidates[one.number];
    write(facts.key, review);
    byId("candidates").tBodies[0].rows[index].querySelector("select").value = verdict;
  }

  function verdicts() {
    review = read(facts.key);
    byId("note").value = review.note;
    candidates();
  }

  // ------------------------------------------------------------------------------------------------- controls

  function controls() {
    facts.maps.forEach((map, index) => byId("map").append(make("option", { value: String(index), text: `${map.name} (${map.unit})` })));
    byId("map").addEventListener("change", () => showMap(Number(byId("map").value)));
    byId("threshold").addEventListener("input", () => setThreshold(Number(byId("threshold").value)));
    byId("opacity").addEventListener("input", () => viewer.set({ opacity: Number(byId("opacity").value) }));
    if (facts.pseudo_healthy) pseudoHealthy();
  }

  function pseudoHealthy() {
    byId("below").hidden = false;
    for (const name of BELOW) stage.button("below", name, () => showBelow(name));
    markBelow("scan");
  }

  // The difference has grey values of its own: middle grey where the two are alike.
  async function showBelow(name) {
    const [low, high] = facts.scan.window;
    const window = [Number(byId("black").value), Number(byId("white").value)];
    if (name === "difference") await viewer.showDifference([(low - high) / 2, (high - low) / 2]);
    else await viewer.showScan(name === "scan" ? "volume_scan" : "volume_pseudo_healthy", window, { fromScan: name !== "scan" });
    markBelow(name);
    readout();
  }

  function markBelow(name) {
    below = name;
    for (const one of byId("below").children) one.setAttribute("aria-pressed", String(one.textContent === name));
    for (const one of byId("greys").querySelectorAll("input, button")) one.disabled = name === "difference";
  }

  async function showMap(index) {
    const map = facts.maps[index];
    byId("map").value = String(index);
    byId("meaning").textContent = run.card.about?.[map.name] ?? "";
    await viewer.showMap(map, index);
    scale(map);
    showThreshold();
  }

  // The colour bar, its marks, and the slider below it share one axis: from 0 to the end of the scale.
  function scale(map) {
    const { table, top } = facts.colours;
    const limit = Math.max(map.limit, 1e-6);
    const context = byId("ramp").getContext("2d");
    table.forEach((rgb, n) => {
      context.fillStyle = `rgb(${rgb.join(" ")})`;
      context.fillRect(n, 0, 1, 1);
    });
    Object.assign(byId("threshold"), { min: 0, max: top * limit, step: (top * limit) / 300 });
    const end = top * limit;
    const marks = [
      ["start", 0, "0"],
      ["limit", limit, `${number(limit)}: 99.9% of healthy`],
      ["end", end, `≥ ${number(end)} ${map.unit}`],
    ];
    if (map === first && facts.level !== null && facts.level < end) marks.push(["cut", facts.level, ""]);
    byId("ticks").replaceChildren(
      ...marks.map(([kind, value, text]) => {
        const tick = make("span", { text, class: kind });
        tick.style.left = `${(100 * value) / end}%`;
        return tick;
      }),
    );
    byId("cut").hidden = !marks.some(([kind]) => kind === "cut");
    byId("cut").textContent = `Blue mark: candidates begin at ${number(facts.level)} ${facts.unit}.`;
  }

  function setThreshold(value) {
    viewer.set({ threshold: Math.max(0, value) });
    showThreshold();
  }

  function showThreshold() {
    const { threshold, map } = viewer.state;
    const { unit } = map;
    byId("threshold").value = threshold;
    byId("threshold").setAttribute("aria-valuetext", `${number(threshold)} ${unit}`);
    byId("above").textContent = `Coloured above ${number(threshold)} ${unit}. Same scale in all scans of this run.`;
  }

  function readout() {
    if (!viewer) return;
    const { scan, map } = viewer.here();
    const state = viewer.state.map;
    const values = state ? [`${state.name} ${number(map)} ${state.unit} (in steps of ${number(state.step, 2)})`] : [];
    byId("readout").textContent = [...values, `${below} ${number(scan)} ${facts.units}`, ...stage.places()].join("  ·  ");
  }

  // ------------------------------------------------------------------------------------------------- keyboard

  function act(key) {
    const many = facts.candidates.length;
    if (many && (key === "n" || key === "p")) {
      choose((chosen + (key === "n" ? 1 : many - 1)) % many);
      byId("candidates").tBodies[0].rows[chosen].scrollIntoView({ block: "nearest" }); // a page begins at its top
    } else if (many && /^[0-4]$/.test(key)) judge(chosen, key === "0" ? "" : CHOICES[Number(key) - 1]);
    else return Boolean(viewer) && looks(key);
    return true;
  }

  function looks(key) {
    if (key === "m") showMap((Number(byId("map").value) + 1) % facts.maps.length);
    else if (key === "h") viewer.set({ on: !viewer.state.on });
    else if (key === "g" && facts.pseudo_healthy) showBelow(BELOW[(BELOW.indexOf(below) + 1) % BELOW.length]);
    else if (key === "[" || key === "]") {
      const step = (facts.colours.top * viewer.state.map.limit) / 60;
      setThreshold(viewer.state.threshold + (key === "]" ? step : -step));
    } else return false;
    return true;
  }

  // ---------------------------------------------------------------------------------------------------- start

  async function start() {
    viewer = await stage.begin(readout);
    controls();
    await showMap(facts.maps.indexOf(first));
    if (facts.candidates.length) choose(0);
    else viewer.goTo(facts.peak);
  }

  head();
  verdicts();
  const note = (text) => {
    review.note = text;
    write(facts.key, review);
  };
  await stage.run({ start, act, note, verdicts, picture: "The picture shows the scan at its candidates or, without any, where the map is highest." });
  medvae.viewer = viewer;
})();
