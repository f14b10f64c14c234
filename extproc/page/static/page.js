// The page's script: reads the stream of figures and writes them as text, never as HTML.
"use strict";

const RETRY_MS = 3000;
const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
let token = sessionStorage.getItem("token") || "";
let pools = [];
let target = 0;

// ---- writing

function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

// A row is a list of cells: a text, or [text, class]. The first heads its row.
function fill(table, rows, none) {
  const body = $(table).tBodies[0];
  const heads = $(table).tHead.rows[0].cells;
  body.replaceChildren(...rows.map((cells) => {
    const row = make("tr");
    cells.forEach((cell, i) => {
      const [text, name] = Array.isArray(cell) ? cell : [cell];
      const made = row.appendChild(make(i ? "td" : "th", text, name));
      made.dataset.head = heads[i].textContent;
      if (!i) made.scope = "row";
    });
    return row;
  }));
  if (!rows.length) {
    const cell = body.appendChild(make("tr")).appendChild(make("td", none));
    cell.colSpan = heads.length;
  }
}

function texts(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const whole = (n) => Math.round(n).toLocaleString("en");
const rate = (n) => n.toFixed(n < 10 ? 1 : 0);
const percent = (share) => !share ? "0 %" : `${(100 * share).toFixed(share < 0.01 ? 3 : share < 0.1 ? 2 : 1)} %`;
const ms = (s) => (s === null ? "–" : `${(1000 * s).toFixed(2)} ms`);
const named = (counts) =>
  Object.entries(counts).sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${whole(n)}`).join(", ") || "0";
const clock = (at) => new Date(1000 * at).toLocaleTimeString("en-GB");
const total = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);

function lasting(seconds) {
  if (seconds >= 3590) return "the last hour";
  return seconds < 90 ? `the last ${Math.round(seconds)} s` : `the last ${Math.round(seconds / 60)} min`;
}

// ---- the figures of this moment

function showNow(now) {
  [pools, target] = [now.pools, now.target];
  const [configured, ready, restarts] = now.workers;
  texts($("state"), `${now.estimator} estimator · ${ready} of ${configured} process${configured > 1 ? "es" : ""} ready` +
    `${restarts ? `, ${restarts} restarts` : ""} · up ${uptime(now.at - now.started)}`);
  document.querySelectorAll(".span").forEach((each) => texts(each, lasting(now.seconds)));
  $("shadow").hidden = !now.shadow;
  texts($("shadow"), now.shadow ? `Shadow: nothing is moved, all requests go to ${pools.at(-1).name}. ` +
    "What is shown is what would be decided." : "");
  showAlerts(now.alerts);
  showGlance(now);
  const rows = now.pools.map((pool) => [
    pool.name, windowOf(pool), whole(pool.threshold), rate(pool.rate),
    named(pool.reasons), named(pool.misroutes),
    whole(pool.verdicts.over_routed || 0), named(pool.retries),
  ]);
  if (total(now.undecided)) rows.push(["left to Envoy", "–", "–", "–", named(now.undecided), "–", "–", "–"]);
  fill("pools", rows);
  showLoads(now.pools.filter((pool) => pool.load));
  showKept(now.state);
  if (!$("hold").checked) showLatest(now.latest);
}

// The servers may have a smaller window than the settings.
const windowOf = ({ window, stated }) =>
  stated && stated !== window ? `${whole(window)} (settings: ${whole(stated)})` : whole(window);

function showLoads(loaded) {
  $("loads-section").hidden = !loaded.length;
  fill("loads", loaded.map(({ name, load }) => [
    name, [load.state, load.state === "known" ? "good" : load.state === "down" ? "bad" : "warn"],
    `${load.reporting} of ${load.servers}`,
    ...(load.state === "known"
      ? [rate(load.running), rate(load.waiting), percent(load.kv_usage), rate(load.preemptions)]
      : ["–", "–", "–", "–"]),
  ]));
}

// Nothing without a state; of a file only its digest is known.
function showKept(state) {
  $("kept").hidden = state.digest === undefined;
  if (state.connected === undefined) {
    $("kept").replaceChildren(`Kept in a file${state.digest ? `; digest ${state.digest}` : ", not written yet"}.`);
    return;
  }
  const [text, mark] = !state.connected ? ["not connected to the store", "bad"]
    : !state.checkpoint ? ["not compared yet", "warn"]
    : state.agree ? ["all hold the same", "good"] : ["this one holds something else", "bad"];
  const many = state.replicas === 1 ? "1 replica" : `${state.replicas} replicas`;
  $("kept").replaceChildren(`Shared by ${many}: `, make("span", text, mark),
    state.pending ? `; ${whole(state.pending)} observations wait to be shared.` : ".");
}

function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 2) return `${Math.round(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function showAlerts(alerts) {
  const items = alerts.map((alert) => {
    const item = make("li");
    item.append(make("strong", alert.fires ? "fires: " : "holds, not yet for long enough: ", alert.fires ? "bad" : "warn"),
      `${alert.name}. ${alert.summary} (${alert.detail}). See ${alert.runbook}`);
    return item;
  });
  $("alerts").replaceChildren(...(items.length ? items : [make("li", "none", "good")]));
  announce(alerts.filter((alert) => alert.fires).map((alert) => alert.name).join(", "));
}

// A screen reader is told what changes, not every figure every two seconds.
function announce(firing) {
  texts($("live"), firing ? `Alerts fire: ${firing}` : "No alert fires");
}

function showGlance(now) {
  const share = now.judged ? now.misrouted / now.judged : 0;
  // As the alert: three standard deviations above what the target allows, once it allows one.
  const allowed = now.judged * now.target;
  const over = now.target && now.misrouted > Math.max(1, allowed + 3 * Math.sqrt(allowed));
  const figures = [
    ["Requests per second", rate(now.rate), now.unread ? `${whole(now.unread)} without a prompt` : ""],
    ["Misrouted", now.judged ? percent(share) : "–",
      `${whole(now.misrouted)} of ${whole(now.judged)}${now.target ? `; target ${percent(now.target)}` : ""}`,
      now.judged ? (over ? "bad" : "good") : ""],
    ["Over-routed", now.judged ? percent(now.over_routed / now.judged) : "–",
      "a smaller pool would have held them" + (now.reserved
        ? `; ${percent(now.reserved / now.judged)} more used less than the limit that they state` : "")],
    ["Below the largest pool", now.below === null ? "–" : percent(now.below),
      `of the requests ${now.shadow ? "would go there" : "went there"}; what that saves: dualpool plan`],
    ["Answers learnt", whole(now.learnt), ""],
    ["Retried", whole(now.pools.reduce((sum, pool) => sum + total(pool.retries), 0)), "on the largest pool"],
    ["Time of a decision", ms(now.decision_s[0]), `P99 ${ms(now.decision_s[1])}`],
  ];
  $("glance").replaceChildren(...figures.map(([name, value, note, mark]) => {
    const group = make("div");
    const shown = make("dd", value, mark);
    if (note) shown.append(make("small", note));
    group.append(make("dt", name), shown);
    return group;
  }));
}

// ---- decisions

function why(d) {
  const pool = pools.find((each) => each.name === d.pool);
  const before = pools[pools.indexOf(pool) - 1];
  const smaller = before && before.row === pool.row ? before : undefined;
  const sum = `${whole(d.prompt_tokens)} prompt${d.counted_tokens ? " (counted)" : ""} ` +
    `${d.margin_tokens < 0 ? "-" : "+"} ${whole(Math.abs(d.margin_tokens))} margin + ` +
    `${whole(d.output_tokens)} output = ${whole(d.budget_tokens)}`;
  switch (d.reason) {
    case "unreadable": return "the body could not be read";
    case "unlisted": return "no row of pools has this model";
    case "busy": return "the service was late: by the size of the body";
    case "stateful": return "later requests name this answer";
    case "spill": return `${sum}, which fits here; its own pool is saturated`;
    case "sticky": return `${sum}, which fits here, where its conversation is`;
    case "oversize": return `${sum}, above every window`;
    case "threshold": return `${sum}; expected ${whole(d.placed_tokens)}, above the threshold of ${smaller ? smaller.name : d.pool}`;
    case "capacity": return `${sum}, above the window of ${smaller ? smaller.name : d.pool}`;
    default: return `${sum}, within ${d.pool}`;
  }
}

function showLatest(latest) {
  fill("latest", latest.map((d) => [
    clock(d.at), d.pool || "–", d.reason, [why(d), "why"],
    [d.category || d.model || "–", "name"], d.basis || "–",
  ]), "none yet");
}

// ---- what was learnt

function showLearnt(learnt) {
  const shares = (share) => (share === undefined ? "–" : percent(share));
  fill("learnt", learnt.categories.map((row) => [
    [row.name, "name"], whole(row.samples), row.basis || "–", row.bytes_per_token.toFixed(2),
    shares(row.relative_error), shares(row.relative_margin),
  ]), "nothing yet");
  const limits = learnt.limits.map((limit) =>
    `window ${limit.name.replace(/\d+$/, (tokens) => whole(Number(tokens)))}: misroutes forecast ${percent(limit.misroute_forecast)}, target ${percent(limit.target)}`);
  texts($("learnt-more"), [learnt.more ? `and ${whole(learnt.more)} more categories` : "", ...limits].filter(Boolean).join("; "));
}

// ---- the last hour

const plots = new Map();
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function plot(id, times, series, unit) {
  const known = plots.get(id);
  const data = [times, ...series.map((each) => each.values)];
  if (known && known.names === String(series.map((each) => each.name))) {
    known.plot.setData(data);
  } else {
    if (known) known.plot.destroy();
    plots.set(id, { plot: draw(id, data, series), names: String(series.map((each) => each.name)) });
  }
  // uPlot shows one point at the left of a whole day.
  if (times.length === 1) plots.get(id).plot.setScale("x", { min: times[0] - 30, max: times[0] + 30 });
  const last = (values) => values.findLast((value) => value !== null);
  $(`${id}-text`).replaceChildren(...series.map((each, i) => {
    const value = last(each.values);
    const shown = !times.length ? "collecting" : value === undefined ? "–" : `${Number(value.toFixed(3))}${unit}`;
    return make("span", `${each.name} ${shown}`, each.dash ? "key dashed" : `key series-${i % 4}`);
  }));
}

const inkOf = (series, i) => colour(series.dash ? "--bad" : `--series-${i % 4}`);

function draw(id, data, series) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return new uPlot({
    width: $(id).clientWidth, height: 170, legend: { show: false }, cursor: { show: false },
    scales: { y: { range: (_, low, high) => [0, high > 0 ? 1.15 * high : 1] } },
    axes: [{ ...axis, size: 28, space: 70, values: (_, ticks, axis, space, step) => ticks.map((each) => clock(each).slice(0, step < 60 ? 8 : 5)) },
      { ...axis, size: 52 }],
    series: [{}, ...series.map((each, i) => ({
      stroke: inkOf(each, i), width: 2, dash: each.dash,
      // A line needs two points.
      points: { show: (shown, at) => shown.data[at].filter((y) => y !== null).length === 1, size: 7, fill: inkOf(each, i) },
    }))],
  }, data, $(id));
}

let lastHour = null;

function showHour(hour) {
  lastHour = hour;
  const shares = (values) => values.map((share) => (share === null ? null : 100 * share));
  const { times } = hour;
  plot("traffic", times, Object.entries(hour.pools).map(([name, values]) => ({ name, values })), "/s");
  const misrouted = [{ name: "misrouted", values: shares(hour.misrouted) }];
  if (target) misrouted.push({ name: "target", values: times.map(() => 100 * target), dash: [4, 4] });
  plot("misrouted", times, misrouted, " %");
  plot("over", times, [{ name: "over-routed", values: shares(hour.over_routed) }], " %");
}

function redraw() {
  plots.forEach((known) => known.plot.destroy());
  plots.clear();
  if (lastHour) showHour(lastHour);
}

dark.addEventListener("change", redraw);
let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(redraw, 150);
});

