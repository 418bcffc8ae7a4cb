"use strict";
// NiiVue with a scan and one of its maps: one fixed colour scale, a threshold in the map's unit, the value at the cross.
medvae.makeViewer = async (canvas, { facts, base64, onMove, onDraw, onWindow }) => {
  const FROM_ZERO = 2; // colours run from 0 to the end, and nothing below the threshold is shown; NiiVue 0.69 calls it otherwise
  const COLOURS = "medvae";
  const INT16 = 4; // of NIfTI
  const DIFFERENCE = "difference";
  const CROSS_MM = 0.7; // NiiVue wants voxels
  const CROSS_SHARE = 1 / 250; // of a small field of view
  const { shape, affine } = facts.grid;
  const inverse = inverted(affine);
  const spacing = [0, 1, 2].map((n) => Math.hypot(affine[0][n], affine[1][n], affine[2][n]));
  const widest = Math.max(...spacing.map((mm, n) => mm * shape[n]));
  const images = new Map(); // maps and other scans that were shown before, by name
  let frame = 0;
  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0, 0.82, 1, 0.8],
    crosshairGap: 6,
    crosshairWidth: Math.min(CROSS_MM, CROSS_SHARE * widest) / Math.min(...spacing),
    dragAndDropEnabled: false,
    fontColor: [1, 0.82, 0, 1],
    isColorbar: false,
    isRadiologicalConvention: true,
    loadingText: "",
    logLevel: "error",
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    sagittalNoseLeft: true,
    show3Dcrosshair: true,
  });
  await nv.attachToCanvas(canvas);
  const plain = nv.drawScene.bind(nv);
  nv.drawScene = () => {
    const drawn = plain();
    onDraw(nv);
    return drawn;
  };
  nv.onLocationChange = () => onMove();
  nv.onIntensityChange = (volume) => onWindow(volume.cal_min, volume.cal_max); // by the right button, a double or long touch
  nv.setMultiplanarLayout(niivue.MULTIPLANAR_TYPE.GRID);
  nv.setSliceType(nv.sliceTypeMultiplanar);
  if (facts.colours) {
    const { table } = facts.colours;
    const [R, G, B] = [0, 1, 2].map((channel) => table.map((rgb) => rgb[channel]));
    nv.addColormap(COLOURS, { R, G, B, A: table.map((_, n) => (n ? 255 : 0)), I: table.map((_, n) => n) });
  }
  const state = { map: null, threshold: 0, opacity: 0.7, on: true };
  let scan = await image("scan", base64("volume_scan"), { colormap: "gray" });
  setEnds(...facts.scan.window);
  nv.addVolume(scan);
  images.set("volume_scan", scan);
  const marks = base64("volume_marks") ? await image("marks", base64("volume_marks"), {}) : null;
  function image(name, text, options) {
    return niivue.NVImage.loadFromBase64({ base64: text, name: `${name}.nii.gz`, ...options });
  }

  // The colour map first: NiiVue then sets ends of its own.
  function dress(overlay) {
    overlay.colormap = COLOURS;
    overlay.colormapType = FROM_ZERO;
    overlay.cal_min = Math.max(state.threshold, 1e-9);
    overlay.cal_max = facts.colours.top * Math.max(state.map.limit, 1e-6);
    overlay.opacity = state.on ? state.opacity : 0;
  }

  // One update of the textures a frame, however often a slider moves.
  function update() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      nv.updateGLVolume();
    });
  }

  async function showMap(map, number) {
    if (!images.has(map.name)) images.set(map.name, await image(map.name, base64(`volume_${number}`), {}));
    Object.assign(state, { map, threshold: map.limit });
    dress(images.get(map.name));
    nv.overlays = [images.get(map.name)];
    nv.volumes = [scan, ...nv.overlays];
    update();
    onMove();
  }

  // Another scan of the same grid in the place of the first one; it may be given as the steps from the first one to it.
  async function showScan(id, window, { fromScan = false } = {}) {
    if (!images.has(id)) {
      const other = await image(id, base64(id), { colormap: "gray" });
      const first = images.get("volume_scan").img;
      if (fromScan) other.img = other.img.map((step, n) => step + first[n]); // typed: the sum wraps around as the steps did
      images.set(id, other);
    }
    scan = images.get(id);
    nv.opts.multiplanarShowRender = id === DIFFERENCE ? niivue.SHOW_RENDER.NEVER : niivue.SHOW_RENDER.ALWAYS; // a grey block
    scan.dims ??= images.get("volume_scan").dims; // NiiVue sets them where a volume is added, and looks voxels up by them
    setEnds(...window);
    nv.volumes = [scan, ...nv.volumes.slice(1)];
    update();
    onMove();
  }

  // What the second image lacks of the scan: below 0 where the scan is darker than expected.
  async function showDifference(window) {
    if (!images.has(DIFFERENCE)) {
      await showScan("volume_pseudo_healthy", window, { fromScan: true });
      const other = await image(DIFFERENCE, base64("volume_pseudo_healthy"), { colormap: "gray" });
      const [first, second] = ["volume_scan", "volume_pseudo_healthy"].map((name) => images.get(name).img);
      other.img = Int16Array.from(first, (value, n) => value - second[n]);
      Object.assign(other.hdr, { datatypeCode: INT16, numBitsPerVoxel: 16, scl_inter: 0 });
      images.set(DIFFERENCE, other);
    }
    await showScan(DIFFERENCE, window);
  }

  function set(change) {
    Object.assign(state, change);
    dress(nv.volumes[1]);
    update();
  }

  function setWindow(black, white) {
    setEnds(black, white);
    update();
  }

  function setEnds(black, white) {
    scan.cal_min = black;
    scan.cal_max = Math.max(white, black + 1e-6 * Math.abs(black) + 1e-9);
  }

  // ------------------------------------------------------------------------------------------------- cross-hair

  function voxel() {
    return [0, 1, 2].map((n) => Math.min(shape[n] - 1, Math.max(0, Math.floor(nv.scene.crosshairPos[n] * shape[n]))));
  }

  function goToVoxel(index) {
    const inside = index.map((value, n) => Math.min(shape[n] - 1, Math.max(0, value)));
    nv.scene.crosshairPos = inside.map((value, n) => (value + 0.5) / shape[n]);
    nv.createOnLocationChange();
    nv.drawScene();
  }

  function goTo(ras) {
    goToVoxel(applied(inverse, ras).map(Math.round));
  }

  function valueOf(volume, index) {
    const stored = volume.img[index[0] + shape[0] * (index[1] + shape[1] * index[2])];
    return stored * volume.hdr.scl_slope + volume.hdr.scl_inter;
  }

  // What lies under the cross-hair; voxels as the file counts them, from 0.
  function here() {
    const index = voxel();
    const ras = applied(affine, index);
    return {
      index,
      ras,
      file: applied(facts.grid.to_file, index).map(Math.round),
      mni: facts.to_mni && applied(facts.to_mni, ras),
      scan: valueOf(scan, index),
      map: state.map && nv.volumes[1] ? valueOf(nv.volumes[1], index) : null,
    };
  }

  function applied(matrix, [x, y, z]) {
    return [0, 1, 2].map((n) => matrix[n][0] * x + matrix[n][1] * y + matrix[n][2] * z + matrix[n][3]);
  }

  // Inverse of a 4×4 whose last row is 0 0 0 1.
  function inverted(m) {
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const column = (n) => [m[0][n], m[1][n], m[2][n]];
    const [a, b, c, moved] = [0, 1, 2, 3].map(column);
    const [bc, ca, ab] = [cross(b, c), cross(c, a), cross(a, b)];
    const size = a[0] * bc[0] + a[1] * bc[1] + a[2] * bc[2];
    return [bc, ca, ab].map((row) => {
      const linear = row.map((value) => value / size);
      return [...linear, -(linear[0] * moved[0] + linear[1] * moved[1] + linear[2] * moved[2])];
    });
  }

  const toVoxel = (ras) => applied(inverse, ras);
  return { nv, state, mask: marks?.img, goTo, goToVoxel, here, set, setWindow, showDifference, showMap, showScan, toVoxel };
};
