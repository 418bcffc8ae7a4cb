"use strict";
// Outlines of regions as thin lines over NiiVue's planes, and the numbers of candidates at their peaks.
medvae.makeOutlines = (canvas, { mask, shape, marks, colours, points = [] }) => {
  const PLANES = [[0, 1], [0, 2], [1, 2]]; // the axes across and up of NiiVue's axial, coronal, sagittal tile
  const NEAR = 1.5; // a number is shown so many voxels from its slice
  // Sides of a square of four voxel centres: below, right, above, left; corners from the lower left, counterclockwise.
  const SIDES = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];
  const SEGMENTS = Array.from({ length: 16 }, (_, kind) => {
    const inside = (corner) => Boolean(kind & (1 << corner % 4));
    const cut = [0, 1, 2, 3].filter((side) => inside(side) !== inside(side + 1));
    if (cut.length === 2) return [cut];
    return cut.length === 4 ? [[0, 1], [2, 3]] : [];
  });
  const paths = new Map();
  const strides = [1, shape[0], shape[0] * shape[1]];

  // Marching squares between voxel centres, in voxels of the plane.
  function contour(bit, plane, slice) {
    const key = `${bit} ${plane} ${slice}`;
    if (paths.has(key)) return paths.get(key);
    const [a, b] = PLANES[plane];
    const across = strides[a];
    const up = strides[b];
    const base = slice * strides[3 - a - b];
    const path = new Path2D();
    for (let j = 0; j + 1 < shape[b]; j++) {
      for (let i = 0; i + 1 < shape[a]; i++) {
        const at = base + i * across + j * up;
        const corners = [mask[at], mask[at + across], mask[at + across + up], mask[at + up]];
        const kind = corners.reduce((sum, value, n) => sum + (value & bit ? 1 << n : 0), 0);
        for (const [from, to] of SEGMENTS[kind]) {
          path.moveTo(i + SIDES[from][0], j + SIDES[from][1]);
          path.lineTo(i + SIDES[to][0], j + SIDES[to][1]);
        }
      }
    }
    if (paths.size > 400) paths.clear();
    paths.set(key, path);
    return path;
  }

  // From voxels of a tile's plane to pixels: NiiVue knows the way back, zoom and sides included.
  function placement(nv, tile, plane) {
    const [left, top, width, height] = nv.screenSlices[tile].leftTopWidthHeight;
    const [a, b] = PLANES[plane];
    const voxel = (x, y) => {
      const frac = nv.screenXY2TextureFrac(x, y, tile, false);
      return [frac[a] * shape[a] - 0.5, frac[b] * shape[b] - 0.5];
    };
    const [x, y] = [left + width / 4, top + height / 4]; // well inside: NiiVue gives no place beyond the edge
    const [x0, y0] = voxel(x, y);
    const [x1, y1] = voxel(x + width / 2, y + height / 2);
    const [sx, sy] = [width / 2 / (x1 - x0), height / 2 / (y1 - y0)];
    return { matrix: new DOMMatrix([sx, 0, 0, sy, x - x0 * sx, y - y0 * sy]), box: [left, top, width, height] };
  }

  function draw(nv, shown) {
    canvas.width = nv.gl.canvas.width;
    canvas.height = nv.gl.canvas.height;
    const context = canvas.getContext("2d");
    const ratio = canvas.width / Math.max(1, canvas.clientWidth);
    const at = [0, 1, 2].map((n) => Math.min(shape[n] - 1, Math.max(0, Math.floor(nv.scene.crosshairPos[n] * shape[n]))));
    nv.screenSlices.forEach(({ axCorSag: plane }, tile) => {
      if (!(plane in PLANES)) return; // the 3D view
      const { matrix, box } = placement(nv, tile, plane);
      const [a, b] = PLANES[plane];
      const slice = at[3 - a - b];
      context.save();
      context.beginPath();
      context.rect(...box);
      context.clip();
      for (const name of shown) {
        const placed = new Path2D();
        placed.addPath(contour(marks[name], plane, slice), matrix);
        context.strokeStyle = colours[name];
        context.lineWidth = 1.2 * ratio;
        context.stroke(placed);
      }
      if (shown.includes("candidates")) number(context, { plane, slice, matrix, ratio });
      context.restore();
    });
  }

  function number(context, { plane, slice, matrix, ratio }) {
    const [a, b] = PLANES[plane];
    context.font = `bold ${14 * ratio}px system-ui, sans-serif`;
    context.fillStyle = colours.candidates;
    for (const [text, voxel] of points) {
      if (Math.abs(voxel[3 - a - b] - slice) > NEAR) continue;
      const place = matrix.transformPoint(new DOMPoint(voxel[a], voxel[b]));
      context.fillText(text, place.x + 5 * ratio, place.y - 5 * ratio);
    }
  }

  return { draw };
};
