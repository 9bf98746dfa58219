// Runs before the page is drawn, so that it does not flash: the person's choice, else that of their system.
(function () {
  "use strict";
  var chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch (_) { /* storage is off: the system's choice */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
