// The comparison: a colour is a run, a shape an arm. `ts` is charts.js.
(() => {
  const { byId } = ts;
  const runs = JSON.parse(byId("data").textContent);
  const names = [...new Set(runs.flatMap((run) => run.arms.map((arm) => arm.arm)))];
  const chosen = (id) => new Set([...byId(id).querySelectorAll("input:checked")].map((box) => box.value));
  const draw = () => {
    ts.hideTip();
    const [shownRuns, shownArms] = [chosen("runs"), chosen("legend")];
    const lines = runs.flatMap((run, k) => !shownRuns.has(String(k)) ? [] : names.filter((name) => shownArms.has(name)).map((name) => ({
      arms: run.arms.filter((arm) => arm.arm === name),
      style: ts.styleOf(run.arms.find((arm) => arm.arm === name), `var(--run-${k})`, names.indexOf(name)),
    })));
    ts.drawCurve(byId("curve"), lines);
    ts.drawRatio(byId("ratio"), lines, () => [null, null]);
  };
  for (const id of ["runs", "legend"]) byId(id).addEventListener("change", draw);
  ts.whenResized(draw);
  draw();
})();
