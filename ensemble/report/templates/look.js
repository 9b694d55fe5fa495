/* Looking at images: filter and sort the gallery, show those of a cell of the confusion matrix, enlarge one. Without
   this script the page is whole, but for the images of the matrix. */
(function () {
  function make(tag, attributes, ...children) {
    var made = Object.assign(document.createElement(tag), attributes || {});
    made.append(...children);
    return made;
  }
  function percent(share) { return (100 * share).toFixed(1) + "\u00a0%"; }

  /* The gallery. */
  var gallery = document.querySelector("[data-gallery]");
  if (gallery) {
    var shelf = gallery.querySelector(".cards"), cards = [...shelf.children];
    var ofClass = gallery.querySelector("[data-class]"), by = gallery.querySelector("[data-sort]");
    var arrange = function () {
      var list = gallery.querySelector("input[name=gallery]:checked").value;
      var keys = {
        rank: function (card) { return +card.dataset[list]; },
        p: function (card) { return +card.dataset.p; },
        label: function (card) { return 1e6 * card.dataset.label + +card.dataset[list]; },
      };
      cards.sort(function (a, b) {
        return by.value === "id" ? a.dataset.id.localeCompare(b.dataset.id) : keys[by.value](a) - keys[by.value](b) || 0;
      });
      shelf.append(...cards);
      var shown = 0;
      cards.forEach(function (card) {
        card.hidden = ofClass.value !== "" && card.dataset.label !== ofClass.value && card.dataset.predicted !== ofClass.value;
        if (!card.hidden && list in card.dataset) { shown += 1; }
      });
      gallery.querySelector("[data-shown]").textContent = shown + " images are shown";
    };
    gallery.querySelector("[data-choose]").hidden = false;
    gallery.addEventListener("change", arrange);
    arrange();
  }

  /* The images of a cell. */
  var stored = document.getElementById("cell-images"), panel = document.querySelector("[data-of-cell]");
  if (stored && panel) {
    var known = JSON.parse(stored.textContent), cells = [...document.querySelectorAll("[data-cell]")], buttons = [];
    var source = function (row) {
      var there = document.querySelector('img[data-row="' + row + '"]');
      return known.images[row].src || (there ? there.src : "");
    };
    var picture = function (row) {
      var image = known.images[row], src = source(row);
      var alt = image.id + ", labelled " + image.label + (image.right ? ", predicted right" : ", predicted " + image.predicted);
      var frame = src ? make("button", { type: "button", className: "frame" }, make("img", { src: src, alt: alt }))
        : make("div", { className: "frame" }, make("span", { className: "absent", textContent: "no picture: " + image.problem }));
      if (src) { frame.dataset.zoom = ""; }
      var text = make("figcaption", {}, make("span", {}, make("b", { textContent: image.label }), " " + percent(image.p_label)));
      if (!image.right) {
        text.append(make("span", {}, make("span", { className: "off", textContent: "predicted " + image.predicted }), " " + percent(image.p_predicted)));
      }
      text.append(make("span", { className: "id", textContent: image.id }));
      return make("figure", { className: "card" }, frame, text);
    };
    var show = function (cell) {
      var rows = known.cells[cell.dataset.cell] || [], count = +cell.querySelector(".counts").textContent;
      var names = [...cell.closest("table").querySelectorAll("tbody th")].map(function (th) { return th.textContent; });
      var pair = cell.dataset.cell.split(" ").map(function (at) { return names[at]; });
      var title = pair[0] === pair[1] ? pair[0] + ", predicted right" : pair[0] + ", predicted " + pair[1];
      var number = count + (count === 1 ? " image" : " images") + (rows.length < count ? ", " + rows.length + " shown" : "");
      panel.replaceChildren(make("h4", { textContent: title + ": " + number }), make("div", { className: "cards" }, ...rows.map(picture)));
      panel.hidden = false;
      buttons.forEach(function (button) { button.setAttribute("aria-pressed", String(button.parentElement === cell)); });
    };
    cells.forEach(function (cell) {
      var button = make("button", { type: "button" }, ...cell.childNodes);
      button.addEventListener("click", function () { show(cell); });
      cell.append(button);
      buttons.push(button);
    });
    var most = cells.filter(function (cell) { return cell.classList.contains("off"); }).concat(cells).reduce(function (a, b) {
      var off = b.classList.contains("off") - a.classList.contains("off");
      var more = b.querySelector(".counts").textContent - a.querySelector(".counts").textContent;
      return off > 0 || (off === 0 && more > 0) ? b : a;
    });
    show(most);
  }

  /* One picture, enlarged. The arrow keys go to the next one beside it. */
  var dialog = make("dialog", { className: "zoom" }), big = make("img"), text = make("div", { className: "caption" });
  var before = make("button", { type: "button", textContent: "‹" }), after = make("button", { type: "button", textContent: "›" });
  var close = make("button", { type: "button", className: "close", textContent: "×" });
  before.setAttribute("aria-label", "Previous image");
  after.setAttribute("aria-label", "Next image");
  close.setAttribute("aria-label", "Close");
  dialog.setAttribute("aria-label", "An image, enlarged");
  var below = make("div", { className: "below" }, before, text, after);
  dialog.append(close, below);
  document.body.append(dialog);
  var shelfOf = [], at = 0;
  function enlarge(step) {
    at = (at + step + shelfOf.length) % shelfOf.length;
    var image = shelfOf[at].querySelector("img"), card = shelfOf[at].closest("figure");
    big.src = image.src;
    big.alt = image.alt;
    below.before(big);
    text.replaceChildren(...(card && card.querySelector("figcaption") ? [...card.querySelector("figcaption").cloneNode(true).childNodes] : [image.alt]));
    before.hidden = after.hidden = shelfOf.length < 2;
  }
  document.addEventListener("click", function (event) {
    var pressed = event.target.closest("[data-zoom]");
    if (!pressed) { return; }
    var group = pressed.closest(".cards, tr, .pair") || pressed.parentElement;
    shelfOf = [...group.querySelectorAll("[data-zoom]")].filter(function (one) { return one.offsetParent; });
    at = shelfOf.indexOf(pressed);
    enlarge(0);
    dialog.showModal();
  });
  before.addEventListener("click", function () { enlarge(-1); });
  after.addEventListener("click", function () { enlarge(1); });
  close.addEventListener("click", function () { dialog.close(); });
  dialog.addEventListener("click", function (event) { if (event.target === dialog) { dialog.close(); } });
  dialog.addEventListener("close", function () { if (shelfOf[at]) { shelfOf[at].focus(); } });
  dialog.addEventListener("keydown", function (event) {
    if (event.key === "ArrowLeft") { enlarge(-1); }
    if (event.key === "ArrowRight") { enlarge(1); }
  });

  /* Which section is being read. */
  var links = new Map([...document.querySelectorAll("nav a")].map(function (a) { return [a.hash.slice(1), a]; }));
  var reading = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) { return; }
      links.forEach(function (a) { a.removeAttribute("aria-current"); });
      var link = links.get(entry.target.id);
      if (link) { link.setAttribute("aria-current", "true"); }
    });
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach(function (section) { reading.observe(section); });
})();
