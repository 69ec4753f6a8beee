"use strict";
// Draws the two charts, sorts the table, switches samples between ratios, and filters problems. Data reaches the page
// only through textContent and attributes, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const names = [...new Set(data.arms.map((arm) => arm.arm))];
  // Drawn last is on top: tokenskip above the controls, the original's ring above all.
  const height = (name) => ["tokenskip", "original"].indexOf(name);
  const inOrder = [...names].sort((a, b) => height(a) - height(b));
  const colour = (name) => `var(--arm-${names.indexOf(name)})`;
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
    return { root, x, y };
  };

  const series = ({ root, x, y }, name, points) => {
    const c = colour(name);
    const style = `stroke:${c}`;
    const ring = name === "original";  // around the spot where tokenskip at γ = 1 lies as well
    const path = points.map((p, i) => `${i ? "L" : "M"}${x(p.x)},${y(p.y)}`).join("");
    svg("path", { class: name === "tokenskip" ? "series lead-series" : "series", d: path, style }, root);
    for (const p of points) {
      if (p.low != null) svg("line", { x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high), style, "stroke-width": 1.4, opacity: 0.55 }, root);
      const dot = svg("path", {
        class: ring ? "dot ring" : "dot", d: ring ? shapes[0](9) : shapes[names.indexOf(name) % shapes.length](5), transform: `translate(${x(p.x)} ${y(p.y)})`,
        style: ring ? style : `fill:${c}`, tabindex: 0, role: "img", "aria-label": p.text.replaceAll("\n", ", "),
      }, root);
      for (const event of ["mouseenter", "focus"]) dot.addEventListener(event, () => showTip(dot, p.text));
      for (const event of ["mouseleave", "blur"]) dot.addEventListener(event, hideTip);
    }
  };

  const describe = (arm) =>
    `${arm.label}\n${percent(arm.accuracy)} right (${percent(arm.accuracy_low)} – ${percent(arm.accuracy_high)})\n` +
    `${arm.cot_tokens_mean.toFixed(1)} CoT tokens (median ${Math.round(arm.cot_tokens_median)})` +
    (arm.achieved_ratio == null ? "" : `\nachieved ratio ${arm.achieved_ratio.toFixed(3)}`);

  const shown = () => new Set([...byId("legend").querySelectorAll("input:checked")].map((box) => box.value));

  const drawCurve = () => {
    const chosen = shown();
    const arms = data.arms.filter((arm) => chosen.has(arm.arm) && arm.accuracy != null && arm.cot_tokens_mean != null);
    if (!arms.length) return byId("curve").replaceChildren(html("p", "note", "Choose an arm above."));
    const tokens = arms.map((arm) => arm.cot_tokens_mean);
    const span = Math.max(...tokens) - Math.min(...tokens) || 10;
    const low = Math.min(...arms.map((arm) => arm.accuracy_low)), high = Math.max(...arms.map((arm) => arm.accuracy_high));
    const pad = Math.max(0.005, (high - low) * 0.06);
    const chart = frame(
      byId("curve"), 0.72, [Math.max(0, Math.min(...tokens) - span * 0.06), Math.max(...tokens) + span * 0.06],
      [Math.max(0, low - pad), Math.min(1, high + pad)], "mean CoT tokens", "accuracy",
      (value) => tidy(value), (value) => `${tidy(100 * value)}%`,
    );
    for (const name of inOrder) {
      const mine = arms.filter((arm) => arm.arm === name).sort((a, b) => (a.ratio ?? 1) - (b.ratio ?? 1));
      series(chart, name, mine.map((arm) => ({
        x: arm.cot_tokens_mean, y: arm.accuracy, low: arm.accuracy_low, high: arm.accuracy_high, text: describe(arm),
      })));
    }
  };

  const drawRatio = () => {
    const chosen = shown();
    const arms = data.arms.filter((arm) => arm.dial && arm.achieved_ratio != null && chosen.has(arm.arm));
    if (!arms.length) return byId("ratio").replaceChildren(html("p", "note", "No chosen arm takes a ratio."));
    const bars = (arm) => (arm.arm === "tokenskip" ? [arm.achieved_ratio_problem_p10, arm.achieved_ratio_problem_p90] : [null, null]);
    const seen = arms.flatMap((arm) => [arm.ratio, arm.achieved_ratio, ...bars(arm)]).filter((value) => value != null);
    const low = Math.max(0, Math.min(...seen) - 0.05), top = Math.max(1, ...seen) + 0.03;
    const asked = arms.map((arm) => arm.ratio);
    const xs = [Math.min(...asked) - 0.04, Math.max(...asked) + 0.03];
    const chart = frame(byId("ratio"), 1.1, xs, [low, top], "requested ratio γ", "achieved ratio", tidy, tidy);
    const from = Math.max(xs[0], low), to = Math.min(xs[1], top);
    svg("path", { class: "ideal", d: `M${chart.x(from)},${chart.y(from)}L${chart.x(to)},${chart.y(to)}` }, chart.root);
    for (const name of inOrder) {
      const mine = arms.filter((arm) => arm.arm === name).sort((a, b) => a.ratio - b.ratio);
      series(chart, name, mine.map((arm) => ({
        x: arm.ratio, y: arm.achieved_ratio, low: bars(arm)[0], high: bars(arm)[1],
        text: `${arm.label}\nasked ${arm.ratio}, used ${arm.achieved_ratio.toFixed(3)}`,
      })));
    }
  };

  const draw = () => { hideTip(); drawCurve(); drawRatio(); };
  byId("legend").addEventListener("change", draw);
  let pending = 0;
  let drawnAt = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === drawnAt) return;  // a phone's address bar changes the height only
    drawnAt = innerWidth;
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(draw);
  });
  draw();

  // --- sorting: numbers by size, words by alphabet, missing values last either way
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

  // --- samples: bit k of data-k says whether the k-th ratio keeps the piece
  for (const sample of document.querySelectorAll(".sample")) {
    sample.addEventListener("change", (event) => {
      for (const piece of sample.querySelectorAll("[data-k]")) {
        const kept = (piece.dataset.k >> event.target.value) & 1;
        piece.classList.toggle("k", kept);
        piece.classList.toggle("s", !kept);
      }
    });
  }

  // --- problem browser
  if (!byId("problems")) return;
  const labels = [...new Set(data.problems.flatMap((problem) => Object.keys(problem.arms)))];
  const distance = (label) => label.startsWith("tokenskip ") ? Math.abs(parseFloat(label.slice(10)) - 0.6) : 99;
  const nearest = labels.reduce((best, label) => (distance(label) < distance(best) ? label : best), labels[labels.length - 1]);
  for (const [id, preferred] of [["left", labels.includes("original") ? "original" : labels[0]], ["right", nearest]]) {
    for (const label of labels) byId(id).append(new Option(label, label, false, label === preferred));
  }
  const word = (out) => (out == null ? "–" : out.correct ? "right" : out.correct === null ? "ungraded" : "wrong");
  const kind = (a, b) => (a?.correct ? (b?.correct ? "both" : "lost") : b?.correct ? "gained" : "none");

  const output = (label, out) => {
    const article = html("article");
    const title = html("h3", "", `${label} `);
    if (out) {
      title.append(html("small", "", `${out.n_cot_tokens} CoT tokens `), html("span", out.correct ? "ok" : "bad", `${out.correct ? "✓" : "✗"} ${word(out)}`));
    }
    article.append(title, html("pre", "", out ? out.output : "not evaluated"));
    return article;
  };
  const entry = (problem, left, right) => {
    const [a, b] = [problem.arms[left], problem.arms[right]];
    const details = html("details", "problem");
    const summary = html("summary");
    const worse = kind(a, b) === "lost" || kind(a, b) === "none";
    summary.append(html("span", `badge ${worse ? "bad" : "ok"}`, `${word(a)} → ${word(b)}`), html("span", "", problem.question));
    details.append(summary);
    details.addEventListener("toggle", () => {  // built when first opened: 400 outputs at once would be slow
      if (details.childElementCount > 1) return;
      const outs = html("div", "outs");
      outs.append(output(left, a), output(right, b));
      details.append(html("p", "note", `Gold answer: ${problem.gold}${problem.level == null ? "" : `, level ${problem.level}`}`), outs);
    });
    return details;
  };
  const browse = () => {
    const left = byId("left").value, right = byId("right").value, flip = byId("flip").value;
    const wanted = byId("search").value.trim().toLowerCase();
    const has = (problem) => [problem.question, problem.arms[left]?.output, problem.arms[right]?.output]
      .some((text) => text?.toLowerCase().includes(wanted));
    const found = data.problems.filter((problem) =>
      (flip === "all" || kind(problem.arms[left], problem.arms[right]) === flip) && (!wanted || has(problem)));
    byId("found").textContent = `${found.length} of ${data.problems.length} problems`;
    byId("problems").replaceChildren(...found.map((problem) => entry(problem, left, right)));
  };
  for (const id of ["left", "right", "flip"]) byId(id).addEventListener("change", browse);
  byId("search").addEventListener("input", browse);
  browse();
})();
