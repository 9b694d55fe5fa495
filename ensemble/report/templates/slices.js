(function () {
  var data = JSON.parse(document.getElementById("map-data").textContent);
  var box = document.querySelector(".map"), svg = box.querySelector("svg"), tip = box.querySelector(".tip");
  var tile = tip.querySelector(".thumb"), points = svg.querySelectorAll("circle"), near = null, TILE = 108;
  var buttons = document.querySelectorAll(".maps button");

  function nearest(event) {
    var frame = svg.getBoundingClientRect(), scale = 1040 / frame.width, best = 22 * scale, found = null;
    var x = (event.clientX - frame.left) * scale - 20, y = (event.clientY - frame.top) * scale - 20;
    points.forEach(function (point, at) {
      if (svg.classList.contains("some") && !point.classList.contains("lit")) { return; }
      var distance = Math.hypot(point.cx.baseVal.value - x, point.cy.baseVal.value - y);
      if (distance < best) { best = distance; found = at; }
    });
    return found;
  }

  function show(at) {
    if (near !== null) { points[near].classList.remove("near"); }
    near = at;
    tip.hidden = at === null;
    if (at === null) { return; }
    var point = points[at], frame = svg.getBoundingClientRect(), scale = frame.width / 1040;
    point.classList.add("near");
    if (tile) {
      tile.style.backgroundSize = data.columns * TILE + "px auto";
      tile.style.backgroundPosition = -(at % data.columns) * TILE + "px " + -Math.floor(at / data.columns) * TILE + "px";
    }
    var label = data.classes[data.label[at]], predicted = data.classes[data.predicted[at]];
    var sure = " " + (100 * data.confidence[at]).toFixed(1) + " %", wrong = label !== predicted;
    tip.querySelector("b").textContent = label;
    var text = tip.querySelector("span");
    text.className = wrong ? "off" : "";
    text.textContent = wrong ? " predicted " + predicted + sure : sure;
    tip.querySelector(".id").textContent = data.ids[at];
    var x = (point.cx.baseVal.value + 20) * scale, y = (point.cy.baseVal.value + 20) * scale;
    tip.style.left = Math.max(0, Math.min(x + 14, frame.width - tip.offsetWidth)) + "px";
    tip.style.top = y + 14 + tip.offsetHeight > frame.height && y > tip.offsetHeight + 14
      ? y - tip.offsetHeight - 14 + "px" : y + 14 + "px";
  }

  svg.addEventListener("pointermove", function (event) { show(nearest(event)); });
  svg.addEventListener("pointerdown", function (event) { show(nearest(event)); });
  svg.addEventListener("pointerleave", function (event) { if (event.pointerType === "mouse") { show(null); } });

  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      var pressed = button.getAttribute("aria-pressed") === "true";
      buttons.forEach(function (other) { other.setAttribute("aria-pressed", "false"); });
      button.setAttribute("aria-pressed", String(!pressed));
      var inside = button.dataset.slice === undefined ? null : data.slices[button.dataset.slice];
      svg.classList.toggle("some", !pressed);
      points.forEach(function (point, at) {
        var lit = inside === null ? data.label[at] === Number(button.dataset.class) : inside.indexOf(at) >= 0;
        point.classList.toggle("lit", lit);
      });
      show(null);
    });
  });
})();
