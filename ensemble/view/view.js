(function () {
  "use strict";
  const POLL = 2000, SVG = "http://www.w3.org/2000/svg";
  const PANELS = [
    { title: "loss", keys: ["loss", "held_out_log_loss"], height: 110, zero: true, show: (value) => value.toPrecision(3) },
    { title: "held-out accuracy, %", keys: ["held_out_accuracy"], height: 76, show: (value) => (100 * value).toFixed(1) },
    { title: "learning rate", keys: ["lr"], height: 46, zero: true, show: (value) => value.toExponential(1) },
  ];
  const WIDTH = 320, LEFT = 38, RIGHT = 6, GAP = 18;
  const charts = new Map(), tags = {};
  let finished = "", lastAnswer = Date.now();

  const $ = (id) => document.getElementById(id);
  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }
  function shape(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  // A name that may break after its separators.
  const name = (text) => text.split(/(?<=[_.-])/).flatMap((part) => [part, document.createElement("wbr")]);
  const plural = (count, word, many) => `${count.toLocaleString("en")} ${count === 1 ? word : many || word + "s"}`;
  function duration(seconds) {
    const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  }
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store", headers: tags[path] ? { "If-None-Match": tags[path] } : {} });
    if (answer.status === 304) return null;
    if (!answer.ok) throw new Error(await answer.text());
    tags[path] = answer.headers.get("ETag");
    return answer.json();
  }

  // --- progress

  function statusLine(state) {
    const { all, done, training, failed } = state.jobs;
    const parts = [`${done} of ${plural(all, "fold")} done`];
    if (training) parts.push(`${training} in training`);
    if (failed) parts.push(`${failed} failed`);
    if (state.seconds_left !== null) parts.push(`about ${duration(state.seconds_left)} left`);
    else if (training) parts.push("time left is known after the first epoch");
    else if (done < all) {
      parts.push(state.members.some((member) => member.preparing) ? "a member is being prepared" : "nobody trains it now");
    }
    return parts.join(" · ");
  }

  function cell(member, fold) {
    const epochs = fold.log.length, last = fold.log[epochs - 1] || {};
    const made = element("td", { className: fold.state });
    if (fold.state === "done") made.append(fold.accuracy === null ? "done" : percent(fold.accuracy));
    else if (fold.state === "training" || fold.state === "stopped") {
      made.append(`${fold.state === "training" ? "epoch" : "stopped after"} ${epochs}/${member.epochs}`);
      const bar = element("progress", { max: member.epochs, value: epochs });
      bar.setAttribute("aria-label", `${member.name} fold ${fold.fold}: epochs done`);
      made.append(bar);
      if (last.images_per_second) made.append(element("span", { className: "ci" }, `${last.images_per_second.toFixed(0)} images/s`));
    } else made.append(fold.state);
    return made;
  }

  function drawProgress(state) {
    document.title = `${state.jobs.done}/${state.jobs.all} ${state.run} – ens view`;
    $("run").replaceChildren(...name(state.run));
    $("byline").textContent = [
      plural(state.images, "image"), plural(state.classes, "class", "classes"), plural(state.members.length, "member"),
      plural(state.folds, "fold"),
    ].join(" · ");
    $("status").textContent = statusLine(state);
    const epochs = (member) => member.folds.reduce((sum, fold) => sum + (fold.state === "done" ? member.epochs : fold.log.length), 0);
    $("all").max = state.members.reduce((sum, member) => sum + member.epochs * member.folds.length, 0) || 1;
    $("all").value = state.members.reduce((sum, member) => sum + epochs(member), 0);
    const head = element("tr", {}, element("th", { scope: "col" }, "Member"));
    for (let fold = 0; fold < state.folds; fold += 1) head.append(element("th", { scope: "col", className: "text" }, `Fold ${fold}`));
    head.append(element("th", { scope: "col", className: "text" }, "Accuracy, held out"));
    const rows = state.members.map((member) => {
      const score = member.accuracy;
      const text = score === null ? "–" : percent(score.mean) + (score.std === null ? "" : ` ± ${(100 * score.std).toFixed(1)}`);
      const last = element("td", {}, text);
      if (score !== null) last.append(element("span", { className: "ci" }, plural(score.folds, "fold")));
      const first = element("th", { scope: "row" }, ...name(member.name));
      if (member.preparing) first.append(element("span", { className: "ci" }, " is being prepared"));
      return element("tr", {}, first, ...member.folds.map((fold) => cell(member, fold)), last);
    });
    $("folds").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  // --- curves

  function newChart(member) {
    const svg = shape("svg", { tabindex: 0, role: "slider", "aria-orientation": "horizontal" });
    const readout = element("p", { className: "note readout" });
    const chart = { svg, readout, at: null, box: element("div", { className: "live" }, element("h3", {}, ...name(member.name)), svg, readout) };
    const move = (epoch) => { chart.at = Math.max(1, Math.min(chart.last, epoch)); point(chart); };
    const follow = (event) => {
      const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * WIDTH;
      move(Math.round(1 + ((x - LEFT) / (WIDTH - LEFT - RIGHT)) * Math.max(1, chart.epochs - 1)));
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", () => { chart.at = null; point(chart); });
    svg.addEventListener("keydown", (event) => {
      const now = chart.at === null ? chart.last : chart.at;
      const steps = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, Home: 1, End: chart.last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      move(steps[event.key]);
    });
    $("charts").append(chart.box);
    return chart;
  }

  const across = (chart, epoch) => LEFT + ((WIDTH - LEFT - RIGHT) * (epoch - 1)) / Math.max(1, chart.epochs - 1);

  function curve(points, classes, sparse) {
    if (sparse || points.length < 2) return points.map(([x, y]) => shape("circle", { class: classes, cx: x, cy: y, r: 2 }));
    return [shape("path", { class: classes, d: "M" + points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L") })];
  }

  function panel(chart, { title, keys, zero, height, show }, top, logs) {
    const values = logs.flatMap((log) => log.flatMap((line) => keys.map((key) => line[key]))).filter((value) => value != null);
    const low = zero ? 0 : Math.min(...values), high = Math.max(...values) * (zero ? 1.04 : 1) || 1;
    const down = (value) => top + height - (height * (value - low)) / (high - low || 1);
    const parts = [
      shape("text", { x: LEFT, y: top - 5 }, title),
      shape("line", { class: "frame", x1: LEFT, x2: WIDTH - RIGHT, y1: top, y2: top }),
      shape("line", { class: "frame", x1: LEFT, x2: WIDTH - RIGHT, y1: top + height, y2: top + height }),
      shape("text", { x: LEFT - 4, y: top + 4, "text-anchor": "end" }, show(high)),
      shape("text", { x: LEFT - 4, y: top + height, "text-anchor": "end" }, zero ? "0" : show(low)),
    ];
    for (const key of keys) {
      const sparse = key.startsWith("held_out"), by = new Map();
      for (const log of logs) {
        const seen = log.filter((line) => line[key] != null);
        for (const line of seen) by.set(line.epoch, [...(by.get(line.epoch) || []), line[key]]);
        const points = seen.map((line) => [across(chart, line.epoch), down(line[key])]);
        parts.push(...curve(points, key, false), ...(sparse && points.length > 1 ? curve(points, key, true) : []));
      }
      if (logs.length < 2) continue;
      const whole = [...by].filter(([, all]) => all.length === logs.length).sort((a, b) => a[0] - b[0]);
      const points = whole.map(([epoch, all]) => [across(chart, epoch), down(mean(all))]);
      if (points.length) parts.push(...curve(points, `${key} mean`, false), ...(sparse ? curve(points, `${key} mean`, true) : []));
    }
    return parts;
  }

  function drawChart(member) {
    const logs = member.folds.map((fold) => fold.log).filter((log) => log.some((line) => line.loss != null));
    if (!logs.length) return false;
    if (!charts.has(member.name)) charts.set(member.name, newChart(member));
    const chart = charts.get(member.name), parts = [];
    Object.assign(chart, { member: member.name, logs, epochs: member.epochs, last: Math.max(...logs.map((log) => log[log.length - 1].epoch)) });
    let top = GAP;
    for (const each of PANELS) {
      if (!logs.some((log) => log.some((line) => each.keys.some((key) => line[key] != null)))) continue;
      parts.push(...panel(chart, each, top, logs));
      top += each.height + GAP + 6;
    }
    chart.height = top - GAP + 4;
    for (const epoch of new Set([1, Math.ceil((1 + chart.epochs) / 2), chart.epochs])) {
      const anchor = epoch === 1 ? "start" : epoch === chart.epochs ? "end" : "middle";
      parts.push(shape("text", { x: across(chart, epoch), y: chart.height, "text-anchor": anchor }, epoch === 1 ? "epoch 1" : epoch));
    }
    chart.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${chart.height + 4}`);
    chart.svg.replaceChildren(...parts);
    point(chart);
    return true;
  }

  function point(chart) {
    const epoch = chart.at === null ? chart.last : chart.at;
    const lines = chart.logs.flatMap((log) => log.filter((line) => line.epoch === epoch));
    const words = PANELS.flatMap(({ keys, show }) => keys.flatMap((key) => {
      const values = lines.map((line) => line[key]).filter((value) => value != null);
      const what = { loss: "training loss", lr: "learning rate", held_out_log_loss: "held-out log loss", held_out_accuracy: "accuracy" }[key];
      return values.length ? [`${what} ${show(mean(values))}${key === "held_out_accuracy" ? " %" : ""}`] : [];
    }));
    const text = `Epoch ${epoch} of ${chart.epochs}, ${lines.length > 1 ? `mean of ${lines.length} folds` : "one fold"}: ${words.join(", ") || "no value"}`;
    chart.readout.textContent = text;
    for (const [key, value] of [["valuemin", 1], ["valuemax", chart.last], ["valuenow", epoch], ["valuetext", text], ["label", `${chart.member}: curves by epoch`]]) {
      chart.svg.setAttribute(`aria-${key}`, value);
    }
    for (const old of chart.svg.querySelectorAll(".cursor")) old.remove();
    if (chart.at === null) return;
    const x = across(chart, epoch);
    chart.svg.append(shape("line", { class: "cursor", x1: x, x2: x, y1: GAP - 2, y2: chart.height - GAP }));
  }

  // --- images and messages

  function picture(image) {
    const frame = image.uri
      ? element("img", { src: image.uri, width: image.width, height: image.height, alt: `${image.id}, labelled ${image.label}` })
      : element("p", {}, image.problem);
    const caption = element("figcaption", {}, element("b", {}, image.label));
    if (image.predicted !== image.label) caption.append(", predicted ", element("b", {}, image.predicted));
    caption.append(` ${percent(image.probability)}`, element("br"), image.id);
    return element("li", {}, element("figure", {}, element("div", { className: "frame" }, frame), caption));
  }

  function drawImages(found) {
    $("images-note").textContent = found.error || found.note;
    $("groups").replaceChildren(...(found.groups || []).flatMap(({ title, images }) => [
      element("h3", {}, title),
      images.length ? element("ul", { className: "pictures" }, ...images.map(picture)) : element("p", { className: "missing" }, "None so far."),
    ]));
  }

  function drawMessages(messages) {
    const time = (text) => new Date(text).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
    $("lines").replaceChildren(...[...messages].reverse().map(({ time: at, text }) =>
      element("li", {}, element("time", { dateTime: at }, time(at)), element("span", {}, text))));
  }

  async function look() {
    try {
      if (!document.hidden) {
        const state = await ask("/state.json");
        lastAnswer = Date.now();
        $("status").classList.remove("lost");
        if (state && state.error) $("status").textContent = state.error;
        else if (state) {
          drawProgress(state);
          const drawn = state.members.filter(drawChart).length;
          $("no-curves").hidden = drawn > 0;
          drawMessages(state.messages);
          const now = JSON.stringify(state.members.map((member) => member.folds.map((fold) => fold.state === "done")));
          if (now !== finished) {
            const found = await ask("/images.json");
            if (found) drawImages(found);
            finished = now;
          }
        }
      }
    } catch (error) {
      delete tags["/state.json"];
      $("status").classList.add("lost");
      $("status").textContent = `ens view has not answered for ${duration((Date.now() - lastAnswer) / 1000)}: was it closed?`;
    }
    setTimeout(look, POLL);
  }
  look();
})();
