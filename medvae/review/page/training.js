"use strict";
// The page of a training.
(() => {
  const { byId, data, make, number, plot, showFacts } = globalThis.medvae;
  const facts = data("facts");
  const { card, epochs } = facts;
  const kept = Math.max(0, ...epochs.filter((one) => one.best).map((one) => one.step));
  const PLOTS = [
    ["−ELBO, nats per foreground voxel", { loss: "training (warmed-up β)", validation: "validation (β = 1)" }],
    ["error per foreground voxel", { error: "training", validation_error: "validation", mean_image_error: "mean of the training scans" }],
    ["KL, nats per scan", { kl: "training" }],
    ["active latent units", { active: "units whose mean varies" }],
  ];

  function summary() {
    const better = card.validation_error !== null && card.mean_image_error !== null;
    const error = better ? `; validation error ${number(card.validation_error)}, that of the mean training scan ${number(card.mean_image_error)}` : "";
    return `${card.training ?? "?"} scans, ${card.steps ?? "?"} steps${error}.`;
  }

  function duration(seconds) {
    if (!seconds) return "";
    return seconds < 120 ? `${Math.round(seconds)} s` : `${number(seconds / 60, 2)} min`;
  }

  function words() {
    const { prepare } = card;
    const counts = Object.entries(card.counts).map(([status, count]) => `${count} ${status}`);
    const error = card.mean_image_error === null ? "unknown: there are no validation scans" : `${number(card.validation_error)}; that of the mean training scan, which it has to beat: ${number(card.mean_image_error)}`;
    return [
      ["For", [prepare.modality, prepare.align && prepare.align !== "none" ? `aligned to ${prepare.align}` : "", `foreground ${prepare.foreground}`].filter(Boolean).join(", ")],
      ["Grid", prepare.shape ? `${prepare.shape.join(" × ")} voxels of ${prepare.spacing.join(" × ")} mm` : ""],
      ["Network", [card.network, card.likelihood].filter(Boolean).join(", likelihood ")],
      ["Conditions", card.conditions.join(", ")],
      ["Scans", `${card.training ?? "?"} to train on, ${card.validation} to validate; of all: ${counts.join(", ")}`],
      ["Steps", card.steps && `${card.steps}; weights kept from step ${card.kept_step ?? kept}`],
      ["Validation error", error],
      ["Active units", number(card.active_units)],
      ["KL", number(card.kl) && `${number(card.kl)} nats per scan`],
      ["Seed", Number.isInteger(card.seed) ? String(card.seed) : ""],
      ["Time", [duration(card.seconds), card.minutes ? `budget ${card.minutes} min` : ""].filter(Boolean).join(", ")],
      ["Machine", Object.entries(card.machine).map(([name, text]) => text && (name === "machine" ? text : `${name} ${text}`)).filter(Boolean).join(", ")],
      ["Model", card.hash?.slice(0, 12)],
      ["medvae", card.medvae],
    ];
  }

  function curves() {
    for (const [up, names] of PLOTS) {
      const lines = Object.entries(names).map(([key, name]) => ({ name, points: epochs.map((one) => [one.step, one[key]]) }));
      const image = plot.lines(up, lines, { across: "step (the vertical line: the weights that are kept)", mark: kept });
      if (image) byId("curves").append(image);
    }
    if (!epochs.length) byId("curves").append(make("p", { text: "The folder has no log of the training." }));
  }

  function cohort() {
    const { map } = facts;
    if (!map?.scans.length) return;
    byId("cohort").hidden = false;
    const classes = [...new Set(map.scans.map((one) => one.class))].sort();
    const kind = (one) => (classes.length > 1 ? classes.indexOf(one.class) % 4 : Number(one.validation));
    const role = (one) => (one.validation ? "validation" : "training");
    const points = map.scans.map((one) => ({ ...one, kind: kind(one), name: [one.id, one.class, role(one)].filter(Boolean).join(", ") }));
    const [first, second] = map.shares.map((share) => `${number(100 * share, 2)}% of the variance`);
    byId("map").append(plot.scatter(`second component, ${second}`, points, { across: `first component, ${first}` }));
    const key = classes.length > 1 ? classes.map((name) => name ?? "no class") : ["training", "validation"];
    const colours = key.slice(0, 4).map((name, n) => make("span", { class: `key kind${n}`, text: name }));
    byId("about").append("Principal components of the codes; a point is a scan, its id appears under the pointer. ", ...colours);
  }

  const png = byId("reconstructions")?.textContent;
  byId("pairs").hidden = !png;
  if (png) byId("pairs").append(make("img", { src: `data:image/png;base64,${png}`, alt: "Scans beside their reconstructions" }));
  byId("summary").textContent = summary();
  const warnings = card.warnings ?? [];
  byId("warnings").textContent = warnings.map((text) => `Warning: ${text}`).join("\n");
  byId("warnings").hidden = warnings.length === 0;
  showFacts(byId("card"), words());
  curves();
  cohort();
  document.documentElement.dataset.ready = "true";
})();