// ---- the stream: fetch, because EventSource cannot send the token

const shows = { now: showNow, hour: showHour, learnt: (learnt) => learnt.categories && showLearnt(learnt) };

function take(message) {
  const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(message) || [];
  if (name in shows) shows[name](JSON.parse(data));
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) askForToken();
  return answer;
}

async function watch() {
  const answer = await ask("/page/events");
  if (answer.status === 401) return Infinity;
  if (!answer.ok) throw new Error(answer.status === 503 ? "too many pages are open" : `HTTP ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return 0;
    text += value;
    const messages = text.split("\n\n");
    text = messages.pop();
    messages.forEach(take);
  }
}

async function keepWatching() {
  for (;;) {
    let pause = RETRY_MS;
    try {
      pause = await watch();
    } catch (error) {
      texts($("state"), `no figures: ${error.message}; trying again`);
    }
    if (pause === Infinity) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function askForToken() {
  texts($("state"), token ? "wrong token" : "a token is needed");
  sessionStorage.removeItem("token");
  token = "";
  $("sign-in").hidden = false;
  $("token").focus();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  $("token").value = "";
  $("sign-in").hidden = true;
  keepWatching();
});

// ---- the form

$("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = encodeURIComponent($("path").value);
  try {
    const answer = await ask(`/page/explain?path=${path}`, {
      method: "POST", body: $("body").value, headers: { "content-type": "application/json" },
    });
    if (!answer.ok) throw new Error(answer.status === 413 ? "the body is too large" : (await answer.text()).trim());
    explainWith(await answer.json());
  } catch (error) {
    $("explanation").replaceChildren(make("p", `No decision: ${error.message}`, "bad"));
  }
});

function explainWith(e) {
  const lines = !e.pool || e.unreadable
    ? [`${e.pool ? `Pool ${e.pool}` : "No pool"}: ${why(e)}${e.unreadable ? ` (${e.unreadable})` : ""}.`]
    : [`Pool ${e.pool} (${e.reason}): ${why(e)}.`,
      `Read as ${e.api}${e.form ? `, form ${e.form}` : ""}. Category ${e.category}, ${e.basis}: ${whole(e.text_bytes)} bytes of text at ${e.bytes_per_token.toFixed(2)} bytes per token` +
      `${e.counted_tokens ? `, ${whole(e.counted_tokens)} tokens counted` : ""}` +
      `${e.token_ids ? `, and ${whole(e.token_ids)} token ids` : ""}.`];
  $("explanation").replaceChildren(...lines.map((line) => make("p", line)));
}

keepWatching();
