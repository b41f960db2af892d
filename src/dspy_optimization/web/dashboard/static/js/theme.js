// Runs before anything is drawn: a page must not flash in the wrong colours. Not a module for that reason.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a browser may refuse to keep anything
    }
  };
  const apply = () => {
    const wanted = kept();
    document.documentElement.dataset.theme = wanted ?? (dark.matches ? "dark" : "light");
    document.dispatchEvent(new CustomEvent("theme"));
  };
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  document.addEventListener("theme-wanted", (event) => {
    try {
      if (event.detail === null) localStorage.removeItem("theme");
      else localStorage.setItem("theme", event.detail);
    } catch {
      // it stays for this page
    }
    apply();
    if (event.detail !== null) document.documentElement.dataset.theme = event.detail;
  });
  apply();
})();
