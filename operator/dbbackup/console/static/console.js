// Links and forms work without this script. It adds shortcuts, copying, typed confirmation and bounded polling.
(function () {
  "use strict";
  const LIVE_MINUTES = 60;
  const root = document.documentElement;
  const find = (selector) => document.querySelector(selector);

  function toggleTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (_) { /* for this page only */ }
  }

  function announce(text) {
    const place = find("#announce");
    if (place && place.textContent !== text) place.textContent = text;
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch (_) { // not a secure context
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    announce("Copied");
    setTimeout(() => { button.textContent = "Copy as YAML"; }, 2000);
  }

  function confirmations() {
    const typed = find("[data-confirm], [data-confirm-with]");
    if (!typed) return;
    const button = find("[data-confirmed]");
    const other = typed.dataset.confirmWith ? document.getElementById(typed.dataset.confirmWith) : null;
    const check = () => {
      const wanted = (other ? other.value : typed.dataset.confirm).trim();
      button.disabled = !wanted || typed.value.trim() !== wanted;
    };
    typed.addEventListener("input", check);
    if (other) other.addEventListener("input", check);
    check();
  }

  function move(step) {
    const rows = [...document.querySelectorAll("a.row")];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1);
    rows[next].focus();
  }

  let prefix = "";
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, [contenteditable]");
    if (event.key === "Escape" && typing) {
      event.preventDefault(); // a search field would forget what was typed
      typing.blur();
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
    if (event.key === "j" || event.key === "k") { move(event.key === "j" ? 1 : -1); return; }
    const keys = prefix + event.key;
    prefix = "";
    if (event.key === "g") { prefix = "g "; return; }
    for (const element of document.querySelectorAll("[data-key]")) {
      if (element.dataset.key !== keys) continue;
      event.preventDefault();
      if (element.matches("input")) { element.focus(); element.select(); } else element.click();
      return;
    }
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "theme") toggleTheme();
    if (button.id === "help-button") find("#help").showModal();
    if (button.dataset.copy) copy(button);
  });

  // Polling stops in a hidden tab, and after an hour: a forgotten page sends no requests.
  const began = Date.now();
  document.addEventListener("htmx:beforeRequest", (event) => {
    const live = event.target.matches("[data-live]");
    if (live && (document.hidden || Date.now() - began > LIVE_MINUTES * 60000)) event.preventDefault();
  });
  // Nothing is replaced while the pointer is pressed on it.
  let pressed = false;
  document.addEventListener("pointerdown", () => { pressed = true; });
  document.addEventListener("pointerup", () => { setTimeout(() => { pressed = false; }, 300); });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (pressed && event.target.matches("[data-live]")) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:afterSettle", () => {
    const changed = find("[data-announce]");
    if (changed) announce(changed.dataset.announce);
  });
  document.addEventListener("DOMContentLoaded", confirmations);
  if (document.readyState !== "loading") confirmations();
})();
