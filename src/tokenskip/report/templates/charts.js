"use strict";
// What every page of ours shares: charts with a tooltip, sortable tables. Data reaches a page only through textContent
// and attributes, never as HTML.
const ts = (() => {
  const byId = (id) => document.getElementById(id);
  const percent = (value, digits = 1) => (value == null ? "–" : `${(100 * value).toFixed(digits)}%`);
  const svg = (tag, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text != null) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const html = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text != null) node.textContent = text;
    return node;
  };

  // --- tooltip: the same text on hover and on keyboard focus
  const tip = byId("tip");
  const showTip = (node, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const at = node.getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    tip.style.left = `${scrollX + Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${scrollY + (at.top > tip.offsetHeight + 16 ? at.top - tip.offsetHeight - 10 : at.bottom + 10)}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // --- charts
  const ticks = (low, high, count) => {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(value);
    return found;
  };
  const tidy = (value) => String(Math.round(value * 1000) / 1000);

  // Shapes as well as colours tell the arms apart.
  const shapes = [
    (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (r) => `M0,${-r * 1.35}L${r * 1.35},0L0,${r * 1.35}L${-r * 1.35},0z`,
    (r) => `M0,${-r * 1.25}L${r * 1.2},${r}H${-r * 1.2}z`,
    (r) => `M0,${r * 1.25}L${r * 1.2},${-r}H${-r * 1.2}z`,
    (r) => `M${-r * 0.4},${-r * 1.2}h${r * 0.8}v${r * 0.8}h${r * 0.8}v${r * 0.8}h${-r * 0.8}v${r * 0.8}h${-r * 0.8}v${-r * 0.8}h${-r * 0.8}v${-r * 0.8}h${r * 0.8}z`,
    (r) => `M0,${-r * 1.3}L${r * 1.25},${-r * 0.3}L${r * 0.8},${r * 1.1}H${-r * 0.8}L${-r * 1.25},${-r * 0.3}z`,
    (r) => `M${-r * 1.4},${-r * 0.6}h${r * 2.8}v${r * 1.2}h${-r * 2.8}z`,
  ];

  // The nearest point within a finger's width speaks, so that small marks need no steady hand.
  const followPointer = (chart) => {
    let last = null;
    chart.root.addEventListener("pointermove", (event) => {
      const box = chart.root.getBoundingClientRect(), scale = chart.width / box.width;
      const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = null, least = 26;
      for (const point of chart.points) {
        const far = Math.hypot(point.x - at[0], point.y - at[1]);
        if (far < least) [best, least] = [point, far];
      }
      if (best === last) return;
      last = best;
      if (best) showTip(best.dot, best.text); else hideTip();
    });
    chart.root.addEventListener("pointerleave", () => { last = null; hideTip(); });
  };

  const frame = (box, shape, xs, ys, xLabel, yLabel, xName, yName) => {
    box.replaceChildren();
    const width = Math.max(280, box.clientWidth), height = Math.max(300, Math.min(410, width * shape));
    const edge = { left: 60, right: 14, top: 10, bottom: 46 };
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group" }, box);
    const x = (value) => edge.left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - edge.left - edge.right);
    const y = (value) => height - edge.bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - edge.top - edge.bottom);
    for (const value of ticks(ys[0], ys[1], 6)) {
      svg("line", { class: "axis", x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }, root);
      svg("text", { x: edge.left - 8, y: y(value) + 4, "text-anchor": "end" }, root, yName(value));
    }
    for (const value of ticks(xs[0], xs[1], Math.round(width / 65))) {
      svg("line", { class: "axis", x1: x(value), x2: x(value), y1: height - edge.bottom, y2: height - edge.bottom + 5 }, root);
      svg("text", { x: x(value), y: height - edge.bottom + 20, "text-anchor": "middle" }, root, xName(value));
    }
    svg("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, root, xLabel);
    svg("text", { transform: `translate(12 ${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, root, yLabel);
    const chart = { root, x, y, width, points: [] };
    followPointer(chart);
    return chart;
  };

  // One line of points {x, y, low, high, text}; `style`: {colour, shape, lead: drawn thicker, ring: a hollow mark}.
  const series = (chart, { colour, shape, lead, ring }, points) => {
    const { root, x, y } = chart;
    const stroke = `stroke:${colour}`;
    const path = points.map((p, i) => `${i ? "L" : "M"}${x(p.x)},${y(p.y)}`).join("");
    svg("path", { class: lead ? "series lead-series" : "series", d: path, style: stroke }, root);
    for (const p of points) {
      if (p.low != null) svg("line", { x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high), style: stroke, "stroke-width": 1.4, opacity: 0.55 }, root);
      const dot = svg("path", {
        class: ring ? "dot ring" : "dot", d: ring ? shapes[0](9) : shapes[shape % shapes.length](5), transform: `translate(${x(p.x)} ${y(p.y)})`,
        style: ring ? stroke : `fill:${colour}`, tabindex: 0, role: "img", "aria-label": p.text.replaceAll("\n", ", "),
      }, root);
      dot.addEventListener("focus", () => showTip(dot, p.text));
      dot.addEventListener("blur", hideTip);
      chart.points.push({ x: x(p.x), y: y(p.y), dot, text: p.text });
    }
  };

  const describe = (arm) =>
    `${arm.label}\n${percent(arm.accuracy)} right (${percent(arm.accuracy_low)} – ${percent(arm.accuracy_high)})\n` +
    `${arm.cot_tokens_mean.toFixed(1)} CoT tokens (median ${arm.cot_tokens_median == null ? "–" : Math.round(arm.cot_tokens_median)})` +
    (arm.achieved_ratio == null ? "" : `\nachieved ratio ${arm.achieved_ratio.toFixed(3)}`);

  // Accuracy against tokens. `lines`: [{arms, style}], drawn in order, the last one on top.
  const drawCurve = (box, lines) => {
    const known = lines.map((line) => ({ ...line, arms: line.arms.filter((arm) => arm.accuracy != null && arm.cot_tokens_mean != null) }));
    const arms = known.flatMap((line) => line.arms);
    if (!arms.length) return box.replaceChildren(html("p", "note", "Choose an arm above."));
    const tokens = arms.map((arm) => arm.cot_tokens_mean);
    const span = Math.max(...tokens) - Math.min(...tokens) || 10;
    const low = Math.min(...arms.map((arm) => arm.accuracy_low ?? arm.accuracy)), high = Math.max(...arms.map((arm) => arm.accuracy_high ?? arm.accuracy));
    const pad = Math.max(0.005, (high - low) * 0.06);
    const chart = frame(
      box, 0.72, [Math.max(0, Math.min(...tokens) - span * 0.06), Math.max(...tokens) + span * 0.06],
      [Math.max(0, low - pad), Math.min(1, high + pad)], "mean CoT tokens", "accuracy",
      (value) => tidy(value), (value) => `${tidy(100 * value)}%`,
    );
    for (const line of known) {
      const mine = [...line.arms].sort((a, b) => (a.ratio ?? 1) - (b.ratio ?? 1));
      series(chart, line.style, mine.map((arm) => ({
        x: arm.cot_tokens_mean, y: arm.accuracy, low: arm.accuracy_low, high: arm.accuracy_high, text: describe(arm),
      })));
    }
  };

  // How an arm is drawn: what it is decides, never what it is called.
  const styleOf = (arm, colour, shape) => ({ colour, shape, lead: arm?.is_main, ring: arm?.role === "original" });

  // Requested against achieved ratio; `bars(arm)` gives the ends of the vertical bar, or nulls.
  const drawRatio = (box, lines, bars) => {
    const known = lines.map((line) => ({ ...line, arms: line.arms.filter((arm) => arm.ratio != null && arm.achieved_ratio != null) }));
    const arms = known.flatMap((line) => line.arms);
    if (!arms.length) return box.replaceChildren(html("p", "note", "No chosen arm takes a ratio."));
    const seen = arms.flatMap((arm) => [arm.ratio, arm.achieved_ratio, ...bars(arm)]).filter((value) => value != null);
    const low = Math.max(0, Math.min(...seen) - 0.05), top = Math.max(1, ...seen) + 0.03;
    const asked = arms.map((arm) => arm.ratio);
    const xs = [Math.min(...asked) - 0.04, Math.max(...asked) + 0.03];
    const chart = frame(box, 1.1, xs, [low, top], "requested ratio γ", "achieved ratio", tidy, tidy);
    const from = Math.max(xs[0], low), to = Math.min(xs[1], top);
    svg("path", { class: "ideal", d: `M${chart.x(from)},${chart.y(from)}L${chart.x(to)},${chart.y(to)}` }, chart.root);
    for (const line of known) {
      const mine = [...line.arms].sort((a, b) => a.ratio - b.ratio);
      series(chart, line.style, mine.map((arm) => ({
        x: arm.ratio, y: arm.achieved_ratio, low: bars(arm)[0], high: bars(arm)[1],
        text: `${arm.label}\nasked ${arm.ratio}, used ${arm.achieved_ratio.toFixed(3)}`,
      })));
    }
  };

  const whenResized = (draw) => {
    let pending = 0, drawnAt = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === drawnAt) return;  // a phone's address bar changes the height only
      drawnAt = innerWidth;
      cancelAnimationFrame(pending);
      pending = requestAnimationFrame(draw);
    });
  };

  // Sorting: numbers by size, words by alphabet, missing values last either way
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.v;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [u, v] = [value(a), value(b)];
        if (u === "" || v === "") return (u === "") - (v === "");
        return sign * (isNaN(u) || isNaN(v) ? u.localeCompare(v) : u - v);
      });
      table.tBodies[0].append(...rows);
    }));
  }

  return { byId, html, percent, hideTip, styleOf, drawCurve, drawRatio, whenResized };
})();
