// Before the page is drawn, so that it does not flash: what the person chose, else what their system says.
(function () {
  "use strict";
  var chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch (_) { /* storage is off: the system's choice */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
