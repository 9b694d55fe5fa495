/* Reading values off charts: those of all folds at an epoch of a learning curve, from the CSV that the page offers; and
   the curves of a class. */
(function () {
  function make(tag, attributes, ...children) {
    var made = Object.assign(document.createElement(tag), attributes || {});
    made.append(...children);
    return made;
  }
  var link = document.querySelector("[data-curves]");
  var lines = link ? decodeURIComponent(link.href.slice(link.href.indexOf(",") + 1)).trim().split("\n") : [];
  var titles = (lines.shift() || "").split(",");
  var values = lines.map(function (line) {
    var cells = line.split(",");
    return Object.fromEntries(titles.map(function (title, at) { return [title, cells[at]]; }));
  });
  var SHOWN = [["loss", "training loss", 3, 1], ["held_out_log_loss", "held-out log loss", 3, 1], ["held_out_accuracy", "held-out accuracy, %", 1, 100], ["lr", "learning rate", 0, 1]];
  function number(text, digits, factor) {
    if (text === "") { return "–"; }
    return digits ? (factor * text).toFixed(digits) : Number(text).toExponential(1);
  }
  document.querySelectorAll(".plot[data-member]").forEach(function (plot) {
    var rows = values.filter(function (row) { return row.member === plot.dataset.member; });
    var epochs = [...new Set(rows.map(function (row) { return +row.epoch; }))].sort(function (a, b) { return a - b; });
    var folds = [...new Set(rows.map(function (row) { return row.fold; }))], at = epochs.length - 1;
    if (!rows.length) { return; }
    var hair = make("i", { className: "hair", hidden: true }), read = make("div", { className: "read", hidden: true });
    read.setAttribute("role", "status");
    plot.append(hair, read);
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", plot.dataset.member + ": values by epoch, with the arrow keys");
    function show() {
      var head = make("tr", {}, make("th", {}, "fold"), ...folds.map(function (fold) { return make("th", { scope: "col" }, fold); }));
      var body = SHOWN.map(function (shown) {
        var cells = folds.map(function (fold) {
          var row = rows.find(function (one) { return one.fold === fold && +one.epoch === epochs[at]; });
          return make("td", {}, row ? number(row[shown[0]], shown[2], shown[3]) : "–");
        });
        var any = cells.some(function (cell) { return cell.textContent !== "–"; });
        return any ? make("tr", {}, make("th", { scope: "row" }, shown[1]), ...cells) : "";
      });
      read.replaceChildren(make("table", {}, make("caption", {}, "epoch " + epochs[at]), make("thead", {}, head), make("tbody", {}, ...body)));
      hair.hidden = read.hidden = false;
      hair.style.left = +plot.dataset.zero + plot.dataset.step * epochs[at] + "%";
      read.style.left = "0";
      read.style.top = "calc(100% - 1.2rem)";
      var over = read.getBoundingClientRect().right - document.documentElement.clientWidth + 8;
      if (over > 0) { read.style.left = -over + "px"; }
    }
    function hide() { hair.hidden = read.hidden = true; }
    plot.addEventListener("pointermove", function (event) {
      var box = plot.getBoundingClientRect(), svg = plot.querySelector("svg").getBoundingClientRect();
      var epoch = (100 * (event.clientX - box.left) / svg.width - plot.dataset.zero) / plot.dataset.step;
      at = epochs.reduce(function (best, value, k) { return Math.abs(value - epoch) < Math.abs(epochs[best] - epoch) ? k : best; }, 0);
      show();
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("focus", show);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", function (event) {
      var step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) { return; }
      event.preventDefault();
      at = Math.min(Math.max(at + step, 0), epochs.length - 1);
      show();
    });
  });

  /* The curves of a class. */
  document.querySelectorAll("[data-trade]").forEach(function (trade) {
    var buttons = [];
    function mark(row) {
      trade.querySelectorAll("path[data-class]").forEach(function (path) {
        path.classList.toggle("on", path.dataset.class === row.dataset.class);
        if (path.dataset.class === row.dataset.class) { path.parentElement.append(path); }
      });
      buttons.forEach(function (button) { button.setAttribute("aria-pressed", String(row.contains(button))); });
    }
    trade.querySelectorAll("tr[data-class]").forEach(function (row) {
      var button = make("button", { type: "button" }, ...row.cells[0].childNodes);
      row.cells[0].append(button);
      buttons.push(button);
      row.addEventListener("pointerenter", function () { mark(row); });
      button.addEventListener("focus", function () { mark(row); });
      button.addEventListener("click", function () { mark(row); });
    });
    mark(trade.querySelector("tr[data-first]"));
  });
})();
