// Two conveniences; every page works without them: fragments that keep themselves current over
// server-sent events, and buttons that copy. A hidden page lets go of its stream.
"use strict";

const streams = new Map();

function listen(place) {
  const source = new EventSource(place.dataset.live);
  source.onmessage = (event) => {
    const open = place.querySelector("details[open], :focus");
    if (!open) place.innerHTML = event.data;
  };
  streams.set(place, source);
}

function follow() {
  for (const source of streams.values()) source.close();
  streams.clear();
  if (document.hidden) return;
  document.querySelectorAll("[data-live]").forEach(listen);
}

document.addEventListener("visibilitychange", follow);
window.addEventListener("pagehide", () => streams.forEach((source) => source.close()));
follow();

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const label = button.querySelector("span");
    const before = label.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const field = document.createElement("textarea");
      field.value = button.dataset.copy;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    label.textContent = button.dataset.done;
    setTimeout(() => { label.textContent = before; }, 1600);
    return;
  }
  for (const each of document.querySelectorAll("details.pop[open]")) {
    if (!each.contains(event.target)) each.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const each of document.querySelectorAll("details.pop[open]")) {
    each.open = false;
    each.querySelector("summary").focus();
  }
});

// A form whose choices apply at once: filters.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-at-once]");
  if (form) form.requestSubmit();
});
