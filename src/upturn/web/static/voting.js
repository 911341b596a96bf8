"use strict";
// Every page works without this script. With it: keys, an order that can be dragged, answers that are sent without
// loading the page again, and sent again when the network was away (under the same id, so that they count once).
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const $ = (what, from = document) => from.querySelector(what);
  const all = (what, from = document) => [...from.querySelectorAll(what)];
  const writing = (node) => node.closest("textarea, select, input:not([type=radio]):not([type=checkbox])");
  let shownAt = performance.now();
  let hiddenFor = 0;
  let hiddenAt = 0;
  let busy = false;
  let placed = 0;

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now();
    else hiddenFor += performance.now() - hiddenAt;
  });

  // sending

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const trouble = (words) => {
    const line = $("#trouble");
    line.textContent = words;
    line.hidden = !words;
  };

  async function send(form, submitter) {
    if (busy) return;
    busy = true;
    root.classList.add("busy");
    if (submitter) submitter.classList.add("pressed");
    const body = new URLSearchParams(new FormData(form, submitter));
    // its fields are called id and action, and hide the form's own properties of these names
    if (form.getAttribute("id") === "vote") body.set("seconds", ((performance.now() - shownAt - hiddenFor) / 1000).toFixed(3));
    for (let tries = 0; ; tries += 1) {
      try {
        const answer = await fetch(form.getAttribute("action"), { method: "POST", body, headers: { accept: "text/html" } });
        if (answer.status === 429 || answer.status === 503) throw new Error("later");
        const text = await answer.text();
        trouble("");
        if (new URL(answer.url).pathname === "/signin") location.assign("/signin");
        else show(text, answer.url);
        break;
      } catch {
        trouble("Not saved yet: trying again …");
        await pause(Math.min(8000, 500 * 2 ** tries));
      }
    }
    busy = false;
    root.classList.remove("busy");
  }

  function show(text, address) {
    const page = new DOMParser().parseFromString(text, "text/html");
    document.title = page.title;
    $("main").replaceWith(document.adoptNode($("main", page)));
    const here = new URL(address);
    here.searchParams.delete("note");
    if (here.pathname === "/") history.replaceState(null, "", here);
    begin();
    if (matchMedia("(max-width: 640px)").matches) scrollTo(0, 0);
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!["vote", "undo"].includes(form.getAttribute("id"))) return;
    event.preventDefault();
    send(form, event.submitter);
  });

  // keys

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.defaultPrevented || $("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key === "Enter") press("ctrl+enter", event);
      return;
    }
    if (key === "Escape" && writing(event.target)) event.target.blur();
    if (writing(event.target)) return;
    if (key === "Enter" && event.target.closest("button, a, summary")) return;
    if (ranked(key, event) || rated(key, event)) return;
    const field = $(`[data-focus="${CSS.escape(key)}"]`);
    if (field) {
      event.preventDefault();
      field.focus();
    } else press(key.toLowerCase(), event);
  });

  function press(key, event) {
    const found = $(`main [data-key="${CSS.escape(key)}"]`);
    if (!found || event.repeat) return;
    event.preventDefault();
    found.click();
  }

  // an order: by keys, by buttons, by dragging

  const rows = () => all(".ranking > li");

  function renumber() {
    rows().forEach((row, place) => {
      $(".place", row).textContent = `${place + 1}.`;
      $("select", row).value = String(place + 1);
      row.classList.toggle("placed", place < placed);
    });
  }

  function ranked(key, event) {
    if (!$(".ranking")) return false;
    const row = event.target.closest(".ranking > li");
    if (row && (key === "ArrowUp" || key === "ArrowDown")) {
      event.preventDefault();
      move(row, key === "ArrowUp" ? -1 : 1);
      row.focus();
      return true;
    }
    const named = $(`.ranking > li[data-candidate="${CSS.escape(key)}"]`);
    if (!named || key === "0") return false;
    if (placed >= rows().length) placed = 0;
    $(".ranking").insertBefore(named, rows().filter((one) => one !== named)[placed] || null);
    placed += 1;
    renumber();
    return true;
  }

  function move(row, by) {
    const others = rows();
    const to = others.indexOf(row) + by;
    if (to < 0 || to >= others.length) return;
    $(".ranking").insertBefore(row, by < 0 ? others[to] : others[to].nextSibling);
    placed = 0;
    renumber();
  }

  document.addEventListener("pointerdown", (event) => {
    const row = event.target.closest(".ranking > li");
    const finger = event.pointerType === "touch";
    if (!row || event.button !== 0 || event.target.closest("button, select, a")) return;
    if (finger && !event.target.closest(".grip")) return;
    event.preventDefault();
    row.focus();
    row.classList.add("dragged");
    row.setPointerCapture(event.pointerId);
    const over = (moved) => {
      const others = rows().filter((one) => one !== row);
      const next = others.find((one) => {
        const box = one.getBoundingClientRect();
        return moved.clientY < box.top + box.height / 2;
      });
      if (next !== row.nextElementSibling) {
        $(".ranking").insertBefore(row, next || null);
        placed = 0;
        renumber();
        if (!row.hasPointerCapture(moved.pointerId)) row.setPointerCapture(moved.pointerId);
      }
    };
    const end = () => {
      row.classList.remove("dragged");
      document.removeEventListener("pointermove", over);
      document.removeEventListener("pointerup", end);
      document.removeEventListener("pointercancel", end);
    };
    document.addEventListener("pointermove", over);
    document.addEventListener("pointerup", end);
    document.addEventListener("pointercancel", end);
  });

  // several ratings

  const scales = () => all("fieldset.scale");
  const current = () => scales().find((one) => one.classList.contains("now"));

  function mark(scale) {
    scales().forEach((one) => one.classList.toggle("now", one === scale));
    if (scale) scale.scrollIntoView({ block: "nearest" });
  }

  function rated(key, event) {
    const list = scales();
    if (!list.length) return false;
    const place = list.indexOf(current());
    if (key === "ArrowUp" || key === "ArrowDown") {
      event.preventDefault();
      mark(list[Math.min(list.length - 1, Math.max(0, place + (key === "ArrowUp" ? -1 : 1)))]);
      return true;
    }
    if (!/^[0-9]$/.test(key)) return false;
    $(`input[value="${key === "0" ? 10 : key}"]`, list[place]).checked = true;
    mark(list[Math.min(list.length - 1, place + 1)]);
    return true;
  }

  document.addEventListener("change", (event) => {
    const scale = event.target.closest("fieldset.scale");
    if (scale) mark(scales()[Math.min(scales().length - 1, scales().indexOf(scale) + 1)]);
  });

  // small things

  document.addEventListener("click", async (event) => {
    const moving = event.target.closest("[data-move]");
    if (moving) move(moving.closest("li"), Number(moving.dataset.move));
    if (event.target.closest("[data-help]") && $("#keys")) $("#keys").showModal();
    const copying = event.target.closest("[data-copy]");
    if (copying) {
      const field = document.getElementById(copying.dataset.copy);
      field.select();
      try {
        await navigator.clipboard.writeText(field.value);
        copying.textContent = "Copied";
      } catch {
        copying.textContent = "Press Ctrl C";
      }
    }
  });

  async function look() {
    // a requested sample is being generated: look again, and leave the form as it is
    const studio = $("#studio[data-again]");
    if (!studio) return;
    await pause(1000);
    try {
      const answer = await fetch("/studio", { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = $("#studio", page);
      if (fresh && $("#studio")) {
        const old = $("[data-keep]");
        const renewed = $("[data-keep]", fresh);
        const same = old && renewed && old.tagName === renewed.tagName;
        if (same) renewed.replaceWith(old);
        const focused = document.activeElement === old;
        $("#studio").replaceWith(document.adoptNode(fresh));
        if (same && focused) old.focus();
      }
    } catch {
      await pause(2000);
    }
    look();
  }

  function begin() {
    shownAt = performance.now();
    hiddenFor = 0;
    placed = 0;
    if ($(".ranking")) renumber();
    mark(scales()[0]);
    for (const field of all("[data-link]")) field.value = location.origin + field.value;
  }

  // a sign-in link: the part after # was not sent to the server
  function enter() {
    const form = $("#signin");
    if (!form || location.hash.length < 20) return;
    $("#token").value = location.hash.slice(1);
    history.replaceState(null, "", "/signin");
    form.submit();
  }

  addEventListener("hashchange", enter); // the link is opened while the sign-in page is displayed
  enter();
  begin();
  look();
})();
