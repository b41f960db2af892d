// The one stream of a page. It falls back to asking every few seconds, and lets go while nobody looks: a browser has
// six connections a host, and tabs in the background must not hold them.

import { byId, el } from "./dom.js";

const POLL_MILLISECONDS = 5000;
const OPEN_MILLISECONDS = 8000;
const TRY_AGAIN_MILLISECONDS = 30_000;
const HIDDEN_MILLISECONDS = 15_000;

const STATES = {
  live: ["", "Live"],
  connecting: ["wait pulse", "Connecting …"],
  polling: ["wait", "Asking every 5 s"],
  ended: ["off", "Ended"],
  sleeping: ["off", "Paused while hidden"],
};

function show(state) {
  const place = byId("live");
  const [kind, text] = STATES[state];
  if (place && place.dataset.stream !== state) {
    place.dataset.stream = state;
    place.replaceChildren(el("i", { class: `dot-live ${kind}`, "aria-hidden": "true" }), text);
  }
}

// `refresh` is called while polling, until `isDone`, and after every gap; `onMessage` returns true when nothing follows.
export function follow(path, { onMessage, refresh, isDone = () => false }) {
  let source = null;
  let polling = 0;
  let opening = 0;
  let again = 0;
  let hiding = 0;
  let lastId = null;
  let isOver = false;

  const poll = () => {
    if (!polling && !isOver) {
      show("polling");
      polling = setInterval(() => (isDone() ? end() : refresh()), POLL_MILLISECONDS);
    }
  };
  const release = () => {
    source?.close();
    source = null;
    for (const timer of [opening, again, polling]) clearTimeout(timer);
    opening = again = polling = 0;
  };
  const end = () => {
    isOver = true;
    release();
    show("ended");
  };

  function open() {
    release();
    if (isOver) return;
    show("connecting");
    const joint = path.includes("?") ? "&" : "?";
    source = new EventSource(lastId ? `${path}${joint}after=${lastId}` : path);
    opening = setTimeout(poll, OPEN_MILLISECONDS);
    source.onopen = () => {
      clearTimeout(opening);
      clearInterval(polling);
      polling = 0;
      show("live");
    };
    source.onmessage = (event) => {
      if (event.lastEventId && path.includes("/optimizations/")) lastId = event.lastEventId;
      if (onMessage(JSON.parse(event.data))) end();
    };
    source.onerror = () => {
      if (source?.readyState === EventSource.CLOSED) {
        release();
        poll();
        again = setTimeout(open, TRY_AGAIN_MILLISECONDS);
      } else if (!isOver) show("connecting");
    };
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (isOver) return;
    if (document.hidden) {
      hiding = setTimeout(() => {
        release();
        show("sleeping");
      }, HIDDEN_MILLISECONDS);
    } else if (!source && !polling) {
      refresh();
      open();
    }
  });
  addEventListener("pagehide", release);
  addEventListener("pageshow", (event) => {
    if (event.persisted) open();
  });
  open();
}

// Calls at most once in so many milliseconds, and never while the call before is under way.
export function calmly(call, milliseconds = 1500) {
  let timer = 0;
  let isBusy = false;
  let isWanted = false;
  const go = async () => {
    timer = 0;
    if (isBusy) {
      isWanted = true;
      return;
    }
    isBusy = true;
    const began = performance.now();
    try {
      await call();
    } finally {
      isBusy = false;
      const rest = Math.max(milliseconds, 3 * (performance.now() - began));
      if (isWanted) {
        isWanted = false;
        timer ||= setTimeout(go, rest);
      }
    }
  };
  return () => {
    timer ||= setTimeout(go, isBusy ? milliseconds : 150);
  };
}
