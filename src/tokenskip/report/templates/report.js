// The report: both charts, samples at every ratio, the problem browser. `ts` is charts.js.
(() => {
  const { byId, html } = ts;
  const data = JSON.parse(byId("data").textContent);
  const names = [...new Set(data.arms.map((arm) => arm.arm))];
  // Maps, not objects: a word of a chain may be "constructor", which every object answers to.
  const firstOf = new Map([...data.arms].reverse().map((arm) => [arm.arm, arm]));
  const wordLevels = new Map(Object.entries(data.words));
  for (const problem of data.problems) problem.arms = new Map(Object.entries(problem.arms));
  // Drawn last is on top: the main arm above the controls, the original's ring above all.
  const height = ({ is_main, role }) => (role === "original" ? 2 : is_main ? 1 : 0);
  const inOrder = [...names].sort((a, b) => height(firstOf.get(a)) - height(firstOf.get(b)));

  const draw = () => {
    ts.hideTip();
    const chosen = new Set([...byId("legend").querySelectorAll("input:checked")].map((box) => box.value));
    const lines = inOrder.filter((name) => chosen.has(name)).map((name) => ({
      arms: data.arms.filter((arm) => arm.arm === name),
      style: ts.styleOf(firstOf.get(name), `var(--arm-${names.indexOf(name)})`, names.indexOf(name)),
    }));
    ts.drawCurve(byId("curve"), lines);
    const spread = (arm) => (arm.is_main ? [arm.achieved_ratio_problem_p10, arm.achieved_ratio_problem_p90] : [null, null]);
    ts.drawRatio(byId("ratio"), lines, spread);
  };
  byId("legend").addEventListener("change", draw);
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => {
      const few = new Set(names.filter((name) => height(firstOf.get(name)) > 0));
      for (const box of byId("legend").querySelectorAll("input")) box.checked = button.dataset.choose === "all" || few.has(box.value);
      draw();
    });
  }
  ts.whenResized(draw);
  draw();

  byId("columns").addEventListener("click", () => {
    const all = byId("arms").classList.toggle("all");
    byId("columns").setAttribute("aria-pressed", all);
    byId("columns").textContent = all ? "Fewer columns" : "All columns";
  });

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
  const PAGE = 20;
  const labels = [...new Set(data.problems.flatMap((problem) => [...problem.arms.keys()]))];
  const armOf = new Map(data.arms.map((arm) => [arm.label, arm]));
  const headline = labels.includes(data.headline) ? data.headline : labels[labels.length - 1];
  const original = labels.find((label) => armOf.get(label)?.role === "original") ?? labels[0];
  for (const [id, preferred] of [["left", original], ["right", headline]]) {
    for (const label of labels) byId(id).append(new Option(label, label, false, label === preferred));
  }
  const word = (out) => (out == null ? "–" : out.correct ? "right" : out.correct === null ? "ungraded" : "wrong");
  const kind = (a, b) => (a?.correct ? (b?.correct ? "both" : "lost") : b?.correct ? "gained" : "none");

  // The longest common subsequence of two word lists: [flags of a, flags of b], true where a word is in both.
  const common = (a, b) => {
    const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        table[i * width + j] = a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    const inA = a.map(() => false), inB = b.map(() => false);
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { inA[i++] = true; inB[j++] = true; }
      else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
      else j++;
    }
    return [inA, inB];
  };
  const words = (text) => text.match(/\s*\S+/g) ?? [];
  // As `word_importance.word_key` spells it.
  const key = (text) => text.trim().toLowerCase().replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, "").replace(/\d+/g, "0");

  // Texts as spans: words the other one has too are marked, the deeper the more important; the rest is struck through
  // in the longer chain, and underlined (written anew) in the shorter one.
  const marked = (a, b) => {
    const [left, right] = [words(a), words(b)];
    if (left.length * right.length > 4e6) return [[html("span", "", a)], [html("span", "", b)]];
    const flags = common(left.map((piece) => piece.trim()), right.map((piece) => piece.trim()));
    return [left, right].map((pieces, side) => pieces.flatMap((whole, i) => {
      const breaks = /^\s*\n[^\S\n]*/.exec(whole)?.[0] ?? "", piece = whole.slice(breaks.length);
      const level = wordLevels.get(key(piece));
      const span = html("span", flags[side][i] ? `k i${level ?? 2}` : side ? "new" : "s", piece);
      if (level != null) span.title = ["least important fifth", "less important", "of middling importance", "more important", "most important fifth"][level];
      return [breaks, span];
    }));
  };
  const output = (label, out, pieces) => {
    const article = html("article");
    const title = html("h3", "", `${label} `);
    if (out) {
      title.append(html("small", "", `${out.n_cot_tokens} CoT tokens `), html("span", out.correct ? "ok" : "bad", `${out.correct ? "✓" : out.correct === null ? "?" : "✗"} ${word(out)}`));
    }
    const text = html("p", "chain", out ? null : "not evaluated");
    text.append(...pieces);
    article.append(title, text);
    return article;
  };
  const entry = (problem, left, right) => {
    const [a, b] = [problem.arms.get(left), problem.arms.get(right)];
    const details = html("details", "problem");
    const summary = html("summary");
    const worse = kind(a, b) === "lost" || kind(a, b) === "none";
    summary.append(html("span", `badge ${worse ? "bad" : "ok"}`, `${word(a)} → ${word(b)}`), html("span", "ask", problem.question));
    details.append(summary);
    details.addEventListener("toggle", () => {  // built when first opened: 400 outputs at once would be slow
      if (details.childElementCount > 1) return;
      const outs = html("div", "outs");
      const [one, other] = a && b && left !== right ? marked(a.output, b.output) : [a, b].map((out) => (out ? [html("span", "", out.output)] : []));
      outs.append(output(left, a, one), output(right, b, other));
      const level = problem.level == null ? "" : `, level ${problem.level}`;
      details.append(html("p", "note", `Problem ${problem.id}. Gold answer: ${problem.gold}${level}`), outs);
    });
    return details;
  };
  let found = [], shown = 0;
  const more = () => {
    const [left, right] = [byId("left").value, byId("right").value];
    const next = found.slice(shown, shown + PAGE).map((problem) => entry(problem, left, right));
    byId("problems").append(...next);
    shown += next.length;
    byId("more").hidden = shown >= found.length;
  };
  const browse = () => {
    const left = byId("left").value, right = byId("right").value, flip = byId("flip").value;
    const wanted = byId("search").value.trim().toLowerCase();
    const has = (problem) => [problem.id, problem.question, problem.arms.get(left)?.output, problem.arms.get(right)?.output]
      .some((text) => text?.toLowerCase().includes(wanted));
    found = data.problems.filter((problem) =>
      (flip === "all" || kind(problem.arms.get(left), problem.arms.get(right)) === flip) && (!wanted || has(problem)));
    byId("found").textContent = `${found.length} of ${data.problems.length} problems`;
    byId("problems").replaceChildren();
    shown = 0;
    more();
  };
  for (const id of ["left", "right", "flip"]) byId(id).addEventListener("change", browse);
  byId("search").addEventListener("input", browse);
  byId("more").addEventListener("click", () => {
    const first = byId("problems").childElementCount;
    more();
    byId("problems").children[first]?.querySelector("summary").focus();  // the keyboard continues where it was
  });
  browse();
})();
