"use strict";
// What the pages of scans share: planes, outlines, grey values, the keys of the images, and a picture without WebGL2.
medvae.makeStage = ({ facts, names, colours, points }) => {
  const { byId, make } = medvae;
  const WINDOWS = { brain: [0, 80], "soft tissue": [-160, 240], lung: [-1350, 150], bone: [-500, 1500] };
  const VIEWS = { all: "sliceTypeMultiplanar", axial: "sliceTypeAxial", coronal: "sliceTypeCoronal", sagittal: "sliceTypeSagittal", "3D": "sliceTypeRender" };
  const base64 = (id) => byId(id)?.textContent;
  let viewer = null;
  let outlines = null;
  let redraw = 0;

  // The links to the pages before and after this one, in the order of the worklist.
  function neighbours(rows) {
    const pages = medvae.inOrder(rows, facts).filter((row) => row.page);
    const at = pages.findIndex((row) => row.key === facts.key && row.id === facts.id);
    link("previous", at > 0 ? pages[at - 1] : null);
    link("next", at >= 0 ? pages[at + 1] : null);
  }

  function link(id, row) {
    byId(id).hidden = !row;
    if (row) byId(id).href = `${encodeURIComponent(row.id)}.html`;
  }

  function warnings() {
    byId("warnings").textContent = facts.warnings.map((text) => `Warning: ${text}`).join("\n");
    byId("warnings").hidden = facts.warnings.length === 0;
  }

  async function begin(onMove) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("the browser has no WebGL2");
    viewer = await medvae.makeViewer(byId("images"), { facts, base64, onMove: () => viewer && onMove(), onDraw: drawLines, onWindow: showWindow });
    const { marks } = facts;
    if (viewer.mask) outlines = medvae.makeOutlines(byId("lines"), { mask: viewer.mask, shape: facts.grid.shape, marks, colours, points: points(viewer) });
    for (const [name, kind] of Object.entries(VIEWS)) button("views", name, () => viewer.nv.setSliceType(viewer.nv[kind]));
    for (const [name, text] of Object.entries(names)) {
      if (name in marks) byId("outlines").append(outline(name, text));
    }
    windows();
    showWindow(...facts.scan.window);
    return viewer;
  }

  function outline(name, text) {
    const box = make("input", { type: "checkbox", checked: true, "data-outline": name });
    box.addEventListener("change", drawLines);
    const label = make("label", {}, [box, ` ${text}`]);
    label.style.borderBottom = `3px solid ${colours[name]}`;
    return label;
  }

  function button(place, text, call) {
    const made = make("button", { type: "button", text });
    made.addEventListener("click", call);
    byId(place).append(made);
    return made;
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

  // Where the cross-hair is, in words.
  function places() {
    const { ras, file, mni } = viewer.here();
    const found = [`voxel ${file.join(", ")}`, `RAS ${ras.map((value) => value.toFixed(1)).join(", ")} mm`];
    return mni ? [...found, `MNI ${mni.map((value) => value.toFixed(0)).join(", ")}`] : found;
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

  // act(key) says whether a key meant something; text fields keep theirs.
  function wireKeys(act) {
    const onKey = (event) => {
      const at = document.activeElement;
      const typing = ["TEXTAREA", "SELECT"].includes(at?.tagName) || (at?.tagName === "INPUT" && at.type !== "checkbox");
      if (event.altKey && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
        const to = byId(event.key === "ArrowLeft" ? "previous" : "next");
        if (!to.hidden) to.click();
        event.preventDefault();
      } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && (act(event.key) || own(event.key))) {
        event.preventDefault();
        event.stopImmediatePropagation();
      }
    };
    addEventListener("keydown", onKey, true);
  }

  function own(key) {
    if (!viewer) return false;
    if (key !== "o") return moves(key);
    const boxes = [...document.querySelectorAll("[data-outline]")];
    const on = !boxes.some((box) => box.checked);
    for (const box of boxes) box.checked = on;
    drawLines();
    return true;
  }

  function moves(key) {
    const step = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] }[key];
    if (!step || document.activeElement !== byId("images")) return false;
    const { index } = viewer.here();
    viewer.goToVoxel(index.map((value, n) => value + step[n]));
    return true;
  }

  function instead(problem, what) {
    for (const id of ["screen", "controls", "greys", "readout"]) byId(id).hidden = true;
    byId("instead").hidden = false;
    byId("why").textContent = `No 3D view here: ${problem}. ${what}`;
    const png = base64("montage");
    if (png) byId("instead").append(make("img", { src: `data:image/png;base64,${png}`, alt: `Picture of ${facts.id}` }));
  }

  // The page from its words on: note, files of verdicts, keys, then the images, or a picture without WebGL2.
  async function run({ start, act, note, verdicts, picture }) {
    const say = (text) => {
      byId("said").textContent = text;
    };
    byId("note").addEventListener("input", () => note(byId("note").value));
    const { id, key, scan_hash, candidates, notice } = facts;
    medvae.wireFiles([{ id, key, scan_hash, candidates: candidates?.length }], { name: `verdicts-${id}.json`, notice, onChange: verdicts, say });
    wireKeys(act);
    addEventListener("storage", verdicts);
    try {
      await start();
    } catch (problem) {
      instead(problem.message, picture);
    }
    document.documentElement.dataset.ready = "true";
  }

  return { begin, button, neighbours, places, run, showWindow, warnings };
};
