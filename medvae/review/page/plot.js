"use strict";
// Small plots as SVG: lines over steps, points with names. Colours are those of the page, light or dark.
medvae.plot = (() => {
  const [WIDTH, HEIGHT] = [520, 300];
  const BOX = { left: 62, right: 12, top: 44, bottom: 40 };

  function svg(tag, attributes = {}, children = []) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // About five round numbers between two.
  function ticks(low, high) {
    const rough = (high - low) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(10)));
  }

  // The ends of an axis: a twentieth around the values, and never nothing.
  function ends(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const more = (high - low) / 20 || Math.abs(high) / 20 || 1;
    return [low - more, high + more];
  }

  function frame(across, up, [x0, x1], [y0, y1]) {
    const x = (value) => BOX.left + ((value - x0) / (x1 - x0)) * (WIDTH - BOX.left - BOX.right);
    const y = (value) => HEIGHT - BOX.bottom - ((value - y0) / (y1 - y0)) * (HEIGHT - BOX.top - BOX.bottom);
    const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": up });
    for (const value of ticks(y0, y1)) {
      image.append(svg("line", { class: "grid", x1: BOX.left, x2: WIDTH - BOX.right, y1: y(value), y2: y(value) }));
      image.append(svg("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, [String(value)]));
    }
    for (const value of ticks(x0, x1)) {
      image.append(svg("text", { x: x(value), y: HEIGHT - BOX.bottom + 16, "text-anchor": "middle" }, [String(value)]));
    }
    image.append(svg("text", { x: WIDTH / 2, y: HEIGHT - 6, "text-anchor": "middle" }, [across]));
    image.append(svg("text", { x: 4, y: 14, class: "title" }, [up]));
    return { image, x, y };
  }

  // lines: [{ name, points: [[x, y], ...] }]; mark: where a vertical line stands.
  function lines(up, given, { across, mark }) {
    const known = given.map((one) => ({ ...one, points: one.points.filter(([, y]) => y !== null && y !== undefined) }));
    const all = known.flatMap((one) => one.points);
    if (!all.length) return null;
    const { image, x, y } = frame(across, up, ends([0, ...all.map((one) => one[0])]), ends(all.map((one) => one[1])));
    if (mark) image.append(svg("line", { class: "mark", x1: x(mark), x2: x(mark), y1: BOX.top, y2: HEIGHT - BOX.bottom }));
    const key = known.map(({ name }, n) => svg("tspan", { class: `name kind${n}`, dx: n ? 12 : 0 }, [name]));
    image.append(svg("text", { x: 4, y: 32 }, key));
    known.forEach(({ points }, n) => {
      if (!points.length) return;
      const path = points.map(([a, b], k) => `${k ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
      image.append(svg("path", { class: `line kind${n}`, d: path }));
      if (points.length === 1) image.append(svg("circle", { class: `kind${n}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 4 }));
    });
    return image;
  }

  // points: [{ x, y, kind, name }]; the name appears under the pointer.
  function scatter(up, points, { across }) {
    const place = (key) => ends(points.map((one) => one[key]));
    const { image, x, y } = frame(across, up, place("x"), place("y"));
    for (const one of points) {
      const circle = svg("circle", { class: `kind${one.kind}`, cx: x(one.x), cy: y(one.y), r: 4, tabindex: 0 });
      circle.append(svg("title", {}, [one.name]));
      image.append(circle);
    }
    return image;
  }

  return { lines, scatter };
})();
