"use strict";
// The page of one scan: controls, candidates, verdicts; without WebGL2 a picture in the place of the images.
(async () => {
  const { CHOICES, byId, data, make, number, pInWords, read, showCard, wireFiles, write } = globalThis.medvae;
  const facts = data("facts");
  const run = globalThis.medvaeRun ?? { rows: [], q: {}, card: {} }; // a page may be passed on alone
  const first = facts.maps.find((map) => map.name === facts.map);
  const WINDOWS = { brain: [0, 80], "soft tissue": [-160, 240], lung: [-1350, 150], bone: [-500, 1500] };
  const VIEWS = { all: "sliceTypeMultiplanar", axial: "sliceTypeAxial", coronal: "sliceTypeCoronal", sagittal: "sliceTypeSagittal", "3D": "sliceTypeRender" };
  const OUTLINES = { brain: "template's brain", truth: "known lesion", candidates: "candidates" };
  let review = read(facts.key);
  let chosen = 0; // index of the candidate that keys act on
  let viewer = null;
  let outlines = null;
  let redraw = 0;

  // ---------------------------------------------------------------------------------------------------- words

  function head() {
    document.title = `${facts.id} - medvae review`;
    byId("title").textContent = facts.id;
    const score = `Score ${number(first.score)} ${first.unit} (${first.name}), ${pInWords(first.p, facts.n)}; ${facts.reference}.`;
    byId("summary").textContent = score;
    byId("warnings").textContent = facts.warnings.map((text) => `Warning: ${text}`).join("\n");
    byId("warnings").hidden = facts.warnings.length === 0;
    const pages = run.rows.filter((row) => row.page);
    const at = pages.findIndex((row) => row.key === facts.key && row.id === facts.id);
    link("previous", at > 0 ? pages[at - 1] : null);
    link("next", at >= 0 ? pages[at + 1] : null);
    const card = { reference: facts.reference, ...run.card };
    showCard(byId("card"), card);
    for (const map of facts.maps) {
      const cells = [map.name, `${number(map.score)} ${map.unit}`, number(map.p), number(map.limit), number(map.step)];
      byId("scores").tBodies[0].append(make("tr", {}, cells.map((text) => make("td", { text }))));
    }
  }

  function link(id, row) {
    byId(id).hidden = !row;
    if (row) byId(id).href = `${encodeURIComponent(row.id)}.html`;
  }

  function finding() {
    if (facts.threshold === null) return "Candidates unknown: no healthy scans to compare with";
    const limit = `${number(facts.threshold)} ${facts.unit}·mL above ${number(facts.level)} ${facts.unit}`;
    const many = facts.candidates.length;
    if (!many) return `No candidate beyond the healthy limit of ${limit}; this does not exclude disease`;
    return `${many} ${many > 1 ? "candidates" : "candidate"} beyond the healthy limit of ${limit}`;
  }

  function place(one) {
    const where = (one.mni ?? one.ras).map((value) => Math.round(value)).join(", ");
    return one.side ? `${one.side} ${where}` : where;
  }

  // ----------------------------------------------------------------------------------------------- candidates

  function candidates() {
    byId("finding").textContent = finding();
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
      const texts = [place(one), number(one.volume_ml, 2), number(one.peak), number(one.p, 2), number(q, 2)];
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
    for (const [name, kind] of Object.entries(VIEWS)) {
      button("views", name, () => viewer.nv.setSliceType(viewer.nv[kind]));
    }
    for (const [name, text] of Object.entries(OUTLINES)) {
      if (!(name in facts.marks)) continue;
      const box = make("input", { type: "checkbox", checked: true, "data-outline": name });
      box.addEventListener("change", drawLines);
      byId("outlines").append(make("label", { class: name }, [box, ` ${text}`]));
    }
    windows();
    if (facts.pseudo_healthy) pseudoHealthy();
  }

  function pseudoHealthy() {
    const box = make("input", { type: "checkbox", id: "pseudo" });
    box.addEventListener("change", () => viewer.showPseudoHealthy(box.checked));
    byId("windows").append(make("label", {}, [box, " pseudo-healthy image"]));
  }

  function button(place, text, call) {
    const made = make("button", { type: "button", text });
    made.addEventListener("click", call);
    byId(place).append(made);
  }

  function windows() {
    const presets = facts.units === "HU" ? WINDOWS : {};
    button("windows", "auto", () => setWindow(...facts.scan.window));
    for (const [name, ends] of Object.entries(presets)) button("windows", name, () => setWindow(...ends));
    const [low, high] = facts.scan.window;
    const ends = facts.units === "HU" ? [-1400, 2000] : [low - (high - low) / 2, high + (high - low)];
    for (const id of ["black", "white"]) {
      Object.assign(byId(id), { min: ends[0], max: ends[1], step: (ends[1] - ends[0]) / 500 });
      byId(id).addEventListener("input", () => setWindow(Number(byId("black").value), Number(byId("white").value)));
    }
  }

  function setWindow(black, white) {
    showWindow(black, white);
    viewer.setWindow(black, white);
  }

  function showWindow(black, white) {
    byId("black").value = black;
    byId("white").value = white;
  }

  async function showMap(index) {
    const map = facts.maps[index];
    byId("map").value = String(index);
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
    const { ras, file, mni, scan, map } = viewer.here();
    const state = viewer.state.map;
    const places = [`voxel ${file.join(", ")}`, `RAS ${ras.map((value) => value.toFixed(1)).join(", ")} mm`];
    if (mni) places.push(`MNI ${mni.map((value) => value.toFixed(0)).join(", ")}`);
    const values = state ? [`${state.name} ${number(map)} ± ${number(state.step / 2, 1)} ${state.unit}`] : [];
    byId("readout").textContent = [...values, `scan ${number(scan)} ${facts.units}`, ...places].join("  ·  ");
  }

  function drawLines() {
    if (redraw || !outlines) return;
    redraw = requestAnimationFrame(() => {
      redraw = 0;
      const shown = [...document.querySelectorAll("[data-outline]:checked")].map((box) => box.dataset.outline);
      outlines.draw(viewer.nv, shown);
    });
  }

  // ------------------------------------------------------------------------------------------------- keyboard

  function onKey(event) {
    const at = document.activeElement;
    const typing = ["TEXTAREA", "SELECT"].includes(at?.tagName) || (at?.tagName === "INPUT" && at.type !== "checkbox");
    if (event.altKey && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      const to = byId(event.key === "ArrowLeft" ? "previous" : "next");
      if (!to.hidden) to.click();
      event.preventDefault();
    } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && act(event)) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }

  function act({ key }) {
    const many = facts.candidates.length;
    if (many && (key === "n" || key === "p")) {
      choose((chosen + (key === "n" ? 1 : many - 1)) % many);
      byId("candidates").tBodies[0].rows[chosen].scrollIntoView({ block: "nearest" }); // a page begins at its top
    } else if (many && /^[0-4]$/.test(key)) judge(chosen, key === "0" ? "" : CHOICES[Number(key) - 1]);
    else return Boolean(viewer) && (moves(key) || looks(key));
    return true;
  }

  function looks(key) {
    if (key === "m") showMap((Number(byId("map").value) + 1) % facts.maps.length);
    else if (key === "h") viewer.set({ on: !viewer.state.on });
    else if (key === "g" && byId("pseudo")) byId("pseudo").click();
    else if (key === "[" || key === "]") {
      const step = (facts.colours.top * viewer.state.map.limit) / 60;
      setThreshold(viewer.state.threshold + (key === "]" ? step : -step));
    } else if (key === "o") {
      const boxes = [...document.querySelectorAll("[data-outline]")];
      const on = !boxes.some((box) => box.checked);
      for (const box of boxes) box.checked = on;
      drawLines();
    } else return false;
    return true;
  }

  function moves(key) {
    const step = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] }[key];
    if (!step || document.activeElement !== byId("images")) return false;
    const { index } = viewer.here();
    viewer.goToVoxel(index.map((value, n) => value + step[n]));
    return true;
  }

  // ---------------------------------------------------------------------------------------------------- start

  function instead(problem) {
    byId("screen").hidden = true;
    byId("controls").hidden = true;
    byId("greys").hidden = true;
    byId("readout").hidden = true;
    byId("instead").hidden = false;
    byId("why").textContent = `No 3D view here: ${problem}. The picture shows the scan at its highest places.`;
    const png = byId("montage")?.textContent;
    if (png) byId("instead").append(make("img", { src: `data:image/png;base64,${png}`, alt: `Montage of ${facts.id}` }));
  }

  async function start() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("the browser has no WebGL2");
    const base64 = (id) => byId(id).textContent;
    const made = await medvae.makeViewer(byId("images"), { facts, base64, onMove: readout, onDraw: drawLines });
    viewer = made;
    const points = facts.candidates.map((one) => [String(one.number), viewer.toVoxel(one.ras)]);
    outlines = medvae.makeOutlines(byId("lines"), { mask: viewer.mask, shape: facts.grid.shape, marks: facts.marks, points });
    controls();
    showWindow(...facts.scan.window);
    await showMap(facts.maps.indexOf(first));
    if (facts.candidates.length) choose(0);
    else viewer.goTo(facts.peak);
  }

  const say = (text) => {
    byId("said").textContent = text;
  };
  head();
  verdicts();
  byId("note").addEventListener("input", () => {
    review.note = byId("note").value;
    write(facts.key, review);
  });
  wireFiles([{ id: facts.id, key: facts.key }], { name: `verdicts-${facts.id}.json`, notice: facts.notice, onChange: verdicts, say });
  addEventListener("keydown", onKey, true);
  addEventListener("storage", verdicts);
  try {
    await start();
  } catch (problem) {
    instead(problem.message);
  }
  document.documentElement.dataset.ready = "true";
  medvae.viewer = viewer;
})();
