(function () {
  var root = document.documentElement, button = document.querySelector("[data-theme-toggle]");
  var system = matchMedia("(prefers-color-scheme: dark)");
  function keep(value) { try { localStorage.setItem("ens-theme", value); } catch (error) { /* not from every file */ } }
  function kept() { try { return localStorage.getItem("ens-theme"); } catch (error) { return null; } }
  function now() { return root.dataset.theme || (system.matches ? "dark" : "light"); }
  function say() { button.textContent = now() === "dark" ? "Light theme" : "Dark theme"; }
  if (kept() === "dark" || kept() === "light") { root.dataset.theme = kept(); }
  button.hidden = false;
  say();
  system.addEventListener("change", say);
  button.addEventListener("click", function () {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    keep(root.dataset.theme);
    say();
  });
})();
