"use strict";
// Keeps the page as the server has it, in place: asks for the page again every
// second while somebody can see it, and changes only what is different, so that
// focus, scroll position, selection and what is unfolded stay. No text that it
// gets is ever run, or becomes markup by way of a string.
(() => {
  const every = 1000; // ms between an answer and the next question
  const patience = 4000; // how long an answer may take
  const tooOld = 2500; // from when on what is shown is said to be old
  const grace = 500; // how long that may still be so after a while in which nobody asked
  const quiet = 2500; // at least so long between two announcements
  const longest = 4; // changes that one announcement tells of

  const root = document.documentElement;
  const sight = document.getElementById("sight");
  const say = document.getElementById("say");
  const hold = document.getElementById("hold");
  let seen = Date.now(); // when the server answered last
  let since = seen; // from when on it may be expected to
  let stopped = false; // by the button
  let asking = null; // the question that is not answered yet
  let next = 0;

  // become makes an element what another one is.
  function become(old, now) {
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && !now.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const ids = new Set([...now.children].map((e) => e.id));
    let at = old.firstChild;
    for (const want of now.childNodes) {
      let have = at;
      if (want.id) {
        while (have && have.id !== want.id) have = have.nextSibling;
        while (have && at !== have && !ids.has(at.id || at)) at = drop(at); // so that nothing needs to be moved
      } else if (have && (have.id || have.nodeType !== want.nodeType || have.nodeName !== want.nodeName)) {
        have = null;
      }
      if (!have) {
        old.insertBefore(document.importNode(want, true), at);
        continue;
      }
      if (have !== at) old.insertBefore(have, at);
      if (have.nodeType !== Node.ELEMENT_NODE) {
        if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
      } else if (!have.isEqualNode(want)) {
        become(have, want);
      }
      at = have.nextSibling;
    }
    while (at) at = drop(at);
  }

  function drop(gone) {
    const after = gone.nextSibling;
    gone.remove();
    return after;
  }

  // What is told to those who do not see the page: who is primary of what, and
  // what is wrong, when it changes, and not each second.
  let told = said();
  let spoke = 0;
  let due = 0;

  function said() {
    const all = new Map();
    for (const s of document.querySelectorAll("[data-say]")) all.set(s.id, s.dataset.say);
    return all;
  }

  function announce() {
    if (due) return;
    due = setTimeout(() => {
      due = 0;
      const all = said();
      const fresh = [...all].filter(([id, text]) => told.get(id) !== text).map(([, text]) => text);
      told = all;
      if (!fresh.length) return;
      const more = fresh.length - longest;
      speak(fresh.slice(0, longest).join(". ") + (more > 0 ? `. And ${more} more` : ""));
    }, Math.max(0, spoke + quiet - Date.now()));
  }

  function speak(text) {
    spoke = Date.now();
    say.textContent = text;
  }

  function ask() {
    clearTimeout(next);
    next = 0;
    if (asking || stopped || document.hidden) return;
    const r = new XMLHttpRequest();
    asking = r;
    r.open("GET", location.pathname);
    r.responseType = "document"; // parsed by the browser, and not run
    r.timeout = patience;
    r.onloadend = () => {
      if (asking !== r) return; // called off
      asking = null;
      const page = r.status === 200 && r.response;
      if (page && page.getElementById("main")) show(page);
      tell();
      if (!stopped && !document.hidden) next = setTimeout(ask, every);
    };
    r.send();
  }

  function show(page) {
    const script = (d) => d.querySelector("script[src]").getAttribute("src");
    if (script(page) !== script(document)) return location.reload(); // the server is a newer one
    if (root.classList.contains("lost")) speak("The server answers again");
    seen = Date.now();
    document.title = page.title;
    become(document.getElementById("main"), page.getElementById("main"));
    become(sight, page.getElementById("sight"));
    announce();
  }

  // tell says how old what is shown is, where that is not plain.
  function tell() {
    const age = Date.now() - seen;
    const lost = !stopped && !document.hidden && Date.now() - Math.max(seen, since) > tooOld;
    if (lost && !root.classList.contains("lost")) speak("The server does not answer. What is shown is old");
    root.classList.toggle("lost", lost);
    root.classList.toggle("stopped", stopped);
    if (lost) sight.textContent = `no answer: last seen ${Math.floor(age / 1000)} s ago`;
  }

  function pause() {
    clearTimeout(next);
    next = 0;
    const r = asking;
    asking = null;
    if (r) r.abort();
  }

  function again() {
    since = Date.now() - tooOld + grace;
    ask();
  }

  hold.hidden = false;
  hold.addEventListener("click", () => {
    stopped = !stopped;
    hold.textContent = stopped ? "Update again" : "Stop updates";
    if (stopped) pause();
    else again();
    tell();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) pause();
    else again();
  });
  setInterval(() => {
    if (!document.hidden) tell();
  }, 1000);
  // A link into a service that is folded unfolds it.
  addEventListener("hashchange", unfold);
  function unfold() {
    const to = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (to instanceof HTMLDetailsElement) to.open = true;
  }
  unfold();
  next = setTimeout(ask, every);
})();
