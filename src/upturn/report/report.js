"use strict";
for (const book of document.querySelectorAll("[data-flipbook]")) {
  const frames = [...book.querySelectorAll("[data-frame]")];
  const slider = book.querySelector("input");
  const button = book.querySelector("button");
  const label = book.querySelector("output");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let at = frames.length - 1;
  let timer = 0;
  const show = (next) => {
    frames[at].hidden = true;
    at = (next + frames.length) % frames.length;
    frames[at].hidden = false;
    slider.value = at;
    label.textContent = frames[at].dataset.frame;
    slider.setAttribute("aria-valuetext", frames[at].dataset.frame);
  };
  const stop = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = "Play";
  };
  const step = () => {
    show(at + 1);
    timer = setTimeout(step, at === frames.length - 1 ? 2400 : 800);
  };
  const play = () => {
    button.textContent = "Pause";
    timer = setTimeout(step, 300);
  };
  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  book.querySelector("[data-controls]").hidden = false;
  if ("autoplay" in book.dataset && !still && frames.length > 1 && "IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        seen.disconnect();
        play();
      }
    }, { threshold: 0.6 });
    seen.observe(book);
  }
}
