"use strict";
// Drawing on a canvas: by mouse, finger or pen, and by keys.

const BY_KEY = 7; // how far an arrow key moves the pen
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Let a canvas be drawn on. begin(point) is called where a stroke begins, and proceed(point) where it goes on, with
 * points from [0, 0] to [size, size]. With keys, arrows move the pen, and space lowers and lifts it. The element
 * `mark` shows this pen. Return a function that lifts it.
 */
function drawable(canvas, mark, size, begin, proceed) {
  let pointer = null; // the one that draws
  let down = false; // whether the pen of the keys is down
  let at = [size / 2, size / 5];

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * size, ((event.clientY - box.top) / box.height) * size];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointer = event.pointerId;
    down = false;
    begin(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    // Between two frames there may be several places.
    const all = event.getCoalescedEvents?.() ?? [];
    (all.length ? all : [event]).forEach((one) => proceed(place(one)));
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });

  canvas.addEventListener("keydown", (event) => {
    const move = ARROWS[event.key];
    if (move) {
      at = at.map((c, n) => Math.min(size, Math.max(0, c + BY_KEY * move[n])));
      if (down) proceed(at);
    } else if (event.key === " ") {
      down = !down;
      if (down) begin(at);
    } else return;
    event.preventDefault();
    mark.hidden = false;
    mark.style.left = `${(100 * at[0]) / size}%`;
    mark.style.top = `${(100 * at[1]) / size}%`;
    mark.classList.toggle("down", down);
  });
  canvas.addEventListener("blur", () => {
    down = false;
    mark.hidden = true;
  });
  return () => (down = false);
}
